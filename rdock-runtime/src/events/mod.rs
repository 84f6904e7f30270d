//! What happened in a root: a journal that every process of the root writes, and streams of it.
//!
//! The types and words are docker's, so that what is known of `docker events` holds here too.

mod filter;
mod journal;
mod read;

pub use filter::EventFilter;
pub(crate) use journal::Journal;
pub use read::Events;

use crate::state::{Exit, ExitReason, Record};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// One thing that happened to an object of a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// When, in nanoseconds since 1970 (UTC).
    #[serde(rename = "time")]
    pub time_nanos: i64,
    /// What kind of object it happened to.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// What happened.
    pub action: EventAction,
    /// Its id; of an image the id or the name, of a volume the name.
    pub id: String,
    /// More about it, by docker's names: `name`, `image`, `exitCode`, `signal`... and the labels of a container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// Records that a container's payload runs, and the volumes it uses from now on.
pub(crate) fn started(journal: &Journal, record: &Record) {
    volumes(journal, record, &EventAction::Mount);
    journal.container(record, EventAction::Start, &[]);
}

fn volumes(journal: &Journal, record: &Record, action: &EventAction) {
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let Some(name) = &mount.name else { continue };
        let more = [
            ("container", record.id.as_str()),
            ("destination", mount.target.as_str()),
            ("driver", "local"),
            ("read/write", if mount.read_only { "false" } else { "true" }),
        ];
        journal.record(EventKind::Volume, action.clone(), name, &more);
    }
}

/// Records the end of a container's payload, once its exit is on disk.
pub(crate) fn ended(journal: &Journal, record: &Record, exit: &Exit, stopped: bool) {
    if exit.reason == ExitReason::OomKilled {
        journal.container(record, EventAction::Oom, &[]);
    }
    journal.container(
        record,
        EventAction::Die,
        &[("exitCode", &exit.code().to_string())],
    );
    volumes(journal, record, &EventAction::Unmount);
    if stopped {
        journal.container(record, EventAction::Stop, &[]);
    }
}

impl Event {
    /// An event of this moment.
    pub(crate) fn now(kind: EventKind, action: EventAction, id: &str) -> Self {
        Self {
            // The clock of a kernel counts nanoseconds since 1970 in 64 bits until 2262.
            time_nanos: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
            kind,
            action,
            id: id.to_owned(),
            attributes: BTreeMap::new(),
        }
    }

    /// Returns when it happened, RFC 3339 in UTC with nanoseconds.
    pub fn time(&self) -> String {
        match jiff::Timestamp::from_nanosecond(self.time_nanos.into()) {
            Ok(time) => format!("{time:.9}"),
            // Beyond the year 9999 there is no such form; 64 bits end in 2262.
            Err(_) => String::new(),
        }
    }

    /// Returns an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

/// Kinds of objects that things happen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// A builder's cache.
    Builder,
}

