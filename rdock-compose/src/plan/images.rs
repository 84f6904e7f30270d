//! Which images have to be pulled or built before containers can be made.

use super::existing::ExistingImage;
use super::operation::{Cause, Operation};
use super::{Build, Existing, Plan, PlanError, Pull, UpOptions};
use crate::forms::parse_duration;
use crate::model::{Dependencies, Project, Service};
use std::collections::{BTreeMap, BTreeSet};

/// What `pull` is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PullOptions {
    /// The services; all if empty.
    pub services: Vec<String>,
    /// Whether the images of what they need are pulled too; by default they are not.
    pub dependencies: Dependencies,
    /// When images are pulled; as services say if absent.
    pub policy: Option<Pull>,
    /// Images that can be built are left.
    pub ignore_buildable: bool,
    /// A pull that fails is only warned of. For an image that can be built that is so anyway.
    pub ignore_failures: bool,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            dependencies: Dependencies::Leave,
            policy: None,
            ignore_buildable: false,
            ignore_failures: false,
        }
    }
}

/// What is to be done for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Build,
    Pull,
    /// Pull, and go on with what is here if that fails.
    Refresh,
}

impl Plan {
    /// The images that `up` needs and that are not here, or that the services' policies want anew. Steps do not wait
    /// for each other, but for images that are built from other services' images.
    ///
    /// # Errors
    /// [`PlanError::NoImage`] for one that is not here and may neither be pulled nor built.
    pub fn images(project: &Project, existing: &Existing, options: &UpOptions) -> Result<Self, PlanError> {
        let selected = project.select(&options.services, options.dependencies)?;
        let mut plan = Self::new(&project.name);
        let mut pulls: BTreeSet<(String, Option<String>)> = BTreeSet::new();
        let mut builds: BTreeMap<String, usize> = BTreeMap::new();
        // What one service builds others may use by its name.
        let built: BTreeSet<String> = selected
            .services
            .iter()
            .filter(|(_, service)| service.build.is_some() && options.build != Build::Never)
            .map(|(name, _)| selected.image_of(name))
            .collect();
        for name in super::order::services(&selected) {
            let service = &selected.services[name];
            if service.provider.is_some() {
                continue;
            }
            let image = selected.image_of(name);
            let platform = selected.platform_of(name);
            let here = existing
                .images
                .get(&image)
                .filter(|image| image.is_for(platform.as_deref()));
            if here.is_none() && service.build.is_none() && built.contains(&image) {
                continue;
            }
            let cause = if here.is_some() {
                Cause::Requested
            } else {
                Cause::Missing
            };
            match need(service, here, options) {
                Need::Nothing if here.is_none() => {
                    return Err(PlanError::NoImage {
                        service: name.to_owned(),
                        image,
                    });
                }
                Need::Nothing => {}
                Need::Build => {
                    let others = service
                        .build
                        .iter()
                        .flat_map(|build| build.additional_contexts.values());
                    let others = others.filter_map(|context| context.strip_prefix("service:"));
                    let after: Vec<usize> = others.filter_map(|other| builds.get(other).copied()).collect();
                    let operation = Operation::BuildImage {
                        service: name.to_owned(),
                        image,
                    };
                    let step = plan.add(operation, vec![cause], after);
                    builds.insert(name.to_owned(), step);
                }
                need @ (Need::Pull | Need::Refresh) => {
                    if pulls.insert((image.clone(), platform.clone())) {
                        let operation = Operation::PullImage {
                            service: name.to_owned(),
                            image,
                            platform,
                            optional: need == Need::Refresh,
                        };
                        plan.add(operation, vec![cause], []);
                    }
                }
            }
        }
        Ok(plan)
    }
}

impl Plan {
    /// `pull`: the images that services name, unless their policies are against it.
    ///
    /// # Errors
    /// [`PlanError::Select`].
    pub fn pull(project: &Project, existing: &Existing, options: &PullOptions) -> Result<Self, PlanError> {
        let selected = project.select(&options.services, options.dependencies)?;
        let mut plan = Self::new(&project.name);
        let mut pulled = BTreeMap::new();
        for (name, service) in &selected.services {
            let Some(image) = service.image.clone().filter(|_| service.provider.is_none()) else {
                continue;
            };
            let platform = selected.platform_of(name);
            let found = existing.images.get(&image);
            let here = found.is_some_and(|image| image.is_for(platform.as_deref()));
            let wanted = match (options.policy, service.pull_policy.as_deref()) {
                (Some(Pull::Always), _) => true,
                (Some(Pull::Missing), _) | (None, Some("missing" | "if_not_present")) => !here,
                (Some(Pull::Never), _) | (None, Some("never" | "build")) => false,
                (None, _) => true,
            };
            let builds = service.build.is_some();
            if wanted && !(builds && options.ignore_buildable) {
                // One that nobody can build must come.
                let optional = options.ignore_failures || builds;
                let (_, may_fail) = pulled.entry((image, platform)).or_insert((name, optional));
                *may_fail &= optional;
            }
        }
        for ((image, platform), (service, optional)) in pulled {
            let operation = Operation::PullImage {
                service: service.clone(),
                image,
                platform,
                optional,
            };
            plan.add(operation, vec![Cause::Requested], []);
        }
        Ok(plan)
    }
}

fn need(service: &Service, here: Option<&ExistingImage>, options: &UpOptions) -> Need {
    let builds = service.build.is_some();
    let policy = match options.pull {
        Some(Pull::Always) => "always",
        Some(Pull::Missing) => "missing",
        Some(Pull::Never) => "never",
        None => service.pull_policy.as_deref().unwrap_or(""),
    };
    if builds && options.build == Build::Always {
        return Need::Build;
    }
    let may_build = builds && options.build != Build::Never;
    match policy {
        "build" if may_build => Need::Build,
        // What is built here is not looked for elsewhere, unless that is asked for.
        "" | "build" if here.is_none() && may_build => Need::Build,
        "never" if here.is_none() && may_build => Need::Build,
        "never" => Need::Nothing,
        "refresh" if service.pull_refresh_after.is_some() => {
            aged(service.pull_refresh_after.as_deref().unwrap_or_default(), here)
        }
        "always" | "refresh" | "newer" if builds && service.image.is_none() => match here {
            None if may_build => Need::Build,
            _ => Need::Nothing,
        },
        "always" | "refresh" | "newer" => Need::Pull,
        "daily" | "weekly" => aged(policy, here),
        every if every.starts_with("every_") => aged(every, here),
        _ if here.is_some() => Need::Nothing,
        "missing" if may_build && service.image.is_none() => Need::Build,
        _ => Need::Pull,
    }
}

/// An image that is older than the policy, or the duration, allows.
fn aged(policy: &str, here: Option<&ExistingImage>) -> Need {
    let most = match policy {
        "daily" => 86_400,
        "weekly" => 604_800,
        every => {
            let nanoseconds = parse_duration(every.trim_start_matches("every_")).unwrap_or(0);
            u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0)
        }
    };
    match here {
        None => Need::Pull,
        Some(image) if image.age.is_none_or(|age| age >= most) => Need::Refresh,
        Some(_) => Need::Nothing,
    }
}
