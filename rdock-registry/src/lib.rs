//! Images from and to registries: resolve a name, fetch what is missing in parallel, verify while streaming; log in,
//! and push.
//!
//! [`RegistryClient`] implements [`rdock_image::ImageSource`], so that a runtime can pull what it misses.
//! The transport is this crate's own, on reqwest with rustls: bounded bodies, retries, resumed layers,
//! redirects that never carry credentials to another host.
#![forbid(unsafe_code)]

mod auth;
mod client;
mod config;
mod delete;
mod error;
mod interop;
mod limit;
mod listing;
mod login;
mod manifests;
pub mod protocol;
mod pull;
mod push;
mod referrers;
#[cfg(feature = "server")]
pub mod server;
mod session;
mod transport;

pub use client::RegistryClient;
pub use config::{AuthEntry, Credential, Credentials, Proxies, RegistriesConf, RegistryConfig};
pub use error::{Error, Result};
pub use interop::oci_reference;
pub use limit::PullLimit;
pub use listing::Listing;
pub use login::Login;
pub use push::{Compression, PushEvent, PushProgress, Pushed};
pub use rdock_image as image;
