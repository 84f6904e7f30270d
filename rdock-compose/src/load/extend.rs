//! `extends`: a service begins as another one, of this file or of another.

use super::{Context, DOCUMENT, Loader};
use crate::error::{FindingKind, Result, nearest};
use crate::schema::{self, Check, SERVICE_SHAPE};
use crate::source::{Problem, Span};
use crate::yaml::{Map, Node, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Services that extend each other.
type Chain = Vec<(PathBuf, String)>;

/// Longer chains are a mistake.
const LONGEST_CHAIN: usize = 50;

/// Names of things elsewhere, which are never fetched: what they bring would decide which files are written and run.
pub(super) fn is_remote(path: &str) -> bool {
    let scheme = path.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "+.-".contains(letter))
    });
    scheme || path.starts_with("git@") || path.starts_with("github.com/") || path.contains(".git#")
}

impl Loader<'_> {
    /// Every service of a document that extends another.
    pub(super) fn extend_all(&mut self, document: &mut Node, file: &Path, context: &Context) -> Result<()> {
        let Some(services) = document.get("services").and_then(Node::as_map) else {
            return Ok(());
        };
        if !services.values().any(|entry| entry.node.get("extends").is_some()) {
            return Ok(());
        }
        let before = services.clone();
        for (name, entry) in &before {
            if entry.node.get("extends").is_none() {
                continue;
            }
            let mut chain = vec![(file.to_owned(), name.clone())];
            let extended = self.extended(name, &entry.node, &before, file, context, &mut chain)?;
            if let Some(services) = document.get_mut("services").and_then(Node::as_map_mut)
                && let Some(place) = services.get_mut(name)
            {
                place.node = extended;
            }
        }
        Ok(())
    }

    fn extended(
        &mut self,
        name: &str,
        service: &Node,
        services: &Map,
        file: &Path,
        context: &Context,
        chain: &mut Chain,
    ) -> Result<Node> {
        let Some(extends) = service.get("extends").filter(|extends| extends.tag.is_none()) else {
            let mut service = service.clone();
            service.remove("extends");
            return Ok(service);
        };
        let span = extends.span;
        let path = format!("services.{name}.extends");
        let wrong = |kind, message: String| Problem::new(kind, span, &path, message);
        let Some(base_name) = extends.get("service").and_then(Node::as_text) else {
            let problem = wrong(FindingKind::Missing, "the key \"service\" is missing".to_owned());
            return Err(self.sources.error(problem));
        };
        let base = match extends.get("file").and_then(Node::as_text) {
            None => self.base(base_name, services, file, context, chain, span, &path)?,
            Some(other) => {
                if is_remote(other) {
                    let message = format!("{other}: files elsewhere are not loaded");
                    return Err(self.sources.error(wrong(FindingKind::Refused, message)));
                }
                if !self.options.other_files {
                    let message = format!("{other}: this document may not read other files");
                    return Err(self.sources.error(wrong(FindingKind::Refused, message)));
                }
                let other = schema::clean(&context.dir.join(other));
                let document = self.extended_file(&other, context, span, &path)?;
                let inner = Context {
                    dir: other.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned),
                    ..context.clone()
                };
                let empty = Map::new();
                let services = document.get("services").and_then(Node::as_map).unwrap_or(&empty);
                let mut base = self.base(base_name, services, &other, &inner, chain, span, &path)?;
                let home = self.options.environment.get("HOME").map(String::as_str);
                schema::resolve(
                    &SERVICE_SHAPE,
                    &mut base,
                    &schema::Base {
                        dir: &inner.dir,
                        home,
                    },
                );
                base
            }
        };
        self.nodes += base.count();
        if self.nodes > self.limits.nodes {
            let most = self.limits.nodes;
            let message = format!("more than {most} values, those that extends repeats counted");
            return Err(self.sources.error(wrong(FindingKind::Limit, message)));
        }
        let mut own = service.clone();
        own.remove("extends");
        Ok(schema::merge(&SERVICE_SHAPE, base, own))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "where the base stands, and where it is asked for"
    )]
    fn base(
        &mut self,
        name: &str,
        services: &Map,
        file: &Path,
        context: &Context,
        chain: &mut Chain,
        span: Span,
        path: &str,
    ) -> Result<Node> {
        let Some(entry) = services.get(name) else {
            let message = format!("{} has no service {name:?}", file.display());
            let mut problem = Problem::new(FindingKind::Undefined, span, path, message);
            if let Some(near) = nearest(name, services.keys().map(String::as_str)) {
                problem = problem.hint(format!("did you mean {near:?}?"));
            }
            return Err(self.sources.error(problem));
        };
        let link = (file.to_owned(), name.to_owned());
        if chain.contains(&link) || chain.len() >= LONGEST_CHAIN {
            let names: Vec<&str> = chain
                .iter()
                .map(|(_, name)| name.as_str())
                .chain([name])
                .collect();
            let message = format!("services extend each other: {}", names.join(" -> "));
            return Err(self
                .sources
                .error(Problem::new(FindingKind::Cycle, span, path, message)));
        }
        // One that is left empty is a base without attributes.
        if entry.node.is_null() {
            return Ok(Node::new(entry.node.span, Value::Map(Map::new())));
        }
        chain.push(link);
        let base = self.extended(name, &entry.node, services, file, context, chain);
        chain.pop();
        base
    }

    /// The documents of another file as one; read once.
    fn extended_file(&mut self, file: &Path, context: &Context, span: Span, path: &str) -> Result<Arc<Node>> {
        if let Some(known) = self.extended.get(file) {
            return Ok(known.clone());
        }
        if !file.is_file() {
            let message = format!("{} is not a file", file.display());
            return Err(self
                .sources
                .error(Problem::new(FindingKind::Missing, span, path, message)));
        }
        let mut whole: Option<Node> = None;
        for mut document in self.raw(file)? {
            self.fill(&mut document, context)?;
            let mut check = Check::part(!self.options.interpolate);
            check.apply(&DOCUMENT, &mut document);
            self.report(check)?;
            whole = Some(match whole {
                Some(base) => schema::merge(&DOCUMENT, base, document),
                None => document,
            });
        }
        let whole = Arc::new(whole.unwrap_or_else(|| Node::empty_map(span)));
        self.extended.insert(file.to_owned(), whole.clone());
        Ok(whole)
    }
}
