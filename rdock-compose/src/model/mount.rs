//! Mounts, and files given to a service.

use super::{Bytes, Extra, model};

model! {
    /// One of `volumes` of a service.
    ServiceVolume {
        /// `bind`, `volume`, `tmpfs`, `image`, `npipe` or `cluster`.
        r#type: String,
        /// A path of the host, the key of a volume, or an image; absent for an anonymous volume.
        source: Option<String>,
        /// The path in the container.
        target: String,
        /// Nothing can be written.
        read_only: bool,
        /// A hint for other systems.
        consistency: Option<String>,
        /// Only for a bind.
        bind: Option<BindOptions>,
        /// Only for a volume.
        volume: Option<VolumeOptions>,
        /// Only for a tmpfs.
        tmpfs: Option<TmpfsOptions>,
        /// Only for an image.
        image: Option<ImageOptions>,
    }
}

model! {
    /// How a path of the host is mounted.
    BindOptions {
        /// `z` (shared) or `Z` (private) label.
        selinux: Option<String>,
        /// `rprivate`, `private`, `rshared`, `shared`, `rslave` or `slave`.
        propagation: Option<String>,
        /// A folder is made when the path is not there: always, unless this is false.
        create_host_path: Option<bool>,
        /// What happens to mounts below: `enabled`, `disabled`, `writable`, `readonly`.
        recursive: Option<String>,
    }
}

model! {
    /// How a volume is mounted.
    VolumeOptions {
        /// Labels of an anonymous volume.
        labels: Extra,
        /// What the image has there is not copied into an empty volume.
        nocopy: bool,
        /// Only this folder of it.
        subpath: Option<String>,
    }
}

model! {
    /// A file system in memory.
    TmpfsOptions {
        /// The most it holds; 0 is the kernel's default.
        size: Option<Bytes>,
        /// Permissions of its root.
        mode: Option<i64>,
    }
}

model! {
    /// How an image is mounted.
    ImageOptions {
        /// Only this folder of it.
        subpath: Option<String>,
    }
}

model! {
    /// A secret or config that a service gets.
    Grant {
        /// The key of the secret or config.
        source: String,
        /// Its file in the container.
        target: Option<String>,
        /// Owner of the file.
        uid: Option<String>,
        /// Group of the file.
        gid: Option<String>,
        /// Permissions of the file, in octal.
        mode: Option<String>,
    }
}
