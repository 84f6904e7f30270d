//! The whole file system of a container as a tar, without what is mounted in it.

use super::copy::apart;
use super::stream::{Archive, pair};
use super::tree::Tree;
use super::view::View;
use super::write;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::EventAction;
use std::os::fd::AsFd;
use std::path::Path;

impl Container {
    /// Returns the container's file system as a tar stream, running or not: its image's layers and its own, merged.
    /// Volumes, binds and memory are not in it, as in `docker export`.
    ///
    /// # Errors
    /// When the files cannot be opened.
    pub async fn export(&self) -> Result<Archive> {
        let this = self.clone();
        apart(move || {
            let view = View::open(&this, true)?;
            let root = {
                let side = Tree::container(view.as_fd(), this.name(), view.ids.clone());
                side.open(Path::new("/"), true)?
            };
            let shown = format!("{}:/", this.name());
            let (mut writer, reader) = pair();
            std::thread::Builder::new()
                .name("rdock-files".into())
                .spawn(move || {
                    let done = write::archive(&root, b"", &view.ids, Path::new(&shown), false, &mut writer);
                    writer.end(done);
                    drop(view);
                })
                .map_err(Error::system("start a thread"))?;
            this.happened(EventAction::Export);
            Ok(Archive::new(reader, None))
        })
        .await
    }
}
