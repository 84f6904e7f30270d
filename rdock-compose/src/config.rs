//! What `config` prints of a project.

use crate::error::{Error, Finding, FindingKind, Result};
use crate::interpolate::{Variable, variables};
use crate::load::Document;
use crate::model::{Dependencies, Project};
use crate::printed;
use crate::yaml::{Ordered, emit};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How a project is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// YAML, keys in the order of the model.
    #[default]
    Yaml,
    /// JSON, keys in the order of the model but for those of the document, which are sorted; without the `x-*` keys of
    /// services, networks and the like.
    Json,
}

impl Project {
    /// The canonical document. A `$` is doubled, so that the text can be loaded again.
    pub fn config(&self, format: Format) -> String {
        match format {
            Format::Yaml => double(emit(&printed::yaml(self))),
            Format::Json => double(printed::json(self)),
        }
    }

    /// The name of the image that a service runs: the one it names, or `<project>-<service>` for one that is built.
    pub fn image_of(&self, service: &str) -> String {
        let named = self.any_service(service);
        let image = named.and_then(|service| service.image.clone());
        image.unwrap_or_else(|| format!("{}{}{service}", self.name, self.separator()))
    }

    /// The platform that a service's image is for: what the service says, else `DOCKER_DEFAULT_PLATFORM`. None for this
    /// machine's.
    pub fn platform_of(&self, service: &str) -> Option<String> {
        let named = self
            .any_service(service)
            .and_then(|service| service.platform.clone());
        let default = self.environment.get("DOCKER_DEFAULT_PLATFORM");
        named
            .or_else(|| default.cloned())
            .filter(|platform| !platform.is_empty())
    }

    /// The images of all active services, each once: those that they run, and those of their `pre_start` hooks.
    pub fn images(&self) -> BTreeSet<String> {
        let run = self.services.keys().map(|name| self.image_of(name));
        let hooks = self.services.values().flat_map(|service| &service.pre_start);
        run.chain(hooks.filter_map(|hook| hook.image.clone())).collect()
    }

    /// The names of the active services, each after those it needs.
    pub fn in_order(&self) -> Vec<&str> {
        crate::plan::in_order(self)
    }

    /// The images that `push` uploads: those of services that are built here and have a name of their own, with the
    /// further names of their builds.
    ///
    /// # Errors
    /// [`Self::select`]'s.
    pub fn pushed_images<S: AsRef<str>>(
        &self,
        services: &[S],
        dependencies: Dependencies,
    ) -> Result<BTreeSet<String>> {
        let selected = self.select(services, dependencies)?;
        let built = selected.services.values();
        let built = built.filter_map(|service| Some((service.image.clone()?, service.build.as_ref()?)));
        Ok(built
            .flat_map(|(image, build)| build.tags.iter().cloned().chain([image]))
            .collect())
    }

    /// Every profile that a service has, active or not.
    pub fn all_profiles(&self) -> BTreeSet<String> {
        let services = self.services.values().chain(self.disabled_services.values());
        services
            .flat_map(|service| service.profiles.iter().cloned())
            .collect()
    }

    /// Every image replaced by its pinned form; `digest_of` is asked for those that have no digest yet.
    ///
    /// # Errors
    /// What `digest_of` fails with.
    pub fn pin_images<E>(&mut self, mut digest_of: impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
        for service in self.services.values_mut() {
            let Some(image) = &service.image else { continue };
            let digest = match image.rsplit_once('@') {
                Some((_, digest)) => digest.to_owned(),
                None => digest_of(image)?,
            };
            service.image = Some(pinned(image, &digest));
        }
        Ok(())
    }
}

