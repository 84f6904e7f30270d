//! `rdock events`.

use crate::template::Template;
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::{Event, EventFilter, EventKind, Runtime};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(crate) struct EventsArguments {
    /// Only what fits: type, event, container, image, network, volume, label, as KEY=VALUE
    #[arg(short, long)]
    filter: Vec<String>,
    /// Begin with what is recorded since then (RFC 3339, unix seconds, or 10m for ten minutes ago)
    #[arg(long)]
    since: Option<String>,
    /// End then
    #[arg(long)]
    until: Option<String>,
    /// json or a template
    #[arg(long)]
    format: Option<String>,
}

enum Form {
    Plain,
    Json,
    Template(Template),
}

impl EventsArguments {
    pub(crate) async fn execute(self, runtime: &Runtime) -> Outcome {
        let mut filter = EventFilter::default();
        for condition in &self.filter {
            filter.add(condition)?;
        }
        let mut events = runtime.events().filter(filter);
        if let Some(when) = &self.since {
            events = events.since(when)?;
        }
        if let Some(when) = &self.until {
            events = events.until(when)?;
        }
        let form = match self.format.as_deref() {
            None | Some("") => Form::Plain,
            Some("json" | "{{json .}}") => Form::Json,
            Some(text) => Form::Template(Template::parse(text).map_err(Failure::of_template)?),
        };
        while let Some(event) = events.next().await? {
            let line = match &form {
                Form::Plain => plain(&event),
                Form::Json => shape(&event).to_string(),
                Form::Template(template) => template.render(&shape(&event)).map_err(Failure::new)?,
            };
            if !crate::streams::printed(&line) {
                // Nobody reads any more.
                break;
            }
        }
        Ok(0)
    }
}

/// docker's line: time, type, action, id and the attributes in parentheses.
fn plain(event: &Event) -> String {
    let mut line = format!("{} {} {} {}", event.time(), event.kind, event.action, event.id);
    if !event.attributes.is_empty() {
        let attributes = event
            .attributes
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        line.push_str(&format!(" ({})", attributes.collect::<Vec<_>>().join(", ")));
    }
    line
}

/// docker's object.
fn shape(event: &Event) -> Value {
    let mut object = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_nanos / 1_000_000_000,
        "timeNano": event.time_nanos,
    });
    // What older clients read.
    if matches!(event.kind, EventKind::Container | EventKind::Image) {
        object["status"] = json!(event.action);
        object["id"] = json!(event.id);
        if let Some(image) = event.attribute("image") {
            object["from"] = json!(image);
        }
    }
    object
}
