//! The library's own registry over one image, with a script that may answer in its place.

use crate::content::Content;
use rdock_image::manifest::media_type;
use rdock_registry::server::{RegistryServer, ServerOptions};
pub(crate) use rdock_registry::server::{Reply, Seen, Step};
use std::ops::Deref;
use std::time::Duration;

/// The names under which the image is there.
const NAMES: [(&str, &str); 8] = [
    ("a", "latest"),
    ("a", "1"),
    ("a/b", "1"),
    ("c/d", "2"),
    ("library/mysql", "8"),
    ("lib/app", "1"),
    ("app", "1"),
    ("base", "latest"),
];

/// Only the first `count` bytes of a whole blob, though all of it is announced.
pub(crate) fn cut_after(blob: &[u8], count: usize) -> Reply {
    Reply::new(200, "").with("content-length", blob.len()).steps([
        Step::Send(blob[..count].to_vec()),
        Step::Wait(Duration::from_millis(50)),
        Step::Cut,
    ])
}

/// A running registry; it ends with this value.
pub(crate) struct Registry {
    server: RegistryServer,
    dir: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start(
        content: &Content,
        script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let registry = Self::with(|options| options.script(script));
        for (repository, tag) in NAMES {
            registry.add(content, repository, tag);
        }
        registry
    }

    /// One that does nothing unusual.
    pub(crate) fn plain(content: &Content) -> Self {
        Self::start(content, |_| None)
    }

    /// An empty one.
    pub(crate) fn with(options: impl FnOnce(ServerOptions) -> ServerOptions) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = RegistryServer::start(options(ServerOptions::new(dir.path()))).expect("a server");
        Self { server, dir }
    }

    /// Where it keeps what it has.
    pub(crate) fn root(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// As if it had been pushed.
    pub(crate) fn add(&self, content: &Content, repository: &str, tag: &str) {
        for blob in content.blobs().values() {
            self.server.put_blob(repository, blob).expect("written");
        }
        self.server
            .put_manifest(repository, tag, media_type::DOCKER_MANIFEST, &content.manifest)
            .expect("written");
    }
}

impl Deref for Registry {
    type Target = RegistryServer;

    fn deref(&self) -> &RegistryServer {
        &self.server
    }
}
