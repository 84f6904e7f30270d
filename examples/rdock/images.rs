//! `rdock images`.

use crate::listing::{Form, Listing};
use crate::streams::print;
use crate::table::{ago, size};
use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::Runtime;
use rdock_runtime::image::{Image, Reference};
use serde_json::{Map, Value};

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Docker's flag: every image is listed anyway
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only what fits: dangling, label, before, since, reference, as KEY=VALUE
    #[arg(short, long)]
    filter: Vec<String>,
    /// table, json, a template, or table and a template
    #[arg(long, default_value = "table")]
    format: String,
    /// Only those of this name, with a tag or all of its tags
    repository: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
];
const LISTING: Listing = Listing {
    fields: FIELDS,
    usual: &["Repository", "Tag", "ID", "CreatedSince", "Size"],
};
const WITH_DIGESTS: Listing = Listing {
    fields: FIELDS,
    usual: &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
};

/// Which images are listed: what is asked for under one key is enough once, each key has to fit.
#[derive(Debug, Default)]
struct Filter {
    dangling: Option<bool>,
    labels: Vec<(String, Option<String>)>,
    /// Made before, and after, these moments.
    before: Option<jiff::Timestamp>,
    since: Option<jiff::Timestamp>,
    references: Vec<String>,
}

impl Filter {
    fn add(&mut self, runtime: &Runtime, condition: &str) -> Result<(), Failure> {
        let wrong = |reason: &str| Failure::new(format!("--filter {condition:?}: {reason}"));
        let (key, value) = condition
            .split_once('=')
            .ok_or_else(|| wrong("it is not KEY=VALUE"))?;
        let moment = |name: &str| -> Result<jiff::Timestamp, Failure> {
            let image = runtime.images().get(name)?;
            let image = image.ok_or_else(|| wrong(&format!("no such image: {name}")))?;
            created(&image).ok_or_else(|| wrong("that image does not say when it was made"))
        };
        match key {
            "dangling" => {
                self.dangling = Some(match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(wrong("it is true or false")),
                });
            }
            "label" => self.labels.push(match value.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (value.to_owned(), None),
            }),
            "before" => self.before = Some(moment(value)?),
            "since" => self.since = Some(moment(value)?),
            "reference" => self.references.push(value.to_owned()),
            _ => return Err(wrong("the keys are dangling, label, before, since and reference")),
        }
        Ok(())
    }

    fn fits(&self, image: &Image) -> bool {
        let labels = &image.config().config.labels;
        let has = |(name, value): &(String, Option<String>)| match (labels.get(name), value) {
            (Some(found), Some(value)) => found == value,
            (found, _) => found.is_some(),
        };
        let made = created(image);
        self.dangling
            .is_none_or(|dangling| image.references().is_empty() == dangling)
            && self.labels.iter().all(has)
            && self
                .before
                .is_none_or(|moment| made.is_some_and(|made| made < moment))
            && self
                .since
                .is_none_or(|moment| made.is_some_and(|made| made > moment))
    }

    fn names<'a>(&self, image: &'a Image) -> Vec<&'a Reference> {
        let fits = |name: &&Reference| {
            self.references.is_empty() || self.references.iter().any(|pattern| name.matches(pattern))
        };
        image.references().iter().filter(fits).collect()
    }
}

/// The names that a name as it was typed stands for: docker.io/library/mysql is mysql.
fn pattern(text: &str) -> String {
    let has_tag = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    match Reference::parse(text) {
        Ok(name) if has_tag => name.familiar(),
        Ok(name) => name.familiar_name().to_owned(),
        Err(_) => text.to_owned(),
    }
}

fn created(image: &Image) -> Option<jiff::Timestamp> {
    image.config().created.as_deref()?.parse().ok()
}

impl Images {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let form = Form::parse(&self.format)?;
        let mut filter = Filter::default();
        for condition in &self.filter {
            filter.add(runtime, condition)?;
        }
        filter.references.extend(self.repository.as_deref().map(pattern));
        let mut images = runtime.images().images()?;
        // The newest first, as docker lists them; those of one moment by their names.
        images.sort_by_key(|image| std::cmp::Reverse(created(image)));
        let mut rows = Vec::new();
        for image in images.iter().filter(|image| filter.fits(image)) {
            let names = filter.names(image);
            if names.is_empty() && !filter.references.is_empty() {
                continue;
            }
            if self.quiet {
                print(&self.id(image));
                continue;
            }
            if names.is_empty() {
                rows.push(self.row(image, "<none>".to_owned(), "<none>".to_owned()));
            }
            for name in names {
                let tag = name.tag().unwrap_or("<none>").to_owned();
                rows.push(self.row(image, name.familiar_name().to_owned(), tag));
            }
        }
        match (self.quiet, self.digests) {
            (true, _) => Ok(0),
            (false, true) => WITH_DIGESTS.show(&form, rows),
            (false, false) => LISTING.show(&form, rows),
        }
    }

    fn id(&self, image: &Image) -> String {
        match self.no_trunc {
            true => image.id().to_string(),
            false => image.id().short().to_owned(),
        }
    }

    fn row(&self, image: &Image, repository: String, tag: String) -> Map<String, Value> {
        let since = image.config().created.as_deref();
        let since = since.map_or_else(|| "N/A".to_owned(), |time| format!("{} ago", ago(time)));
        let at = created(image).map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
        [
            ("ID", self.id(image)),
            ("Repository", repository),
            ("Tag", tag),
            ("Digest", image.manifest_digest().to_string()),
            ("CreatedSince", since),
            ("CreatedAt", at.unwrap_or_default()),
            ("Size", size(image.size())),
        ]
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .into_iter()
        .collect()
    }
}
