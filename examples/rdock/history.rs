//! `rdock history`.

use crate::listing::{Form, Listing};
use crate::streams::print;
use crate::table::{ago, size};
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::Runtime;
use rdock_runtime::image::History as Line;
use serde_json::{Map, Value};

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Sizes and times for people
    #[arg(short = 'H', long, num_args = 0..=1, default_value = "true", default_missing_value = "true", require_equals = true)]
    human: bool,
    /// Whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// table, json, a template, or table and a template
    #[arg(long, default_value = "table")]
    format: String,
    /// The image
    image: String,
}

const LISTING: Listing = Listing {
    fields: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    usual: &["ID", "CreatedSince", "CreatedBy", "Size", "Comment"],
};
const EXACT: Listing = Listing {
    usual: &["ID", "CreatedAt", "CreatedBy", "Size", "Comment"],
    ..LISTING
};

impl History {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let form = Form::parse(&self.format)?;
        let store = runtime.images();
        let image = store.get(&self.image)?;
        let image = image.ok_or_else(|| Failure::new(format!("no such image: {}", self.image)))?;
        let mut rows = Vec::new();
        let mut layers = image.diff_ids().iter();
        for line in &image.config().history {
            // An image may have more lines than layers, or fewer: nobody checks what its maker wrote.
            let layer = match line.empty_layer {
                true => None,
                false => layers.next(),
            };
            let bytes = layer.map_or(Ok(0), |layer| store.layer_size(layer))?;
            rows.push(self.row(line, bytes));
        }
        for layer in layers {
            rows.push(self.row(&Line::default(), store.layer_size(layer)?));
        }
        rows.reverse();
        // The last step made the image; those below have no image of their own.
        let id = match self.no_trunc {
            true => image.id().as_str(),
            false => image.id().short(),
        };
        if let Some(first) = rows.first_mut() {
            first.insert("ID".to_owned(), Value::from(id));
        }
        if self.quiet {
            for row in &rows {
                print(row.get("ID").and_then(Value::as_str).unwrap_or_default());
            }
            return Ok(0);
        }
        match self.human {
            true => LISTING.show(&form, rows),
            false => EXACT.show(&form, rows),
        }
    }

    fn row(&self, line: &Line, bytes: u64) -> Map<String, Value> {
        let command: String = line.created_by.as_deref().unwrap_or_default().replace('\t', " ");
        let command = match command.char_indices().nth(45) {
            Some(_) if !self.no_trunc => command.chars().take(44).chain(['…']).collect(),
            _ => command,
        };
        let time = line.created.clone().unwrap_or_default();
        let since = match time.as_str() {
            "" => "N/A".to_owned(),
            time => format!("{} ago", ago(time)),
        };
        [
            ("ID", "<missing>".to_owned()),
            ("CreatedSince", since),
            ("CreatedAt", time),
            ("CreatedBy", command),
            (
                "Size",
                if self.human {
                    size(bytes)
                } else {
                    bytes.to_string()
                },
            ),
            ("Comment", line.comment.clone().unwrap_or_default()),
        ]
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .into_iter()
        .collect()
    }
}
