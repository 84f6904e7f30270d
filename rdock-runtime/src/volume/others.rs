//! `--volumes-from`: a container gets the volumes and binds that another one has.

use crate::error::Result;
use crate::runtime::Runtime;
use crate::spec::{BindRecursion, ContainerSpec, Mount, MountSource};
use std::path::PathBuf;

impl ContainerSpec {
    /// The spec with the mounts of the containers in `volumes_from`. Its own mounts come first: one of another
    /// container whose target it has already is left out; of several containers the last one wins. What its secrets hold is read too.
    pub(crate) fn with_volumes_of_others(&self, runtime: &Runtime) -> Result<Self> {
        let mut spec = self.clone();
        spec.read_secrets()?;
        for (at, from) in self.volumes_from.iter().enumerate().rev() {
            let (_, record) = runtime.state().find(&from.container)?;
            for info in &record.mounts {
                let source = match (info.kind.as_str(), &info.name) {
                    ("bind", _) => MountSource::Bind {
                        path: PathBuf::from(&info.source),
                        create: false,
                        propagation: None,
                    },
                    ("volume", Some(name)) => MountSource::Volume {
                        name: Some(name.clone()),
                        no_copy: false,
                        subpath: info.subpath.clone(),
                    },
                    // A tmpfs is of one container alone.
                    _ => continue,
                };
                if spec
                    .mounts
                    .iter()
                    .any(|mount| same_target(&mount.target, &info.target))
                {
                    continue;
                }
                if let Some(name) = info
                    .name
                    .as_ref()
                    .filter(|name| record.anonymous_volumes.contains(name))
                {
                    spec.volumes_from[at].anonymous.push(name.clone());
                }
                let mut mount = Mount::new(source, &info.target);
                mount.read_only = from.read_only.unwrap_or(info.read_only);
                // Of mounts below a bind that can be written there is nothing to say.
                if mount.read_only || info.recursion == BindRecursion::Disabled {
                    mount.recursion = info.recursion;
                }
                spec.mounts.push(mount);
            }
        }
        Ok(spec)
    }
}

fn same_target(a: &str, b: &str) -> bool {
    let parts = |path: &str| {
        path.split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    parts(a) == parts(b)
}
