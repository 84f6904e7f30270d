//! Graphs made in Rust.

use crate::bench::Bench;
use crate::{Tested, root_trial, trial};
use libtest_mimic::Trial;
use rdock_build::runtime::NetworkMode;
use rdock_build::{
    BuildError, BuildOutput, Builder, CacheFilter, Context, CopySource, CopyStep, Graph, Miss, Operation,
    RunStep, StepId, StepOutcome,
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        root_trial("a_graph_becomes_an_image", built),
        root_trial("a_graph_and_its_dockerfile_share_the_cache", shared_cache),
        root_trial("an_error_in_a_graph_names_the_step", failing),
        root_trial("a_graph_reads_the_context", context),
        trial("a_graph_that_cannot_be_is_refused", refused),
    ]
}

/// Two branches that stand on one image, and one file that is copied from the second onto the first.
fn branches() -> Tested<(Graph, StepId)> {
    let mut graph = Graph::new();
    let base = graph.add(Operation::image("base")?, "the base");
    let one = graph.add(RunStep::shell(base, "echo one > /one"), "make one");
    let two = graph.add(RunStep::shell(base, "echo two > /two"), "make two");
    // Never run: nothing needs it.
    graph.add(RunStep::shell(base, "exit 1"), "make nothing");
    let both = CopyStep::new(one, [CopySource::step(two, "/two")], "/two");
    let both = graph.add(both, "take two");
    Ok((graph, both))
}

const THE_SAME: &str = "FROM base AS one\nRUN echo one > /one\nFROM base AS two\nRUN echo two > /two\n\
    FROM one\nCOPY --from=two /two /two\n";

/// As [`Bench::build`], from a graph.
fn build(bench: &Bench, graph: Graph, target: StepId) -> Tested<(BuildOutput, crate::bench::Seen)> {
    bench.build_with(Builder::from_graph(graph, target).network(NetworkMode::None))
}

fn built() -> Tested {
    let bench = Bench::new()?;
    let (graph, target) = branches()?;
    let builder = Builder::from_graph(graph.clone(), target)
        .network(NetworkMode::None)
        .configure(|config| {
            config.cmd = Some(vec!["cat".to_owned(), "/one".to_owned()]);
            config.labels.insert("made".to_owned(), "by hand".to_owned());
        })
        .label("and", "labelled")
        .tag("graph:1");
    let steps = crate::bench::wait(builder.explain(&bench.runtime))??;
    assert_eq!(steps[1].outcome, StepOutcome::Missed { why: vec![Miss::New] });
    let (built, seen) = bench.build_with(builder)?;
    assert_eq!((seen.ran(), built.steps.len()), (3, 4));
    assert_eq!(bench.read(&built, "one")?, "one\n");
    assert_eq!(bench.read(&built, "two")?, "two\n");
    let image = bench.runtime.images().get("graph:1")?.ok_or("no image")?;
    let config = &image.config().config;
    assert_eq!(
        config.cmd.as_deref(),
        Some(&["cat".to_owned(), "/one".to_owned()][..])
    );
    assert_eq!(
        (config.labels["made"].as_str(), config.labels["and"].as_str()),
        ("by hand", "labelled")
    );
    // What the base has stays, and history has a line for every layer.
    assert!(config.env.iter().any(|entry| entry.starts_with("PATH=")));
    let lines: Vec<_> = image
        .config()
        .history
        .iter()
        .filter_map(|line| line.created_by.clone())
        .collect();
    assert_eq!(lines[lines.len() - 2..], ["make one", "take two"]);
    let layers = image
        .config()
        .history
        .iter()
        .filter(|line| !line.empty_layer)
        .count();
    assert_eq!(layers, image.diff_ids().len());
    let (_, seen) = build(&bench, graph, target)?;
    assert_eq!((seen.ran(), seen.cached()), (0, 3));
    bench.assert_clean()
}

fn shared_cache() -> Tested {
    let bench = Bench::new()?;
    bench.file("Dockerfile", THE_SAME)?;
    let (graph, target) = branches()?;
    let (by_file, seen) = bench.build(|builder| builder)?;
    assert_eq!(seen.ran(), 3);
    let (by_hand, seen) = build(&bench, graph.clone(), target)?;
    assert_eq!((seen.ran(), seen.cached()), (0, 3));
    assert_eq!(by_file.config.rootfs, by_hand.config.rootfs);
    // And the other way round.
    Builder::prune(&bench.runtime, &CacheFilter::default())?;
    let (_, seen) = build(&bench, graph.clone(), target)?;
    assert_eq!(seen.ran(), 3);
    let (_, seen) = bench.build(|builder| builder)?;
    assert_eq!((seen.ran(), seen.cached()), (0, 3));
    // The build's own wishes count as well.
    let (_, seen) = bench.build_with(
        Builder::from_graph(graph, target)
            .network(NetworkMode::None)
            .no_cache(true),
    )?;
    assert_eq!(seen.ran(), 3);
    Ok(())
}

