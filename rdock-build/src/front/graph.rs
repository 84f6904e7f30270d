//! A graph made in Rust becomes one that can run: its images are looked up, and what comes from them is filled in.
use super::{HistoryLine, Plan, Resolve, Wishes, base_config, check_platform, scratch_config};
use crate::dockerfile::{DEFAULT_PATH, PROXY_ARGS, proxies};
use crate::error::{BuildError, Result};
use crate::event::BuildWarning;
use crate::exec::Inputs;
use crate::graph::{Graph, Input, Operation, StepId};
use rdock_image::{ContainerConfig, ImageConfig};
use std::collections::BTreeMap;

/// Makes the plan of a graph's target.
pub(crate) fn plan_graph(
    graph: &Graph,
    target: StepId,
    wishes: &Wishes,
    inputs: &Inputs,
    resolve: &Resolve<'_>,
) -> Result<Plan> {
    graph.check(target)?;
    if wishes.target.is_some() {
        return Err(BuildError::Option {
            option: "target",
            reason: "names a stage, and a graph has none".to_owned(),
        });
    }
    let mut graph = graph.clone();
    // The config of the image at the bottom, by step.
    let mut configs: BTreeMap<StepId, ImageConfig> = BTreeMap::new();
    for id in graph.reachable(target) {
        let step = &mut graph.steps[id.0];
        step.no_cache |= wishes.no_cache;
        let place = Box::new(step.at());
        let wrong = |reason: String| BuildError::Graph {
            step: step.name.clone(),
            reason,
        };
        let config = match &mut step.operation {
            Operation::Scratch => scratch_config(&wishes.args.target),
            Operation::Image { reference, layers } => {
                let failed = |source| BuildError::BaseImage {
                    place,
                    reference: reference.familiar(),
                    source,
                };
                let image = resolve(reference)
                    .and_then(|image| check_platform(image.config.platform()).map(|()| image))
                    .map_err(failed)?;
                if !layers.is_empty() && *layers != image.layers {
                    return Err(wrong(format!(
                        "names other layers than {} has",
                        reference.familiar()
                    )));
                }
                *layers = image.layers;
                image.config
            }
            operation => {
                let base = operation.base().and_then(|base| configs.get(&base).cloned());
                let config = base.unwrap_or_default();
                let mut used: Vec<&Input> = Vec::new();
                match operation {
                    Operation::Run(run) => {
                        inherit(&config.config, &mut run.env, &mut run.working_dir);
                        run.unkeyed_env.extend(proxies(&wishes.args.values));
                        used.extend(run.inputs());
                    }
                    Operation::Copy(copy) => used.extend(copy.inputs()),
                    _ => {}
                }
                for input in used {
                    if let Input::Context(name) = input
                        && !inputs.0.contains_key(name)
                    {
                        return Err(wrong(match name.is_empty() {
                            true => "reads the build context, and the build has none".to_owned(),
                            false => format!("reads the context {name:?}, which the build does not have"),
                        }));
                    }
                }
                config
            }
        };
        configs.insert(id, config);
    }
    let (config, base_history, base_layers) = base_config(configs.remove(&target).unwrap_or_default());
    let mut history = Vec::new();
    let mut at = target;
    while let Some(base) = graph.steps[at.0].operation.base() {
        history.push(HistoryLine {
            created_by: graph.steps[at.0].name.clone(),
            layer: Some(at),
        });
        at = base;
    }
    history.reverse();
    let unused = wishes.args.values.keys();
    let warnings = unused
        .filter(|name| !PROXY_ARGS.contains(&name.as_str()) && name.as_str() != super::EPOCH)
        .map(|name| BuildWarning {
            rule: None,
            place: None,
            text: format!("build argument {name:?} was not consumed: a graph has no ARG"),
        })
        .collect();
    Ok(Plan {
        graph,
        target,
        config,
        base_history,
        base_layers,
        history,
        warnings,
        epoch: super::epoch(wishes, None)?,
    })
}

/// What a command has of the image that it stands on, as RUN has it.
fn inherit(image: &ContainerConfig, env: &mut Vec<(String, String)>, working_dir: &mut String) {
    let inherited = image
        .env
        .iter()
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
        .chain([("PATH", DEFAULT_PATH)]);
    for (name, value) in inherited {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    if working_dir.is_empty() {
        *working_dir = super::join("/", &image.working_dir);
    }
}
