//! `include`: the services of another project's files, with that project's folder and variables.

use super::extend::is_remote;
use super::{Context, DOCUMENT, Loader};
use crate::error::{FindingKind, Result};
use crate::schema;
use crate::source::{Problem, Span};
use crate::yaml::Node;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an include brings.
const BROUGHT: [&str; 6] = ["services", "networks", "volumes", "configs", "secrets", "models"];

/// Deeper ones are a mistake.
const DEEPEST: usize = 50;

impl Loader<'_> {
    /// All includes of a document as one tree, which the document then changes like an override file.
    pub(super) fn include(
        &mut self,
        document: &mut Node,
        file: &Path,
        context: &Context,
    ) -> Result<Option<Node>> {
        let Some(include) = document.remove("include") else {
            return Ok(None);
        };
        let mut all: Option<Node> = None;
        for (index, entry) in include.as_list().unwrap_or_default().iter().enumerate() {
            let path = format!("include.{index}");
            let mut included = self.included(entry, &path, file, context)?;
            if let Some(map) = included.as_map_mut() {
                map.retain(|key, _| BROUGHT.contains(&key.as_str()));
            }
            all = Some(match all {
                Some(earlier) => schema::merge(&DOCUMENT, included, earlier),
                None => included,
            });
        }
        Ok(all)
    }

    fn refuse(&self, kind: FindingKind, span: Span, path: &str, message: String) -> crate::Error {
        self.sources.error(Problem::new(kind, span, path, message))
    }

    fn included(&mut self, entry: &Node, path: &str, file: &Path, context: &Context) -> Result<Node> {
        let span = entry.span;
        let texts = |key: &str| -> Vec<String> {
            let list = entry.get(key).and_then(Node::as_list).unwrap_or_default();
            list.iter()
                .filter_map(|node| node.as_text().map(str::to_owned))
                .collect()
        };
        let mut files: Vec<PathBuf> = Vec::new();
        for name in texts("path") {
            if is_remote(&name) {
                let message = format!("{name}: files elsewhere are not loaded");
                return Err(self.refuse(FindingKind::Refused, span, path, message));
            }
            if !self.options.other_files {
                let message = format!("{name}: this document may not read other files");
                return Err(self.refuse(FindingKind::Refused, span, path, message));
            }
            let other = schema::clean(&context.dir.join(&name));
            if other == file || context.including.contains(&other) || context.including.len() >= DEEPEST {
                let chain: Vec<String> = context
                    .including
                    .iter()
                    .chain([&file.to_owned(), &other])
                    .map(|file| file.display().to_string())
                    .collect();
                let message = format!("files include each other: {}", chain.join(" -> "));
                return Err(self.refuse(FindingKind::Cycle, span, path, message));
            }
            if !other.is_file() {
                let message = format!("{} is not a file", other.display());
                return Err(self.refuse(FindingKind::Missing, span, path, message));
            }
            files.push(other);
        }
        let Some(first) = files.first() else {
            let message = "the key \"path\" is missing".to_owned();
            return Err(self.refuse(FindingKind::Missing, span, path, message));
        };
        let dir = match entry.get("project_directory").and_then(Node::as_text) {
            Some(dir) => schema::clean(&context.dir.join(dir)),
            None => first.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned),
        };
        let mut env_files: Vec<PathBuf> = texts("env_file")
            .iter()
            .map(|file| context.dir.join(file))
            .collect();
        if env_files.is_empty() && dir != context.dir && dir.join(".env").is_file() {
            env_files.push(dir.join(".env"));
        }
        // The including project's variables win.
        let mut environment = (*context.environment).clone();
        let mut brought = std::collections::BTreeMap::new();
        for file in &env_files {
            if let Some(kind) = super::irregular(file) {
                let message = format!("env_file: {} is {kind}, not a file", file.display());
                return Err(self.refuse(FindingKind::Refused, span, path, message));
            }
            let found = self.env_file(file, &|name| {
                environment.get(name).or_else(|| brought.get(name)).cloned()
            })?;
            brought.extend(found);
        }
        for (name, value) in brought {
            environment.entry(name).or_insert(value);
        }
        let mut including = context.including.clone();
        including.push(file.to_owned());
        let inner = Context {
            dir: dir.clone(),
            environment: Arc::new(environment),
            including,
        };
        let mut tree = self.model(&files, &inner)?;
        // Its paths begin at its own folder whatever the caller wants to see.
        self.resolve(&mut tree, &dir);
        Ok(tree)
    }
}