impl Project {
    /// A document that says nothing but which images the services run and mount: as a further file it holds a project
    /// to them. Services without one are left out.
    pub fn image_lock(&self, format: Format) -> String {
        let images = self.services.iter().filter_map(|(name, service)| {
            let mut lock = serde_json::Map::new();
            if let Some(image) = &service.image {
                lock.insert("image".to_owned(), serde_json::json!(image));
            }
            let volumes = service.volumes.iter();
            let mounted: Vec<_> = volumes.filter(|volume| volume.r#type == "image").collect();
            if !mounted.is_empty() {
                lock.insert("volumes".to_owned(), serde_json::json!(mounted));
            }
            (!lock.is_empty()).then(|| (name.clone(), Value::Object(lock)))
        });
        let services: serde_json::Map<String, Value> = images.collect();
        let lock = serde_json::json!({ "services": services });
        double(match format {
            Format::Yaml => emit(&Ordered::of(&lock)),
            Format::Json => serde_json::to_string_pretty(&lock).unwrap_or_default() + "\n",
        })
    }
}

impl Document {
    /// The merged document as text.
    pub fn config(&self, format: Format) -> String {
        match format {
            Format::Yaml => emit(&Ordered::of(&self.tree)),
            Format::Json => serde_json::to_string_pretty(&self.tree).unwrap_or_default() + "\n",
        }
    }

    /// The same as a document of its own, by the names of the variables.
    ///
    /// # Errors
    /// [`Self::variables`]'s.
    pub fn variables_as(&self, format: Format) -> Result<String> {
        let found = self.variables()?.into_iter();
        let text = |value: Option<String>| value.unwrap_or_default();
        let found: serde_json::Map<String, Value> = match format {
            Format::Json => found
                .map(|(name, variable)| {
                    let value = serde_json::json!({
                        "Name": name,
                        "DefaultValue": text(variable.default),
                        "PresenceValue": text(variable.presence),
                        "Required": variable.required,
                    });
                    (name, value)
                })
                .collect(),
            Format::Yaml => found
                .map(|(name, variable)| {
                    let value = serde_json::json!({
                        "name": name,
                        "defaultvalue": text(variable.default),
                        "presencevalue": text(variable.presence),
                        "required": variable.required,
                    });
                    (name, value)
                })
                .collect(),
        };
        Ok(match format {
            Format::Json => Value::Object(found).to_string() + "\n",
            Format::Yaml => emit(&Ordered::of(&found)),
        })
    }

    /// Every variable that the document uses; it must have been loaded without filling them in.
    ///
    /// # Errors
    /// A value that is not a template.
    pub fn variables(&self) -> Result<BTreeMap<String, Variable>> {
        variables_in(&self.tree)
    }
}

/// Every variable of a tree's values.
///
/// # Errors
/// A value that is not a template.
pub fn variables_in(tree: &Value) -> Result<BTreeMap<String, Variable>> {
    let mut found = BTreeMap::new();
    walk(tree, &mut Vec::new(), &mut found)?;
    Ok(found)
}

fn walk(value: &Value, path: &mut Vec<String>, found: &mut BTreeMap<String, Variable>) -> Result<()> {
    match value {
        Value::String(text) => variables(text, found).map_err(|error| {
            Error::from(Finding {
                kind: FindingKind::Interpolation,
                path: path.join("."),
                place: None,
                message: error.to_string(),
                hint: None,
            })
        }),
        Value::Array(list) => list.iter().enumerate().try_for_each(|(index, value)| {
            path.push(index.to_string());
            let done = walk(value, path, found);
            path.pop();
            done
        }),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            path.push(key.clone());
            let done = walk(value, path, found);
            path.pop();
            done
        }),
        _ => Ok(()),
    }
}

fn double(text: String) -> String {
    text.replace('$', "$$")
}

/// A reference that names one content: with the digest it has, without its tag then; else with this one.
pub fn pinned(image: &str, digest: &str) -> String {
    match image.rsplit_once('@') {
        Some((name, digest)) => {
            let slash = name.rfind('/').map_or(0, |at| at + 1);
            let name = match name[slash..].find(':') {
                Some(colon) => &name[..slash + colon],
                None => name,
            };
            format!("{name}@{digest}")
        }
        None => format!("{image}@{digest}"),
    }
}
