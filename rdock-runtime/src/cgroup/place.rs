//! Where the groups of a container are, the same in every hierarchy.

use super::CgroupError;
use super::find::{self, Hierarchy, Version};
use crate::spec::ContainerSpec;
use rustix::fs::XattrFlags;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The parent where the spec names none. It stays when it is empty.
const USUAL: &str = "rdock";

/// Marks a parent that was made for a container. The kernel keeps it with the group, so that whoever removes the last
/// container knows, whatever became of the one who made it.
const MARK: &str = "user.rdock.made";

/// The path of a container's groups, from the group that this process works in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    id: String,
    /// As the spec has it; planning has checked it.
    parent: Option<String>,
}

impl Place {
    pub(crate) fn new(id: &str, parent: Option<&str>) -> Self {
        Self {
            id: id.to_owned(),
            parent: parent.map(str::to_owned),
        }
    }

    /// That of a container.
    pub(crate) fn of(id: &str, spec: &ContainerSpec) -> Self {
        Self::new(id, spec.cgroup_parent.as_deref())
    }

    /// What the spec asks for.
    pub(super) fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let path = self.parent.as_deref().unwrap_or(USUAL);
        // Only a record that somebody changed by hand has others.
        path.split('/').filter(|name| !matches!(*name, "" | "." | ".."))
    }

    /// The container's group in a hierarchy.
    pub(super) fn within(&self, top: &Path) -> PathBuf {
        let mut path = top.to_owned();
        path.extend(self.names());
        path.join(&self.id)
    }

    /// Makes the parents that are missing in a hierarchy, with its controllers handed down.
    pub(super) fn make_parents(&self, hierarchy: &Hierarchy) -> Result<(), CgroupError> {
        let mut path = hierarchy.group.clone();
        if hierarchy.version == Version::Two {
            find::delegate(&path);
        }
        for name in self.names() {
            path.push(name);
            match fs::create_dir(&path) {
                Ok(()) if self.parent.is_some() => {
                    // Without the mark it stays when it is empty, which harms nobody.
                    let _ = rustix::fs::setxattr(&path, MARK, b"1", XattrFlags::empty());
                }
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(CgroupError::Group {
                        action: "create",
                        path,
                        source,
                    });
                }
                _ => {}
            }
            match hierarchy.version {
                Version::One => find::inherit_cpuset(&path),
                Version::Two => find::delegate(&path),
            }
        }
        Ok(())
    }

    /// Removes the parents of the removed group at `path` that were made for containers and are empty now.
    pub(super) fn remove_parents(&self, path: &Path) {
        if self.parent.is_none() {
            return;
        }
        let mut above = path.parent();
        for _ in self.names() {
            let Some(parent) = above else { return };
            let made = rustix::fs::getxattr(parent, MARK, &mut [0u8; 1]).is_ok();
            // One that is in use stays, and so do those above it.
            if !made || fs::remove_dir(parent).is_err() {
                return;
            }
            above = parent.parent();
        }
    }
}