impl EventKind {
    /// Returns docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Builder => "builder",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! actions {
    ($($variant:ident $word:literal $doc:literal,)+) => {
        /// What happened to an object, in docker's words.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum EventAction {
            $(#[doc = $doc] $variant,)+
            /// A process was prepared inside a container; with its command line.
            ExecCreate(String),
            /// A process was started inside a container; with its command line.
            ExecStart(String),
            /// The health of a container is another than before: `starting`, `healthy`, `unhealthy`.
            HealthStatus(String),
            /// Something that a newer version records.
            Other(String),
        }

        impl EventAction {
            fn word(&self) -> Option<&'static str> {
                match self {
                    $(Self::$variant => Some($word),)+
                    _ => None,
                }
            }

            fn of_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

actions! {
    Create "create" "It was made.",
    Start "start" "The payload of a container runs.",
    Die "die" "The payload of a container has ended; `exitCode` says how.",
    Stop "stop" "A container was stopped, after it has died.",
    Kill "kill" "A signal was sent to a container; `signal` has its number.",
    Oom "oom" "The kernel killed a container at its memory limit.",
    Pause "pause" "A container stands still.",
    Unpause "unpause" "A container goes on.",
    Restart "restart" "A container was stopped and started again on request.",
    Rename "rename" "It has another name; `oldName` is the former one.",
    Update "update" "Limits or the restart policy were changed.",
    Attach "attach" "A client is connected to the streams of a container.",
    Detach "detach" "A client left the streams of a container by the detach keys.",
    Resize "resize" "The terminal of a container has another size.",
    ExecDie "exec_die" "A process inside a container has ended; `execID` and `exitCode` say which and how.",
    ExecDetach "exec_detach" "A client left a process inside a container.",
    Destroy "destroy" "It was removed.",
    Remove "remove" "It was removed from a list.",
    Prune "prune" "Unused objects were removed; `reclaimed` says how many bytes.",
    Commit "commit" "An image was made of a container.",
    Copy "copy" "Files were copied.",
    ArchivePath "archive-path" "Files were copied out of a container.",
    ExtractToDir "extract-to-dir" "Files were copied into a container.",
    Export "export" "The files of a container were exported.",
    Top "top" "The processes of a container were listed.",
    Connect "connect" "A container is connected to a network.",
    Disconnect "disconnect" "A container is no longer connected to a network.",
    Mount "mount" "A container uses a volume.",
    Unmount "unmount" "A container no longer uses a volume.",
    Pull "pull" "An image was fetched from a registry.",
    Push "push" "An image was sent to a registry.",
    Tag "tag" "An image has one more name.",
    Untag "untag" "An image has one name less.",
    Delete "delete" "An image was removed.",
    Import "import" "An image was made of an archive of files.",
    Load "load" "An image was taken from an archive of images.",
    Save "save" "An image was written into an archive.",
}

/// Separates the word from what follows it.
const SEPARATOR: &str = ": ";

impl fmt::Display for EventAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExecCreate(command) => write!(f, "exec_create{SEPARATOR}{command}"),
            Self::ExecStart(command) => write!(f, "exec_start{SEPARATOR}{command}"),
            Self::HealthStatus(status) => write!(f, "health_status{SEPARATOR}{status}"),
            Self::Other(text) => f.pad(text),
            plain => f.pad(plain.word().unwrap_or_default()),
        }
    }
}

impl FromStr for EventAction {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        if let Some(action) = Self::of_word(text) {
            return Ok(action);
        }
        Ok(match text.split_once(SEPARATOR) {
            Some(("exec_create", command)) => Self::ExecCreate(command.to_owned()),
            Some(("exec_start", command)) => Self::ExecStart(command.to_owned()),
            Some(("health_status", status)) => Self::HealthStatus(status.to_owned()),
            _ => Self::Other(text.to_owned()),
        })
    }
}

impl Serialize for EventAction {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventAction {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Ok(action) = text.parse();
        Ok(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_event_is_one_line_with_dockers_words() {
        let mut event = Event::now(
            EventKind::Container,
            EventAction::ExecStart("sh -c 'a: b'".into()),
            "abc",
        );
        event.time_nanos = 1_136_073_845_000_000_001;
        event.attributes.insert("name".into(), "web".into());
        let line = serde_json::to_string(&event).expect("write");
        assert_eq!(
            line,
            r#"{"time":1136073845000000001,"type":"container","action":"exec_start: sh -c 'a: b'","id":"abc","attributes":{"name":"web"}}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&line).expect("read"), event);
        assert_eq!(event.time(), "2006-01-01T00:04:05.000000001Z");
    }

    proptest! {
        #[test]
        fn every_action_is_read_as_it_was_written(text in "[a-z_:. -]{0,30}") {
            let Ok(action) = text.parse::<EventAction>();
            prop_assert_eq!(action.to_string(), text);
        }

        #[test]
        fn any_line_is_an_event_or_an_error(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<Event>(&line);
        }
    }
}
