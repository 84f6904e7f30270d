//! Which events are wanted.

use super::{Event, EventAction, EventKind};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Which events are wanted. Values for one key are alternatives, keys must all match; labels must all be there.
///
/// ```
/// use rdock_runtime::{EventFilter, EventKind};
/// let typed = EventFilter::default().kind(EventKind::Container).container("web");
/// let mut parsed = EventFilter::default();
/// parsed.add("type=container")?;
/// parsed.add("container=web")?;
/// assert_eq!(typed, parsed);
/// # Ok::<(), rdock_runtime::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    kinds: Vec<EventKind>,
    actions: Vec<String>,
    /// Ids or names, whole or their beginnings, by the key that docker has for them.
    objects: BTreeMap<EventKind, Vec<String>>,
    labels: Vec<(String, Option<String>)>,
    /// Scopes other than this machine's: nothing matches then.
    foreign: bool,
}

impl EventFilter {
    /// Only this kind of object.
    pub fn kind(mut self, kind: EventKind) -> Self {
        self.kinds.push(kind);
        self
    }

    /// Only this action.
    pub fn action(mut self, action: EventAction) -> Self {
        self.actions.push(action.to_string());
        self
    }

    /// Only the container with this id or name, or their beginning.
    pub fn container(self, container: impl Into<String>) -> Self {
        self.object(EventKind::Container, container)
    }

    /// Only the image with this id or name, and containers of it.
    pub fn image(self, image: impl Into<String>) -> Self {
        self.object(EventKind::Image, image)
    }

    /// Only the object of this kind with this id or name.
    pub fn object(mut self, kind: EventKind, name: impl Into<String>) -> Self {
        self.objects.entry(kind).or_default().push(name.into());
        self
    }

    /// Only objects with this label, and with this value when one is given.
    pub fn label(mut self, name: impl Into<String>, value: Option<&str>) -> Self {
        self.labels.push((name.into(), value.map(str::to_owned)));
        self
    }

    /// Adds a condition as docker writes it, `key=value`: `type`, `event`, `container`, `image`, `network`,
    /// `volume`, `label` (`name` or `name=value`), `scope` (`local`).
    ///
    /// # Errors
    /// [`Error::Filter`] for another key or form.
    pub fn add(&mut self, condition: &str) -> Result<()> {
        let wrong = |reason: &str| Error::Filter {
            text: condition.to_owned(),
            reason: reason.to_owned(),
        };
        let (key, value) = condition
            .split_once('=')
            .ok_or_else(|| wrong("expected KEY=VALUE"))?;
        let this = std::mem::take(self);
        *self = match key.trim().to_ascii_lowercase().as_str() {
            "type" => match kind(value) {
                Some(kind) => this.kind(kind),
                None => {
                    *self = this;
                    return Err(wrong("no such type"));
                }
            },
            "event" => {
                let Ok(action) = value.parse();
                this.action(action)
            }
            "container" => this.container(value),
            "image" => this.image(value),
            "network" => this.object(EventKind::Network, value),
            "volume" => this.object(EventKind::Volume, value),
            "label" => match value.split_once('=') {
                Some((name, value)) => this.label(name, Some(value)),
                None => this.label(value, None),
            },
            "scope" => {
                let foreign = this.foreign || value != "local";
                Self { foreign, ..this }
            }
            _ => {
                *self = this;
                return Err(wrong(
                    "the keys are type, event, container, image, network, volume, label and scope",
                ));
            }
        };
        Ok(())
    }

    /// Whether the event is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        let among = |wanted: &[String], test: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|wanted| test(wanted))
        };
        let action = event.action.to_string();
        !self.foreign
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && among(&self.actions, &|wanted| is_action(&action, wanted))
            && self.objects.iter().all(|(kind, wanted)| match kind {
                EventKind::Image => among(wanted, &|wanted| is_image(event, wanted)),
                kind => among(wanted, &|wanted| is_object(event, *kind, wanted)),
            })
            && self.labels.iter().all(|(name, value)| {
                let found = event.attribute(name);
                found.is_some_and(|found| value.as_deref().is_none_or(|value| value == found))
            })
    }
}

