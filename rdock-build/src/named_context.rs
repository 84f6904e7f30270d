//! What `--build-context` gives: a name for files or an image that are not the main context's.
use crate::error::{BuildError, Result};
use rdock_image::{Digest, LayoutName, Reference};
use std::path::PathBuf;

/// A named context: files or an image that a Dockerfile's FROM, `--from` and `from=` can name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamedContext {
    /// A directory of the host.
    Directory(PathBuf),
    /// An image.
    Image(Reference),
    /// An image of an OCI image layout, which is not brought into the store under any name.
    OciLayout {
        /// The layout's directory.
        path: PathBuf,
        /// Which of its images.
        name: LayoutName,
    },
}

impl NamedContext {
    /// Reads docker's `--build-context`, what follows the name: a directory, `docker-image://NAME`, or
    /// `oci-layout://DIRECTORY[:TAG][@DIGEST]`.
    ///
    /// # Errors
    /// [`BuildError::Option`]; git repositories and addresses are not supported yet.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: String| BuildError::Option {
            option: "build-context",
            reason,
        };
        if let Some(name) = text.strip_prefix("docker-image://") {
            let reference = Reference::parse(name).map_err(|error| wrong(error.to_string()))?;
            return Ok(Self::Image(reference));
        }
        let Some(layout) = text.strip_prefix("oci-layout://") else {
            return match text.contains("://") || text.starts_with("git@") || text.is_empty() {
                true => Err(wrong(format!(
                    "{text:?} is not supported: a directory, docker-image://NAME, oci-layout://DIRECTORY[:TAG][@DIGEST]"
                ))),
                false => Ok(Self::Directory(text.into())),
            };
        };
        let (layout, digest) = match layout.split_once('@') {
            Some((layout, digest)) => {
                let digest = Digest::parse(digest).map_err(|error| wrong(error.to_string()))?;
                (layout, Some(digest))
            }
            None => (layout, None),
        };
        let tagged = layout.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
        let (path, tag) = match tagged {
            Some((path, tag)) => (path, Some(tag)),
            None => (layout, None),
        };
        if path.is_empty() || tag == Some("") {
            return Err(wrong(format!(
                "{text:?} is not oci-layout://DIRECTORY[:TAG][@DIGEST]"
            )));
        }
        let name = match (digest, tag) {
            (Some(digest), _) => LayoutName::Digest(digest),
            (None, Some(tag)) => LayoutName::Tag(tag.to_owned()),
            (None, None) => LayoutName::Default,
        };
        Ok(Self::OciLayout {
            path: path.into(),
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_contexts_are_read_as_docker_reads_them() {
        let layout = |path: &str, name| NamedContext::OciLayout {
            path: path.into(),
            name,
        };
        let (tag, digest) = (LayoutName::Tag("v1".to_owned()), Digest::sha256_of(b"x"));
        for (text, expected) in [
            ("dir", NamedContext::Directory("dir".into())),
            ("a:b", NamedContext::Directory("a:b".into())),
            (
                "docker-image://alpine:3",
                NamedContext::Image(Reference::parse("alpine:3").unwrap()),
            ),
            ("oci-layout:///l", layout("/l", LayoutName::Default)),
            ("oci-layout://l/m:v1", layout("l/m", tag)),
            ("oci-layout:///l:1/m", layout("/l:1/m", LayoutName::Default)),
            (
                &format!("oci-layout:///l:v1@{digest}"),
                layout("/l", LayoutName::Digest(digest.clone())),
            ),
        ] {
            assert_eq!(NamedContext::parse(text).unwrap(), expected);
        }
        for text in [
            "",
            "https://host/x.tar",
            "git@github.com:a/b",
            "docker-image://A B",
            "oci-layout://",
            "oci-layout:///l:",
            "oci-layout:///l@sha256:1",
        ] {
            assert!(NamedContext::parse(text).is_err(), "{text}");
        }
    }
}