fn failing() -> Tested {
    let bench = Bench::new()?;
    let mut graph = Graph::new();
    let base = graph.add(Operation::image("base")?, "the base");
    let fails = graph.add(RunStep::shell(base, "echo said; exit 9"), "compile it");
    let error = bench.fails_with(Builder::from_graph(graph.clone(), fails).network(NetworkMode::None))?;
    let text = error.to_string();
    assert_eq!(error.exit_code(), Some(9));
    assert!(
        text.starts_with("compile it: ") && text.contains("said"),
        "{text}"
    );
    assert!(error.place().is_none());
    let copy = CopyStep::new(base, [CopySource::step(base, "/nowhere")], "/x");
    let copy = graph.add(copy, "take nothing");
    let error = bench.fails_with(Builder::from_graph(graph.clone(), copy))?;
    assert!(error.to_string().starts_with("take nothing: "), "{error}");
    let absent = graph.add(Operation::image("absent:1")?, "no base");
    let error = bench.fails_with(Builder::from_graph(graph, absent))?;
    assert!(
        error.to_string().contains("no base: cannot get image absent:1"),
        "{error}"
    );
    bench.assert_clean()
}

fn context() -> Tested {
    let bench = Bench::new()?;
    bench.file("a", "a")?;
    bench.file("hidden", "x")?;
    bench.file(".dockerignore", "hidden")?;
    let mut graph = Graph::new();
    let nothing = graph.add(Operation::Scratch, "nothing");
    let copy = CopyStep::new(nothing, [CopySource::context("/")], "/in/");
    let copy = graph.add(copy, "take all");
    let builder = Builder::from_graph(graph.clone(), copy);
    let error = bench.fails_with(builder.clone())?;
    assert!(
        error.to_string().contains("\"take all\"") && error.to_string().contains("context"),
        "{error}"
    );
    let (built, _) = bench.build_with(builder.context(Context::Directory(bench.path(""))))?;
    assert_eq!(bench.read(&built, "in/a")?, "a");
    assert!(bench.read(&built, "in/hidden").is_err());
    Ok(())
}

fn refused() -> Tested {
    let dir = tempfile::tempdir()?;
    let runtime = rdock_build::runtime::Runtime::open(dir.path())?;
    let wrong = |graph: &Graph, target: StepId, reason: &str| -> Tested {
        let built = crate::bench::wait(Builder::from_graph(graph.clone(), target).build(&runtime))?;
        match built {
            Err(error @ BuildError::Graph { .. }) => {
                let text = error.to_string();
                assert!(text.contains("\"the step\"") && text.contains(reason), "{text}");
                Ok(())
            }
            other => Err(format!("{reason}: {other:?}").into()),
        }
    };
    let mut other = Graph::new();
    let foreign = other.add(Operation::Scratch, "elsewhere");
    let mut graph = Graph::new();
    let nothing = graph.add(Operation::Scratch, "nothing");
    let step = graph.add(RunStep::new(foreign, ["x"]), "the step");
    wrong(&graph, step, "of another graph")?;
    // Also where the target does not need it.
    wrong(&graph, nothing, "of another graph")?;
    assert!(graph.inputs(step).is_empty() && graph.inputs(foreign).is_empty());
    assert!(graph.reachable(foreign).is_empty());
    let target = crate::bench::wait(Builder::from_graph(graph.clone(), foreign).build(&runtime))?;
    assert!(
        matches!(target, Err(BuildError::Option { option: "graph", .. })),
        "{target:?}"
    );
    // A later one, by changing a step that is there.
    let mut graph = Graph::new();
    let nothing = graph.add(Operation::Scratch, "nothing");
    let step = graph.add(RunStep::new(nothing, ["x"]), "the step");
    let later = graph.add(Operation::Scratch, "later");
    for base in [later, step] {
        graph.step_mut(step).ok_or("no step")?.operation = RunStep::new(base, ["x"]).into();
        wrong(&graph, step, "not before it")?;
    }
    let mut with = |operation: Operation, reason: &str| -> Tested {
        graph.step_mut(step).ok_or("no step")?.operation = operation;
        wrong(&graph, step, reason)
    };
    with(RunStep::new(nothing, [""; 0]).into(), "no command")?;
    let mut run = RunStep::new(nothing, ["x"]);
    run.working_dir = "relative".to_owned();
    with(run.into(), "not absolute")?;
    with(CopyStep::new(nothing, [], "/x").into(), "no sources")?;
    let source = || [CopySource::step(nothing, "/x")];
    with(CopyStep::new(nothing, source(), "x").into(), "not absolute")?;
    with(
        CopyStep::new(nothing, [CopySource::context("x")], "/x").into(),
        "context",
    )?;
    Ok(())
}