fn kind(word: &str) -> Option<EventKind> {
    use EventKind::{Builder, Container, Image, Network, Volume};
    [Container, Image, Network, Volume, Builder]
        .into_iter()
        .find(|kind| kind.as_str() == word)
}

/// `health_status` stands for `health_status: healthy` and its kind too.
fn is_action(action: &str, wanted: &str) -> bool {
    action == wanted
        || action
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.starts_with(':'))
}

fn is_object(event: &Event, kind: EventKind, wanted: &str) -> bool {
    let fits = |text: &str| text.starts_with(wanted) && !wanted.is_empty();
    if event.kind == kind {
        return fits(&event.id) || event.attribute("name").is_some_and(fits);
    }
    // What a network or volume has to do with a container names it.
    event.attribute(kind.as_str()).is_some_and(fits)
}

fn is_image(event: &Event, wanted: &str) -> bool {
    let fits = |text: &str| text == wanted || without_tag(text) == wanted;
    match event.kind {
        EventKind::Image => fits(&event.id) || event.attribute("name").is_some_and(fits),
        _ => event.attribute("image").is_some_and(fits),
    }
}

fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        // A colon before a slash belongs to a port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let Ok(action) = action.parse();
        let mut event = Event::now(kind, action, id);
        for (name, value) in attributes {
            event.attributes.insert((*name).into(), (*value).into());
        }
        event
    }

    fn matches(conditions: &[&str], event: &Event) -> bool {
        let mut filter = EventFilter::default();
        for condition in conditions {
            filter.add(condition).expect(condition);
        }
        filter.matches(event)
    }

    #[test]
    fn values_are_alternatives_and_keys_and_labels_conditions() {
        let web = [
            ("name", "web"),
            ("image", "nginx:1.25"),
            ("tier", "front"),
            ("a", "b"),
        ];
        let die = event(EventKind::Container, "die", "abcdef", &web);
        let rows: &[(&[&str], bool)] = &[
            (&[], true),
            (&["type=container"], true),
            (&["type=image"], false),
            (&["type=image", "type=container"], true),
            (&["event=die", "event=start"], true),
            (&["event=start"], false),
            (&["container=web"], true),
            (&["container=abc"], true),
            (&["container=db"], false),
            (&["container=db", "container=web"], true),
            (&["image=nginx"], true),
            (&["image=nginx:1.25"], true),
            (&["image=ngin"], false),
            (&["label=tier"], true),
            (&["label=tier=front"], true),
            (&["label=tier=front", "label=a=c"], false),
            (&["label=none"], false),
            (&["volume=web"], false),
            (&["scope=local"], true),
            (&["scope=swarm"], false),
            (&["type=container", "event=start"], false),
        ];
        for (conditions, expected) in rows {
            assert_eq!(matches(conditions, &die), *expected, "{conditions:?}");
        }
        let health = event(EventKind::Container, "health_status: healthy", "abc", &[]);
        assert!(matches(&["event=health_status"], &health));
        assert!(matches(&["event=health_status: healthy"], &health));
        assert!(!matches(&["event=health_status: unhealthy"], &health));
        assert!(!matches(&["event=health"], &health));
        let mount = event(EventKind::Volume, "mount", "data", &[("container", "abcdef")]);
        assert!(matches(&["container=abcdef"], &mount));
        assert!(matches(&["volume=data"], &mount));
        let pull = event(
            EventKind::Image,
            "pull",
            "localhost:5000/a:1",
            &[("name", "localhost:5000/a")],
        );
        assert!(matches(&["image=localhost:5000/a"], &pull));
        assert!(!matches(&["image=localhost"], &pull));
    }

    #[test]
    fn a_wrong_condition_is_an_error_and_changes_nothing() {
        let mut filter = EventFilter::default().container("web");
        for wrong in ["", "type", "type=ship", "colour=red", "=x"] {
            assert!(
                matches!(filter.add(wrong), Err(Error::Filter { .. })),
                "{wrong:?}"
            );
        }
        assert_eq!(filter, EventFilter::default().container("web"));
    }
}
