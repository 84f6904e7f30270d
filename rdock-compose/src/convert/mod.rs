//! A service becomes the spec of a container, a network and a volume what the runtime makes. Pure.
//!
//! What the runtime cannot do is a note of the [`Converted`] value, never left out in silence.

mod mounts;
mod networks;
mod process;
mod resources;
mod secrets;
#[cfg(test)]
mod tests;

pub(crate) use networks::{network_spec, volume_options};

use crate::model::Project;
use crate::names::{container_labels, container_name, label};
use crate::plan::{ExistingMount, OneOff};
use rdock_runtime::ContainerSpec;
use rdock_runtime::image::Digest;

/// A spec, and what it could not take over.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) spec: ContainerSpec,
    /// Attributes that the runtime has no counterpart for, each with its name.
    pub(crate) notes: Vec<String>,
}

/// Which container of a service is made.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    pub(crate) project: &'a Project,
    pub(crate) service: &'a str,
    pub(crate) number: u32,
    /// The name it is made under.
    pub(crate) name: &'a str,
    /// The id of its image.
    pub(crate) image_id: Option<&'a str>,
    /// The entry point that its image has.
    pub(crate) image_entrypoint: &'a [String],
    /// The random part of a one-off container's name.
    pub(crate) one_off: Option<&'a OneOff>,
    /// It takes the place of the container that has its final name.
    pub(crate) replaces: bool,
    /// Anonymous volumes of the one whose place it takes.
    pub(crate) inherits: &'a [ExistingMount],
    /// Layers of the images that are mounted, by the references that the file has.
    pub(crate) image_layers: &'a [(String, Vec<Digest>)],
}

/// Makes the spec.
///
/// # Errors
/// The attribute whose value no container can have, and why.
pub(crate) fn container(making: &Making<'_>) -> Result<Converted, String> {
    let Making {
        project,
        service: name,
        ..
    } = making;
    let service = project
        .any_service(name)
        .ok_or_else(|| "the project has no such service".to_owned())?;
    let mut spec = ContainerSpec::new(project.image_of(name)).name(making.name);
    let mut notes = Vec::new();
    let final_name = container_name(project, name, making.number);
    let replaces = making.replaces.then_some(final_name.as_str());
    spec.labels = container_labels(
        project,
        name,
        making.number,
        making.image_id,
        making.one_off.map(|one_off| one_off.slug.as_str()),
        replaces,
    );
    process::fill(&mut spec, making, service, &mut notes)?;
    resources::fill(&mut spec, service, &mut notes)?;
    networks::fill(&mut spec, making, service, &mut notes)?;
    mounts::fill(&mut spec, making, service, &mut notes)?;
    secrets::fill(&mut spec, making, service)?;
    debug_assert!(spec.labels.contains_key(label::PROJECT));
    Ok(Converted { spec, notes })
}

/// The name of the first container of another service, for what is shared with it.
fn first_of(project: &Project, service: &str) -> String {
    container_name(project, service, 1)
}

/// An attribute's value in the words of an error.
fn wrong(attribute: &str, reason: impl std::fmt::Display) -> String {
    format!("{attribute}: {reason}")
}

/// A note for each attribute that is there.
fn note(notes: &mut Vec<String>, there: bool, attribute: &str, reason: &str) {
    if there {
        notes.push(format!("{attribute}: {reason}"));
    }
}
