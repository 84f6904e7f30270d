//! The files of a container: copies in and out, its changes, the whole of it as a tar or as an image.
//!
//! Nothing of the container runs for any of this, and nothing of it is loaded. Every path is resolved inside the
//! container's root by the kernel (openat2(2) with RESOLVE_IN_ROOT), links that somebody swaps meanwhile included;
//! both sides are walked by descriptor, one name at a time.

mod changes;
mod commit;
mod copy;
mod duplicate;
mod error;
mod export;
mod instructions;
mod paths;
mod read;
mod stream;
mod tree;
mod view;
mod write;

pub use changes::{FileChange, FileChangeKind};
pub use commit::CommitOptions;
pub use copy::{Copied, CopyOptions, FileStat};
pub use error::FilesError;
pub use stream::Archive;
