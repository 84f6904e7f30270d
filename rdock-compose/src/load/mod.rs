//! From files to a [`Project`]: discover, read, fill in, extend, include, merge, check, normalise.

mod check;
mod discover;
mod environment;
mod extend;
mod file;
mod include;
mod name;
mod normalize;
mod options;
mod regular;

pub use options::LoadOptions;
pub(crate) use regular::{irregular, open as open_regular};

use crate::error::{Error, Result, Warning, WarningKind};
use crate::model::{Origin, Project};
use crate::schema::{self, Base, Check, Shape, TOP};
use crate::source::{Problem, Sources, Span};
use crate::yaml::{Limits, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Services of one project: each costs kilobytes.
const MOST_SERVICES: usize = 2000;

/// The document's shape.
static DOCUMENT: Shape = Shape::Object(&TOP);

/// What all files of a project share while it is read.
struct Loader<'a> {
    options: &'a LoadOptions,
    sources: Sources,
    limits: Limits,
    warnings: Vec<Warning>,
    unset: BTreeSet<String>,
    /// Bytes that variables have brought.
    filled: usize,
    /// Files that were read, so that a project of a million includes ends.
    files: usize,
    /// Values that they hold, those that `extends` repeats counted each time.
    nodes: usize,
    /// Bytes of their texts, which are kept for messages.
    bytes: usize,
    /// Files that the caller named, absolute: these may be pipes.
    given: BTreeSet<PathBuf>,
    /// What came out of those that are, since that can be read only once.
    piped: BTreeMap<PathBuf, Vec<u8>>,
    /// Files of `extends`, which several services may name.
    extended: BTreeMap<PathBuf, Arc<Node>>,
    /// The project's name, if the caller says it.
    named: Option<String>,
}

/// Where a file stands and what its variables are.
#[derive(Clone)]
struct Context {
    dir: PathBuf,
    environment: Arc<BTreeMap<String, String>>,
    /// Files that are being included, outermost first.
    including: Vec<PathBuf>,
}

/// A merged tree before it is typed; what `config --no-interpolate` and its like print.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Document {
    /// The project's name.
    pub name: String,
    /// The canonical tree as JSON, with the name.
    pub tree: serde_json::Value,
    /// What is legal and should be known.
    pub warnings: Vec<Warning>,
}

impl Project {
    /// Loads the project of these options.
    ///
    /// # Errors
    /// No file, one that cannot be read, or [`Error::Invalid`] with every mistake that was found.
    pub fn load(options: &LoadOptions) -> Result<Self> {
        let options = &*options.rooted()?;
        let (mut loader, context, files, mut tree) = read(options)?;
        let name = loader.name(&tree, &context, &files)?;
        if let Some(mut entry) = tree.as_map_mut().and_then(|map| map.shift_remove("name")) {
            entry.node.value = crate::yaml::Value::Text(name.clone());
            tree.set("name", entry.node);
        }
        tree.remove("include");
        normalize::defaults(&mut tree);
        check::resources(&loader, &tree)?;
        let json = tree.to_json();
        let mut project: Self = serde_json::from_value(json).map_err(|error| {
            let problem = Problem::new(
                crate::FindingKind::WrongType,
                Span::default(),
                "",
                error.to_string(),
            );
            loader.sources.error(problem)
        })?;
        project.name = name;
        project.working_dir.clone_from(&context.dir);
        project.compose_files = files.iter().map(|file| loader.absolute(file)).collect();
        project.compatibility = options.compatibility;
        project.environment = (*context.environment).clone();
        let sources = std::mem::take(&mut loader.sources);
        project.origin = Arc::new(Origin {
            sources,
            tree: Some(tree),
        });
        environment::env_files(&mut project, options, &mut loader.warnings)?;
        if options.other_files {
            environment::label_files(&mut project)?;
        }
        if options.normalize {
            normalize::project(&mut project);
        }
        normalize::profiles(&mut project, options);
        let checked = check::project(&mut project, &mut loader.warnings);
        if options.consistency {
            checked?;
        }
        loader.tell_unset();
        project.warnings = loader.warnings;
        crate::warn::no_meaning(&mut project);
        Ok(project)
    }
}

