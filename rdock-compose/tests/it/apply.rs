//! What is told while a plan is carried out.

use rdock_compose::{ApplyError, ApplyEvent, ComposeProject, LoadOptions, Plan, Project};
use rdock_runtime::Runtime;
use std::sync::{Arc, Mutex};

/// A plan that pulls an image, in a runtime that has no source of images.
async fn pull(optional: bool) -> (Result<(), ApplyError>, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    let project =
        Project::load(&LoadOptions::new("/srv/shop").text("services: {web: {image: gone}}")).unwrap();
    let told = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&told);
    let runtime = Runtime::open(root.path()).unwrap();
    let compose = ComposeProject::new(&runtime, project).on_event(move |event| {
        heard.lock().unwrap().push(match event {
            ApplyEvent::Warning { step, message } => format!("warning: {}: {message}", step.operation),
            ApplyEvent::Failed { step, error } => format!("failed: {}: {error}", step.operation),
            ApplyEvent::Done { .. } => "done".to_owned(),
            _ => return,
        });
    });
    let plan: Plan = serde_json::from_value(serde_json::json!({
        "project": "shop",
        "steps": [{
            "id": 0,
            "operation": {"operation": "pull_image", "service": "web", "image": "gone", "optional": optional},
            "causes": [],
            "after": [],
        }],
        "orphans": [],
        "notes": [],
    }))
    .unwrap();
    let done = compose.apply(&plan).await;
    let told = told.lock().unwrap().clone();
    (done, told)
}

#[tokio::test]
async fn a_pull_that_may_fail_is_told_as_a_warning() {
    let (done, told) = pull(true).await;
    done.unwrap();
    let [warning, done] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert!(warning.starts_with("warning: pull image gone: "), "{told:?}");
    assert_eq!(done, "done");
}

#[tokio::test]
async fn a_pull_that_must_not_fail_is_an_error_with_its_cause() {
    let (done, told) = pull(false).await;
    let Err(ApplyError::Steps { failures, .. }) = &done else {
        panic!("{done:?}")
    };
    assert_eq!(failures.len(), 1);
    assert!(told[0].starts_with("failed: pull image gone: "), "{told:?}");
}
