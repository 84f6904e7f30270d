//! The project's name.

use super::{Context, Loader};
use crate::error::{Error, Result};
use crate::yaml::Node;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Loader<'_> {
    /// The variables with `COMPOSE_PROJECT_NAME`, which is there in any case. For that the files are looked through.
    pub(super) fn with_name(&mut self, mut context: Context, files: &[PathBuf]) -> Result<Context> {
        self.named = self.explicit(&context)?;
        let name = match self.named.clone() {
            Some(name) => name,
            None => {
                let mut last = None;
                for file in files {
                    let file = self.absolute(file);
                    for document in self.raw(&file)? {
                        if let Some(text) = document.get("name").and_then(Node::as_text) {
                            last = Some(text.to_owned());
                        }
                    }
                }
                let filled = last.and_then(|text| self.fill_text(&text, &context));
                filled.unwrap_or_else(|| from_folder(&context.dir))
            }
        };
        let mut environment = (*context.environment).clone();
        environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name);
        context.environment = Arc::new(environment);
        // The files are read once more for what they say.
        (self.files, self.nodes, self.bytes) = (0, 0, 0);
        self.sources = Default::default();
        Ok(context)
    }

    /// What the caller says, in the options or in a variable.
    fn explicit(&self, context: &Context) -> Result<Option<String>> {
        if let Some(name) = self.options.project_name.as_ref().filter(|name| !name.is_empty()) {
            check(name)?;
            return Ok(Some(name.clone()));
        }
        match context
            .environment
            .get("COMPOSE_PROJECT_NAME")
            .filter(|name| !name.is_empty())
        {
            Some(name) => {
                check(name)?;
                Ok(Some(name.clone()))
            }
            None => Ok(None),
        }
    }

    /// The name: of the caller, of the last file that has one, of the folder.
    pub(super) fn name(&mut self, tree: &Node, context: &Context, files: &[PathBuf]) -> Result<String> {
        if let Some(name) = &self.named {
            return Ok(name.clone());
        }
        let known = context
            .environment
            .get("COMPOSE_PROJECT_NAME")
            .cloned()
            .unwrap_or_default();
        let written = tree.get("name").and_then(Node::as_text);
        let name = match written {
            Some(name) if self.options.interpolate => normal(name),
            _ => normal(&known),
        };
        if name.is_empty() {
            let file = files
                .first()
                .map(|file| file.display().to_string())
                .unwrap_or_default();
            return Err(Error::ProjectName {
                name: if known.is_empty() { file } else { known },
                reason: "a name has letters, digits, '-' and '_'; give one with name: or -p",
            });
        }
        Ok(name)
    }
}

/// Lower case, `[a-z0-9_-]` only, no `_` or `-` at the start.
fn normal(name: &str) -> String {
    let lower = name.to_lowercase();
    let kept: String = lower
        .chars()
        .filter(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-".contains(*letter))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

fn from_folder(dir: &Path) -> String {
    dir.file_name()
        .map(|name| normal(&name.to_string_lossy()))
        .unwrap_or_default()
}

/// A name that someone gave must be as it is used.
fn check(name: &str) -> Result<()> {
    match normal(name) == name {
        true => Ok(()),
        false => Err(Error::ProjectName {
            name: name.to_owned(),
            reason: "it must have lower case letters, digits, '-' and '_' only, and begin with a letter or digit",
        }),
    }
}
