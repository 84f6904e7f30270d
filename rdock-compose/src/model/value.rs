//! Values with a form of their own in JSON.

use crate::forms::{format_duration, parse_duration, parse_host, parse_size};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// `x-*` keys with their values.
pub type Extensions = BTreeMap<String, Value>;

/// `KEY=value`; a key alone has no value.
pub type Pairs = BTreeMap<String, Option<String>>;

/// Keys and values.
pub type Extra = BTreeMap<String, String>;

/// What is not printed when it says nothing.
pub(crate) trait Absent {
    /// Whether it says nothing.
    fn absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Absent for BTreeMap<K, V> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for bool {
    fn absent(&self) -> bool {
        !self
    }
}

impl Absent for String {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for i64 {
    fn absent(&self) -> bool {
        *self == 0
    }
}

/// Arguments that replace the image's; absent when the image's are used. Printed in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandLine(pub Option<Vec<String>>);

impl Absent for CommandLine {
    fn absent(&self) -> bool {
        false
    }
}

/// A size in bytes; -1 has no limit. In JSON a string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub i64);

impl Absent for Bytes {
    fn absent(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Number(number) => number
                .as_i64()
                .map(Self)
                .ok_or_else(|| D::Error::custom("not a size")),
            Value::String(text) => parse_size(&text).map(Self).map_err(D::Error::custom),
            _ => Err(D::Error::custom("not a size")),
        }
    }
}

/// A length of time. In JSON as Go prints it (`1m30s`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    nanoseconds: i64,
}

impl Time {
    /// The same as a standard duration; negative ones are zero.
    pub fn duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanoseconds).unwrap_or(0))
    }
}

impl From<Duration> for Time {
    fn from(duration: Duration) -> Self {
        Self {
            nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_duration(self.nanoseconds))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let nanoseconds = parse_duration(&text).map_err(D::Error::custom)?;
        Ok(Self { nanoseconds })
    }
}

/// A number that is printed as an integer when it is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Deserialize)]
#[serde(transparent)]
pub struct Number(pub f64);

impl Absent for Number {
    fn absent(&self) -> bool {
        self.0 == 0.0
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < 9.0e15 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            // As precise as docker compose keeps it.
            let short = (self.0 as f32).to_string();
            serializer.serialize_f64(short.parse().unwrap_or(self.0))
        }
    }
}

/// Names with their addresses; in JSON a sorted list of `name=address`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(pub BTreeMap<String, Vec<String>>);

impl Hosts {
    /// Each name with each of its addresses, sorted.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let mut pairs: Vec<_> = self
            .0
            .iter()
            .flat_map(|(name, addresses)| {
                addresses
                    .iter()
                    .map(move |address| (name.as_str(), address.as_str()))
            })
            .collect();
        pairs.sort_unstable();
        pairs
    }
}

impl Absent for Hosts {
    fn absent(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Hosts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lines = self
            .pairs()
            .into_iter()
            .map(|(name, address)| format!("{name}={address}"));
        serializer.collect_seq(lines)
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(map) => {
                let all = map.into_iter().map(|(name, addresses)| {
                    let addresses = serde_json::from_value(addresses).map_err(D::Error::custom)?;
                    Ok((name, addresses))
                });
                all.collect::<Result<_, D::Error>>().map(Self)
            }
            Value::Array(list) => {
                let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
                for line in list {
                    let line = line
                        .as_str()
                        .ok_or_else(|| D::Error::custom("not name=address"))?;
                    let (name, addresses) = parse_host(line).map_err(D::Error::custom)?;
                    map.entry(name).or_default().extend(addresses);
                }
                Ok(Self(map))
            }
            _ => Err(D::Error::custom("neither a mapping nor a list")),
        }
    }
}

/// A limit of `ulimit`; -1 has no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ulimit {
    /// The same for both.
    Single(i64),
    /// Each its own.
    Pair {
        /// What a process begins with.
        soft: i64,
        /// How far it may raise that.
        hard: i64,
    },
}

impl Ulimit {
    /// The soft and the hard limit.
    pub fn limits(self) -> (i64, i64) {
        match self {
            Self::Single(both) => (both, both),
            Self::Pair { soft, hard } => (soft, hard),
        }
    }
}

/// When a dependency is met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Condition {
    /// Its containers run.
    #[default]
    #[serde(rename = "service_started")]
    Started,
    /// Its containers are healthy.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// Its containers ended with 0.
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "service_started",
            Self::Healthy => "service_healthy",
            Self::Completed => "service_completed_successfully",
        })
    }
}
