//! Where caches of other machines are: what docker's `--cache-from` and `--cache-to` name.
use crate::error::{BuildError, Result};
use rdock_image::{Digest, LayoutName, Reference};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A cache that steps may be taken from, beside the one below the root.
///
/// Whoever writes it decides what the steps make that it has: take only what a trusted builder writes. Its layers are
/// checked against their digests, and come when something needs them. What is not there, or is damaged, counts as
/// nothing: the step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheSource {
    /// In a registry: what a [`CacheTarget::Registry`] wrote, or an image with a cache inline.
    Registry(Reference),
    /// In an OCI image layout.
    Local {
        /// The layout's directory.
        path: PathBuf,
        /// Which of its entries.
        name: LayoutName,
    },
}

/// Where a build writes its cache for other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheTarget {
    /// Into the image's config: the image is the cache, in mode [`CacheMode::Min`].
    Inline,
    /// Into a registry, as an artifact of its own.
    Registry {
        /// Its name there.
        reference: Reference,
        /// What it has.
        mode: CacheMode,
        /// A failure is a warning.
        ignore_error: bool,
    },
    /// Into an OCI image layout, beside what else is in that.
    Local {
        /// The layout's directory; it is made.
        path: PathBuf,
        /// Its name there.
        tag: String,
        /// What it has.
        mode: CacheMode,
        /// A failure is a warning.
        ignore_error: bool,
    },
}

/// Which steps a cache has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those whose layers the image has.
    #[default]
    Min,
    /// All, those of other stages too. Their layers are in the cache, with whatever files they have.
    Max,
}

impl fmt::Display for CacheSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Local { path, name } => write!(f, "{}:{name}", path.display()),
        }
    }
}

impl fmt::Display for CacheTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline => f.write_str("the image"),
            Self::Registry { reference, .. } => f.write_str(&reference.familiar()),
            Self::Local { path, tag, .. } => write!(f, "{}:{tag}", path.display()),
        }
    }
}

impl CacheSource {
    /// Reads docker's `--cache-from`: a name, which is in a registry, `type=registry,ref=NAME`, or
    /// `type=local,src=DIRECTORY[,tag=TAG][,digest=DIGEST]`.
    ///
    /// # Errors
    /// [`BuildError::Option`], also for the types that are not supported.
    pub fn parse(text: &str) -> Result<Self> {
        let mut fields = Fields::parse("cache-from", text)?;
        let source = match fields.kind.as_str() {
            "registry" => Self::Registry(fields.reference()?),
            "local" => {
                let path = fields.needed("src")?.into();
                let tag = fields.take("tag").map(LayoutName::Tag);
                let name = match fields.take("digest") {
                    Some(digest) => LayoutName::Digest(
                        Digest::parse(&digest).map_err(|error| fields.wrong(error.to_string()))?,
                    ),
                    None => tag.unwrap_or_default(),
                };
                Self::Local { path, name }
            }
            _ => return Err(fields.unknown("registry, local")),
        };
        fields.end()?;
        Ok(source)
    }
}

impl CacheTarget {
    /// Reads docker's `--cache-to`: `type=inline`, a name or `type=registry,ref=NAME`, or
    /// `type=local,dest=DIRECTORY[,tag=TAG]`; the latter with `mode=min|max` and `ignore-error=BOOL`.
    ///
    /// # Errors
    /// [`BuildError::Option`], also for the types and forms that are not supported.
    pub fn parse(text: &str) -> Result<Self> {
        let mut fields = Fields::parse("cache-to", text)?;
        if fields.kind == "inline" {
            fields.end()?;
            return Ok(Self::Inline);
        }
        let mode = match fields.take("mode").as_deref() {
            None | Some("min") => CacheMode::Min,
            Some("max") => CacheMode::Max,
            Some(other) => return Err(fields.wrong(format!("has no mode {other:?}: there are min and max"))),
        };
        let ignore_error = fields.flag("ignore-error")?.unwrap_or(false);
        // Docker has more forms; what is written is an OCI artifact, its layers as they come.
        for form in ["oci-mediatypes", "image-manifest"] {
            if fields.flag(form)? == Some(false) {
                return Err(fields.wrong(format!("cannot have {form}=false: a cache is an OCI manifest")));
            }
        }
        let target = match fields.kind.as_str() {
            "registry" => Self::Registry {
                reference: fields.reference()?,
                mode,
                ignore_error,
            },
            "local" => Self::Local {
                path: fields.needed("dest")?.into(),
                tag: fields.take("tag").unwrap_or_else(|| "latest".to_owned()),
                mode,
                ignore_error,
            },
            _ => return Err(fields.unknown("inline, registry, local")),
        };
        fields.end()?;
        Ok(target)
    }
}

