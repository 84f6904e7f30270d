//! `rdock save`.

use crate::{Failure, Outcome};
use clap::Args;
use rdock_runtime::Runtime;
use rdock_runtime::image::{ExportOptions, ExportReport, Reference};
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Save {
    /// Write to a file instead of stdout
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Images
    #[arg(required = true)]
    images: Vec<String>,
}

impl Save {
    pub(crate) fn execute(self, runtime: &Runtime) -> Outcome {
        let store = runtime.images();
        let mut wanted: Vec<(rdock_runtime::image::Image, Vec<Reference>)> = Vec::new();
        for name in &self.images {
            let image = store
                .get(name)?
                .ok_or_else(|| Failure::new(format!("no such image: {name}")))?;
            // An id alone saves no name, as in docker.
            let names: Vec<Reference> = match Reference::parse(name) {
                Ok(reference) => image
                    .references()
                    .iter()
                    .filter(|known| **known == reference)
                    .cloned()
                    .collect(),
                Err(_) => Vec::new(),
            };
            match wanted.iter_mut().find(|(known, _)| known.id() == image.id()) {
                Some((_, known)) => known.extend(names),
                None => wanted.push((image, names)),
            }
        }
        let options = ExportOptions::default();
        let Some(path) = &self.output else {
            if std::io::stdout().is_terminal() {
                return Err(Failure::new(
                    "cowardly refusing to save to a terminal. Use the -o flag or redirect",
                ));
            }
            let mut out = BufWriter::with_capacity(256 << 10, std::io::stdout().lock());
            let report = store.export(&wanted, &options, &mut out)?;
            out.flush()?;
            warn(&report);
            return Ok(0);
        };
        // Half an archive never has the name that was asked for.
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let mut out = BufWriter::with_capacity(256 << 10, std::fs::File::create(&part).map_err(named)?);
        let written = store
            .export(&wanted, &options, &mut out)
            .map_err(Failure::from)
            .and_then(|report| {
                out.flush().map_err(named)?;
                std::fs::rename(&part, path).map_err(named)?;
                Ok(report)
            });
        match written {
            Ok(report) => warn(&report),
            Err(error) => {
                // It is of no use to anybody; the error is what counts.
                let _ = std::fs::remove_file(&part);
                return Err(error);
            }
        }
        Ok(0)
    }
}

/// An image whose layers came from elsewhere may get another id in the archive.
fn warn(report: &ExportReport) {
    for (id, other) in &report.renamed {
        crate::streams::say(&format!("WARNING: {id} is {other} in the archive"));
    }
}
