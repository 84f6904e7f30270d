//! How an image is built.

use super::{Bytes, Extra, Grant, Hosts, Pairs, Ulimit, model};
use std::collections::BTreeMap;

model! {
    /// `build` of a service.
    Build {
        /// The folder, or a URL.
        context: String,
        /// The Dockerfile, relative to the context.
        dockerfile: Option<String>,
        /// The text of a Dockerfile.
        dockerfile_inline: Option<String>,
        /// What the builder may be allowed (`network.host`, `security.insecure`).
        entitlements: Vec<String>,
        /// Build arguments; those without a value are not set.
        args: Pairs,
        /// Attestation of how it was built.
        provenance: Option<String>,
        /// Attestation of what is inside.
        sbom: Option<String>,
        /// SSH agents and keys by their names.
        ssh: Extra,
        /// Labels of the image.
        labels: Extra,
        /// Where cached steps come from.
        cache_from: Vec<String>,
        /// Where cached steps go.
        cache_to: Vec<String>,
        /// No step is taken from the cache.
        no_cache: bool,
        /// Stages whose steps are not taken from the cache.
        no_cache_filter: Vec<String>,
        /// Named contexts.
        additional_contexts: Extra,
        /// Base images are looked up anew.
        pull: bool,
        /// Names of the hosts file during the build.
        extra_hosts: Hosts,
        /// Isolation technology (Windows).
        isolation: Option<String>,
        /// The network of the steps.
        network: Option<String>,
        /// The stage that is built.
        target: Option<String>,
        /// Secrets that steps may mount.
        secrets: Vec<Grant>,
        /// Size of `/dev/shm` of the steps.
        shm_size: Option<Bytes>,
        /// More names for the image.
        tags: Vec<String>,
        /// Limits of the steps.
        ulimits: BTreeMap<String, Ulimit>,
        /// Platforms that are built for.
        platforms: Vec<String>,
        /// Steps run with all rights.
        privileged: bool,
    }
}