/// `type=registry,ref=NAME`.
struct Fields {
    option: &'static str,
    kind: String,
    fields: BTreeMap<String, String>,
}

impl Fields {
    fn parse(option: &'static str, text: &str) -> Result<Self> {
        let mut fields = Self {
            option,
            kind: "registry".to_owned(),
            fields: BTreeMap::new(),
        };
        if !text.contains('=') {
            // As buildx: names and nothing else.
            fields.fields.insert("ref".to_owned(), text.to_owned());
            return Ok(fields);
        }
        for field in text.split(',') {
            let Some((key, value)) = field.split_once('=') else {
                return Err(fields.wrong(format!("has {field:?}, which is not KEY=VALUE")));
            };
            let key = key.trim().to_lowercase();
            if fields.fields.insert(key.clone(), value.to_owned()).is_some() {
                return Err(fields.wrong(format!("has {key} twice")));
            }
        }
        fields.kind = fields.needed("type")?;
        Ok(fields)
    }

    fn wrong(&self, reason: String) -> BuildError {
        BuildError::Option {
            option: self.option,
            reason,
        }
    }

    fn unknown(&self, known: &str) -> BuildError {
        self.wrong(format!("of type {} is not supported: {known}", self.kind))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.fields.remove(key)
    }

    fn needed(&mut self, key: &str) -> Result<String> {
        match self.take(key).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value),
            None if key == "type" => Err(self.wrong("needs a type".to_owned())),
            None => Err(self.wrong(format!("of type {} needs {key}", self.kind))),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(self.wrong(format!("has {key}={other}, which is not true or false"))),
        }
    }

    fn reference(&mut self) -> Result<Reference> {
        let text = self.needed("ref")?;
        Reference::parse(&text).map_err(|error| self.wrong(error.to_string()))
    }

    /// Nothing is left that would be ignored.
    fn end(&self) -> Result<()> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.wrong(format!("of type {} has no key {key:?} here", self.kind))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_takes_is_read() {
        let name = Reference::parse("localhost:5000/app:cache").unwrap();
        for text in [
            "localhost:5000/app:cache",
            "type=registry,ref=localhost:5000/app:cache",
        ] {
            assert_eq!(
                CacheSource::parse(text).unwrap(),
                CacheSource::Registry(name.clone())
            );
        }
        let local = |name| CacheSource::Local {
            path: "/c".into(),
            name,
        };
        let digest = Digest::sha256_of(b"x");
        for (text, expected) in [
            ("type=local,src=/c", local(LayoutName::Default)),
            (
                "type=local,src=/c,tag=v1",
                local(LayoutName::Tag("v1".to_owned())),
            ),
            (
                &format!("type=local,src=/c,digest={digest}"),
                local(LayoutName::Digest(digest.clone())),
            ),
        ] {
            assert_eq!(CacheSource::parse(text).unwrap(), expected);
        }
        assert_eq!(CacheTarget::parse("type=inline").unwrap(), CacheTarget::Inline);
        assert_eq!(
            CacheTarget::parse(
                "type=registry,ref=localhost:5000/app:cache,mode=max,image-manifest=true,ignore-error=true"
            )
            .unwrap(),
            CacheTarget::Registry {
                reference: name,
                mode: CacheMode::Max,
                ignore_error: true,
            }
        );
        assert_eq!(
            CacheTarget::parse("type=local,dest=/c,mode=min").unwrap(),
            CacheTarget::Local {
                path: "/c".into(),
                tag: "latest".to_owned(),
                mode: CacheMode::Min,
                ignore_error: false,
            }
        );
    }

    #[test]
    fn what_would_be_ignored_is_refused_by_name() {
        let from = |text| CacheSource::parse(text).unwrap_err().to_string();
        let to = |text| CacheTarget::parse(text).unwrap_err().to_string();
        for (found, part) in [
            (from("type=gha"), "of type gha is not supported: registry, local"),
            (from("type=local"), "needs src"),
            (from("ref=a"), "needs a type"),
            (from("type=registry,ref=a,rfe=b"), "has no key \"rfe\""),
            (from("type=registry,ref=A B"), "invalid reference"),
            (from("type=registry,ref=a,ref=b"), "ref twice"),
            (from(""), "needs ref"),
            (to("type=s3,bucket=b"), "of type s3 is not supported"),
            (to("type=registry,ref=a,mode=most"), "no mode \"most\""),
            (to("type=inline,mode=max"), "has no key \"mode\""),
            (
                to("type=local,dest=/c,image-manifest=false"),
                "image-manifest=false",
            ),
            (
                to("type=local,dest=/c,compression=estargz"),
                "has no key \"compression\"",
            ),
        ] {
            assert!(found.contains(part), "{found}: {part}");
        }
    }
}