impl Document {
    /// Merges the files without making a model of them; variables stay if the options say so.
    ///
    /// # Errors
    /// As [`Project::load`].
    pub fn load(options: &LoadOptions) -> Result<Self> {
        let options = options.rooted()?;
        let (mut loader, context, files, mut tree) = read(&options)?;
        let name = loader.name(&tree, &context, &files)?;
        tree.remove("include");
        tree.set("name", Node::text(Span::default(), name.clone()));
        normalize::defaults(&mut tree);
        loader.tell_unset();
        Ok(Self {
            name,
            tree: tree.to_json(),
            warnings: loader.warnings,
        })
    }
}

/// Everything up to the merged and checked tree.
fn read(options: &LoadOptions) -> Result<(Loader<'_>, Context, Vec<PathBuf>, Node)> {
    let mut loader = Loader {
        options,
        sources: Sources::default(),
        limits: Limits::default(),
        warnings: Vec::new(),
        unset: BTreeSet::new(),
        filled: 0,
        files: 0,
        nodes: 0,
        bytes: 0,
        given: BTreeSet::new(),
        piped: BTreeMap::new(),
        extended: BTreeMap::new(),
        named: None,
    };
    let found = loader.discover()?;
    let context = Context {
        dir: found.dir,
        environment: Arc::new(found.environment),
        including: Vec::new(),
    };
    let context = loader.with_name(context, &found.files)?;
    let mut tree = loader.model(&found.files, &context)?;
    let mut check = Check::whole(!options.interpolate);
    check.apply(&DOCUMENT, &mut tree);
    loader.report(check)?;
    if let Some(services) = tree.get("services")
        && services.as_map().is_some_and(|map| map.len() > MOST_SERVICES)
    {
        let message = format!("more than {MOST_SERVICES} services");
        let problem = Problem::new(crate::FindingKind::Limit, services.span, "services", message);
        return Err(loader.sources.error(problem));
    }
    Ok((loader, context, found.files, tree))
}

impl Loader<'_> {
    /// The files of one project folder, merged, with their paths resolved.
    fn model(&mut self, files: &[PathBuf], context: &Context) -> Result<Node> {
        let mut tree: Option<Node> = None;
        for file in files {
            let file = self.absolute(file);
            for mut document in self.documents(&file, context)? {
                let included = self.include(&mut document, &file, context)?;
                if let Some(included) = included {
                    document = schema::merge(&DOCUMENT, included, document);
                }
                let mut merged = match tree.take() {
                    Some(base) => schema::merge(&DOCUMENT, base, document),
                    None => document,
                };
                merged.settle();
                tree = Some(merged);
            }
        }
        let mut tree = tree.unwrap_or_else(|| Node::empty_map(Span::default()));
        if let Some(version) = tree.remove("version") {
            self.warn(
                WarningKind::Obsolete,
                version.span,
                "version",
                "the key version is obsolete and ignored",
            );
        }
        if self.options.resolve_paths {
            self.resolve(&mut tree, &context.dir);
        }
        Ok(tree)
    }

    fn resolve(&self, tree: &mut Node, dir: &Path) {
        let home = self.options.environment.get("HOME").map(String::as_str);
        schema::resolve(&DOCUMENT, tree, &Base { dir, home });
    }

    /// A path of the caller's, absolute; `-` is the standard input.
    fn absolute(&self, path: &Path) -> PathBuf {
        if path == Path::new("-") {
            return path.to_owned();
        }
        schema::clean(&self.options.current_dir.join(path))
    }

    fn warn(&mut self, kind: WarningKind, span: Span, path: &str, message: impl Into<String>) {
        let warning = Warning {
            kind,
            path: path.to_owned(),
            place: self.sources.place(span),
            message: message.into(),
        };
        if !self.warnings.contains(&warning) && self.warnings.len() < 1000 {
            self.warnings.push(warning);
        }
    }

    /// Mistakes of a walk are the end; its warnings are kept.
    fn report(&mut self, check: Check) -> Result<()> {
        for (kind, span, path, message) in check.warnings {
            self.warn(kind, span, &path, message);
        }
        if check.problems.is_empty() {
            return Ok(());
        }
        let findings = check
            .problems
            .into_iter()
            .map(|problem| self.sources.finding(problem));
        Err(Error::Invalid {
            findings: findings.collect(),
        })
    }

    fn tell_unset(&mut self) {
        for name in std::mem::take(&mut self.unset) {
            let message = format!("the variable {name:?} is not set; an empty string is taken");
            self.warn(WarningKind::UnsetVariable, Span::default(), "", message);
        }
    }
}
