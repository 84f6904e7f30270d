//! Programs that provide services: what they are asked, what becomes of what they say.

use rdock_compose::plan::{DownOptions, Existing, Operation, ProviderAction, UpOptions};
use rdock_compose::{
    ApplyError, ApplyEvent, ComposeProject, LoadOptions, Plan, Policy, Project, ProviderMessage, StepError,
};
use rdock_runtime::Runtime;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const FILE: &str = "
name: shop
services:
  db:
    provider: {type: cloud, options: {size: 2, name: [a, b]}}
  web: {image: x, depends_on: [db], environment: {KEPT: mine, TAKEN: mine}}
  other: {image: x, environment: {KEPT: mine}}
";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(script: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        place.program("cloud", script);
        place
    }

    /// Written by another process: a file that a child forked meanwhile still has open for writing cannot be run.
    fn program(&self, name: &str, script: &str) {
        let mut writer = Command::new("sh")
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(self.dir.path().join(name))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("#!/bin/sh\n{script}\n");
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn options(&self, text: &str) -> LoadOptions {
        let path = format!(
            "{}:{}",
            self.path().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        LoadOptions::new(self.path()).text(text).variable("PATH", path)
    }

    /// What was said, and the project in a runtime of its own.
    fn compose(&self, text: &str) -> (ComposeProject, Arc<Mutex<Vec<String>>>) {
        let project = Project::load(&self.options(text)).unwrap();
        let runtime = Runtime::open(self.path().join("root")).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let compose = ComposeProject::new(&runtime, project).on_event(move |event| {
            let line = match event {
                ApplyEvent::Provider { message, .. } => match message {
                    ProviderMessage::Info(text) => format!("info: {text}"),
                    ProviderMessage::Debug(text) => format!("debug: {text}"),
                    _ => return,
                },
                ApplyEvent::Warning { message, .. } => format!("warning: {message}"),
                _ => return,
            };
            heard.lock().unwrap().push(line);
        });
        (compose, told)
    }

    /// What the program was called with, a line a call.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn reason(error: &ApplyError) -> String {
    match error {
        ApplyError::Steps { failures, .. } => match &failures[0].error {
            error @ StepError::Provider { .. } => error.to_string(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

const TALKS: &str = r#"
echo "$*" >>calls
[ "$2" = metadata ] && exit 1
echo '{"type": "info", "message": "25%"}'
echo '{"type":"debug","message":"in its depths"}{"type":"setenv","message":"URL=http://a=b"}'
echo '{"type": "rawsetenv", "message": "TAKEN=theirs"}'
"#;

#[tokio::test]
async fn a_program_is_asked_and_its_variables_reach_those_that_need_it() {
    let place = Place::new(TALKS);
    let (compose, told) = place.compose(FILE);
    let provided = compose.provide(&UpOptions::default()).await.unwrap();
    assert_eq!(
        place.calls(),
        [
            "compose metadata",
            "compose --project-name=shop up --name=a --name=b --size=2 db"
        ]
    );
    assert_eq!(
        *told.lock().unwrap(),
        [
            "info: 25%",
            "debug: in its depths",
            "warning: the provider overrides TAKEN of the service web"
        ]
    );
    let variables = |service: &str| {
        let found = &provided.project().services[service].environment;
        let found = found.iter();
        let found = found.map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or_default()));
        found.collect::<Vec<_>>()
    };
    let mut of_web = variables("web");
    of_web.sort();
    assert_eq!(of_web, ["DB_URL=http://a=b", "KEPT=mine", "TAKEN=theirs"]);
    assert_eq!(variables("other"), ["KEPT=mine"]);
    // The file's project stays as it was.
    assert!(
        !compose.project().services["web"]
            .environment
            .contains_key("DB_URL")
    );
}

#[tokio::test]
async fn a_program_that_says_its_options_gets_those_alone() {
    let place = Place::new(
        r#"
echo "$*" >>calls
if [ "$2" = metadata ]; then
    echo '{"description": "A cloud", "up": {"parameters": [{"name": "size", "required": true}]},
           "down": {"parameters": []}, "stop": {}}'
fi
"#,
    );
    let (compose, _) = place.compose(FILE);
    compose.provide(&UpOptions::default()).await.unwrap();
    let project = compose.project();
    let stop = Plan::stop("shop", Some(project), &Existing::default(), &[], None);
    compose.apply(&stop).await.unwrap();
    let down = Plan::down(
        "shop",
        Some(project),
        &Existing::default(),
        &DownOptions::default(),
    );
    compose.apply(&down).await.unwrap();
    let calls = place.calls();
    let calls: Vec<&String> = calls.iter().filter(|call| !call.ends_with("metadata")).collect();
    assert_eq!(
        calls,
        [
            "compose --project-name=shop up --size=2 db",
            "compose --project-name=shop stop db",
            "compose --project-name=shop down db"
        ]
    );
    let text = "name: shop\nservices: {db: {provider: {type: cloud}}}";
    let (compose, _) = place.compose(text);
    let error = compose.provide(&UpOptions::default()).await.unwrap_err();
    assert!(reason(&error).contains("\"size\" is missing"), "{error}");
}

#[tokio::test]
async fn a_program_that_does_not_know_stop_is_not_asked() {
    let place = Place::new(TALKS);
    let (compose, _) = place.compose(FILE);
    let stop = Plan::stop("shop", Some(compose.project()), &Existing::default(), &[], None);
    compose.apply(&stop).await.unwrap();
    assert_eq!(place.calls(), ["compose metadata"]);
}

#[tokio::test]
async fn what_goes_wrong_names_the_service_and_what_the_program_said() {
    for (script, expected) in [
        (
            r#"echo '{"type": "error", "message": "no credit"}'; exec sleep 60"#,
            "no credit",
        ),
        ("echo it rains >&2; exit 3", "up failed, exit status: 3: it rains"),
        ("echo not json; exec sleep 60", "it said what is no message"),
        (
            r#"echo '{"type": "song", "message": "la"}'; exec sleep 60"#,
            "\"song\"",
        ),
        (
            r#"echo '{"type": "setenv", "message": "=x"}'; exec sleep 60"#,
            "is not NAME=VALUE",
        ),
    ] {
        let place = Place::new(&format!("[ \"$2\" = metadata ] && exit 1\n{script}"));
        let (compose, _) = place.compose(FILE);
        let error = compose.provide(&UpOptions::default()).await.unwrap_err();
        let reason = reason(&error);
        assert!(
            reason.starts_with("services.db: the provider \"cloud\": "),
            "{reason}"
        );
        assert!(reason.contains(expected), "{reason}");
    }
    let place = Place::new("exit 0");
    for (kind, expected) in [
        (
            "nowhere",
            "neither a plug-in docker-nowhere nor a program nowhere in PATH",
        ),
        ("compose", "not the type of a provider"),
        ("./nowhere", "nowhere is not a program"),
    ] {
        let text = FILE.replace("type: cloud", &format!("type: {kind}"));
        let (compose, _) = place.compose(&text);
        let error = compose.provide(&UpOptions::default()).await.unwrap_err();
        assert!(reason(&error).contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_program_ends_when_nobody_waits_for_it() {
    let place = Place::new(
        r#"
[ "$2" = metadata ] && exit 1
exec 9>lock
flock 9
echo '{"type": "info", "message": "begun"}'
exec sleep 100
"#,
    );
    let (compose, told) = place.compose(FILE);
    let options = UpOptions::default();
    let mut work = Box::pin(compose.provide(&options));
    let begun = async {
        while told.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        done = &mut work => panic!("{:?}", done.map(drop)),
        () = begun => {}
    }
    drop(work);
    // The lock is free when the program is gone.
    let file = std::fs::File::open(place.path().join("lock")).unwrap();
    tokio::task::spawn_blocking(move || file.lock())
        .await
        .unwrap()
        .unwrap();
}

#[test]
fn those_that_need_others_come_after_them_and_go_before_them() {
    let place = Place::new("");
    let text = "
name: shop
services:
  net: {provider: {type: cloud}}
  db: {provider: {type: cloud}, depends_on: [net]}
  web: {image: x, depends_on: [db]}
";
    let project = Project::load(&place.options(text)).unwrap();
    let steps = |plan: &Plan| -> Vec<(String, ProviderAction, Vec<usize>)> {
        let steps = plan.steps.iter().filter_map(|step| match &step.operation {
            Operation::RunProvider { service, action } => {
                Some((service.clone(), *action, step.after.iter().copied().collect()))
            }
            _ => None,
        });
        steps.collect()
    };
    let up = Plan::providers(&project, &UpOptions::default()).unwrap();
    let asked = |service: &str, action, after: &[usize]| (service.to_owned(), action, after.to_vec());
    assert_eq!(
        steps(&up),
        [
            asked("net", ProviderAction::Up, &[]),
            asked("db", ProviderAction::Up, &[0])
        ]
    );
    let down = Plan::down(
        "shop",
        Some(&project),
        &Existing::default(),
        &DownOptions::default(),
    );
    assert_eq!(
        steps(&down),
        [
            asked("db", ProviderAction::Down, &[]),
            asked("net", ProviderAction::Down, &[0])
        ]
    );
    let mut one = UpOptions::default();
    one.services = vec!["net".to_owned()];
    assert_eq!(steps(&Plan::providers(&project, &one).unwrap()).len(), 1);
}

#[test]
fn cmp_policy_programs_of_the_host_are_not_run_for_an_untrusted_file() {
    let place = Place::new("");
    let mut options = place.options("services: {db: {provider: {type: cloud}}}");
    options.project_name = Some("p".to_owned());
    let mut policy = Policy::deny();
    policy.weaker_confinement = true;
    let refused = Project::load_untrusted(&options, &policy).unwrap_err();
    assert!(refused.to_string().contains("services.db.provider"), "{refused}");
    policy.providers.insert("cloud".to_owned());
    Project::load_untrusted(&options, &policy).unwrap();
}
