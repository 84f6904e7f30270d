//! System call filters: profiles become BPF programs that are trees, not chains.
//!
//! Since Linux 5.11 the kernel runs a filter for every system call number when it is loaded, so that a
//! chain of hundreds of comparisons costs milliseconds there; a search tree over merged ranges of numbers
//! costs a tenth. Filters are kept by content for the life of the process.

mod compile;
mod json;
mod profile;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// Not JSON, or not of Docker's form.
    #[error("the seccomp profile is not valid")]
    Malformed {
        /// Where and why.
        source: serde_json::Error,
    },
    /// An action, operator or value that no filter can have.
    #[error("the seccomp profile has {what}, which is not supported: {value}")]
    Unsupported {
        /// Which part.
        what: &'static str,
        /// As written.
        value: String,
    },
    /// The program would have more than 4096 instructions, the kernel's limit.
    #[error("the seccomp profile needs {instructions} instructions; the kernel takes 4096")]
    TooLarge {
        /// How many.
        instructions: usize,
    },
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Allow,
    Errno(u16),
    KillProcess,
    KillThread,
    Trap,
    Log,
    Trace(u16),
}

impl Action {
    /// SECCOMP_RET_*
    fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Log => 0x7ffc_0000,
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
        }
    }
}

/// How an argument is compared, as 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    MaskedEqual,
}

/// One condition; a rule holds when all of its conditions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Condition {
    pub(crate) argument: u8,
    pub(crate) compare: Compare,
    pub(crate) value: u64,
    /// For [`Compare::MaskedEqual`].
    pub(crate) mask: u64,
}

/// An action for some calls. Of several rules for one call those with conditions come first, in order;
/// of those without the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    pub(crate) action: Action,
    pub(crate) conditions: Vec<Condition>,
}

impl Rule {
    fn plain(names: Vec<String>, action: Action) -> Self {
        Self {
            names,
            action,
            conditions: Vec::new(),
        }
    }
}

/// A program as the kernel takes it: an array of `struct sock_filter`.
pub(crate) type Filter = Arc<[u8]>;

/// Docker's default profile for a container with these capabilities.
pub(crate) fn default_filter(bounding: u64) -> Result<Filter, SeccompError> {
    cached(bounding, "", || {
        Ok((Action::Errno(1), profile::default_rules(bounding)))
    })
}

/// A profile in Docker's JSON format, for a container with these capabilities.
pub(crate) fn custom_filter(text: &str, bounding: u64) -> Result<Filter, SeccompError> {
    cached(bounding, text, || json::parse(text, bounding))
}

fn cached(
    bounding: u64,
    text: &str,
    rules: impl FnOnce() -> Result<(Action, Vec<Rule>), SeccompError>,
) -> Result<Filter, SeccompError> {
    static KNOWN: OnceLock<Mutex<HashMap<(u64, String), Filter>>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    let key = (bounding, text.to_owned());
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(filter) = lock().get(&key) {
        return Ok(filter.clone());
    }
    let (default, rules) = rules()?;
    let filter = compile::compile(default, &rules)?;
    lock().insert(key, filter.clone());
    Ok(filter)
}
