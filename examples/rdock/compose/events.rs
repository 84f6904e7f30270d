//! `compose events`.

use super::session::Session;
use crate::{Outcome, streams};
use clap::Args;
use rdock_compose::label;
use rdock_runtime::EventKind;
use serde_json::json;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Begin with what is recorded since then
    #[arg(long)]
    since: Option<String>,
    /// End then
    #[arg(long)]
    until: Option<String>,
    /// Services; all without any
    services: Vec<String>,
}

impl Events {
    pub(super) async fn execute(self, session: &Session) -> Outcome {
        let project = session.known()?;
        let name = &project.project().name;
        let mut events = session
            .runtime()
            .events()
            .kind(EventKind::Container)
            .label(label::PROJECT, Some(name));
        if let Some(when) = &self.since {
            events = events.since(when)?;
        }
        if let Some(when) = &self.until {
            events = events.until(when)?;
        }
        while let Some(event) = events.next().await? {
            let service = event.attribute(label::SERVICE).unwrap_or_default().to_owned();
            if !self.services.is_empty() && !self.services.contains(&service) {
                continue;
            }
            // The project's own labels are no news.
            let attributes: serde_json::Map<String, serde_json::Value> = event
                .attributes
                .iter()
                .filter(|(key, _)| {
                    !key.starts_with("com.docker.compose.") && !key.starts_with("rdock.compose.")
                })
                .map(|(key, value)| (key.clone(), json!(value)))
                .collect();
            let line = match self.json {
                true => json!({
                    "time": event.time(),
                    "type": "container",
                    "action": event.action,
                    "id": event.id,
                    "service": service,
                    "attributes": attributes,
                })
                .to_string(),
                false => {
                    let pairs: Vec<String> = attributes
                        .iter()
                        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                        .collect();
                    let (time, action, id) = (event.time(), &event.action, &event.id);
                    format!("{time} container {action} {id} ({})", pairs.join(", "))
                }
            };
            if !streams::printed(&line) {
                break;
            }
        }
        Ok(0)
    }
}
