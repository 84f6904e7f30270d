//! What registries say beside their content: headers and small documents, parsed strictly.
//!
//! The client uses these; they are public for programs that speak to registries in a way of their own.

mod challenge;
mod headers;
mod hosts;
mod token;

pub use challenge::Challenge;
pub use headers::{ContentRange, content_length, decimal, link, media_type, warning};
pub use hosts::{Schemes, is_loopback, redacted, schemes};
pub use token::{Token, merge_scopes, repository_scope};
