//! The health check of a container: the spec's over the image's over docker's defaults.

use super::Findings;
use crate::spec::{ContainerSpec, HealthTest, Ready};
use rdock_image::ImageConfig;
use std::time::Duration;

/// Docker's defaults: `interval` and `timeout`, `retries`.
const PERIOD: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
/// Docker refuses durations below it.
const SHORTEST: Duration = Duration::from_millis(1);

/// A health check with everything filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthPlan {
    /// What is executed.
    pub(crate) args: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    /// The longest pause before the first success.
    pub(crate) start_interval: Duration,
    pub(crate) retries: u32,
}

/// `None` when nothing is checked.
pub(super) fn health(
    spec: &ContainerSpec,
    image: &ImageConfig,
    findings: &mut Findings,
) -> Option<HealthPlan> {
    let plan = resolve(spec, image, findings);
    if plan.is_none()
        && let Some(index) = spec.ready.iter().position(|ready| *ready == Ready::Healthy)
    {
        findings.add(
            format!("ready[{index}]"),
            "neither the spec nor the image has a health check",
        );
    }
    plan
}

fn resolve(spec: &ContainerSpec, image: &ImageConfig, findings: &mut Findings) -> Option<HealthPlan> {
    let own = spec.health.clone().unwrap_or_default();
    let of_image = image.config.healthcheck.clone().unwrap_or_default();
    let shell = |text: &str| {
        let mut args = match &image.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        args.push(text.to_owned());
        args
    };
    let args = match &own.test {
        HealthTest::None => return None,
        HealthTest::Command(args) => args.clone(),
        HealthTest::Shell(text) => shell(text),
        HealthTest::Image => match of_image.test.split_first() {
            Some((kind, args)) if kind == "CMD" => args.to_vec(),
            Some((kind, args)) if kind == "CMD-SHELL" => shell(&args.join(" ")),
            Some((kind, _)) if kind == "NONE" => return None,
            Some((kind, _)) => {
                findings.add(
                    "image.healthcheck",
                    format!("{kind:?} is not CMD, CMD-SHELL or NONE"),
                );
                return None;
            }
            None => return None,
        },
    };
    if args.first().is_none_or(String::is_empty) {
        findings.add("health.test", "no command");
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        findings.add("health.test", "a NUL byte cannot be in an argument");
    }
    let nanoseconds = |value: i64| {
        u64::try_from(value)
            .ok()
            .filter(|value| *value > 0)
            .map(Duration::from_nanos)
    };
    for (field, value) in [
        ("health.interval", own.interval),
        ("health.timeout", own.timeout),
        ("health.start_interval", own.start_interval),
    ] {
        if value.is_some_and(|value| value < SHORTEST) {
            findings.add(field, "it cannot be less than 1ms");
        }
    }
    if own.retries == Some(0) {
        findings.add("health.retries", "it cannot be 0");
    }
    let interval = own.interval.or(nanoseconds(of_image.interval)).unwrap_or(PERIOD);
    let start_interval = own.start_interval.or(nanoseconds(of_image.start_interval));
    Some(HealthPlan {
        args,
        interval,
        timeout: own.timeout.or(nanoseconds(of_image.timeout)).unwrap_or(PERIOD),
        start_period: own
            .start_period
            .or(nanoseconds(of_image.start_period))
            .unwrap_or_default(),
        start_interval: start_interval.unwrap_or(interval),
        retries: own
            .retries
            .or(u32::try_from(of_image.retries).ok().filter(|count| *count > 0))
            .unwrap_or(RETRIES),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::HealthCheck;
    use rdock_image::Healthcheck;

    fn planned(spec: Option<HealthCheck>, image: Option<Healthcheck>) -> (Option<HealthPlan>, Vec<String>) {
        let mut config = ImageConfig::default();
        config.config.healthcheck = image;
        let spec = ContainerSpec {
            health: spec,
            ..ContainerSpec::default()
        };
        let mut findings = Findings::default();
        let plan = health(&spec, &config, &mut findings);
        let fields = findings.0.into_iter().map(|finding| finding.field);
        (plan, fields.collect())
    }

    #[test]
    fn the_spec_is_laid_over_the_image() {
        let image = Healthcheck {
            test: vec!["CMD-SHELL".into(), "curl -f http://localhost/".into()],
            interval: 5_000_000_000,
            retries: 7,
            ..Healthcheck::default()
        };
        assert_eq!(planned(None, None).0, None);
        let plan = planned(None, Some(image.clone())).0.expect("the image's");
        assert_eq!(plan.args, ["/bin/sh", "-c", "curl -f http://localhost/"]);
        assert_eq!(plan.interval, Duration::from_secs(5));
        assert_eq!(plan.start_interval, Duration::from_secs(5));
        assert_eq!((plan.timeout, plan.retries), (PERIOD, 7));
        let own = HealthCheck::default().interval(Duration::from_secs(1)).retries(2);
        let plan = planned(Some(own), Some(image.clone())).0.expect("both");
        assert_eq!((plan.interval.as_secs(), plan.retries), (1, 2));
        assert_eq!(planned(Some(HealthCheck::none()), Some(image)).0, None);
        let none = Healthcheck {
            test: vec!["NONE".into()],
            ..Healthcheck::default()
        };
        assert_eq!(planned(None, Some(none)).0, None);
    }

    #[test]
    fn what_is_wrong_is_said_by_field() {
        let own = HealthCheck::command(Vec::<String>::new())
            .retries(0)
            .timeout(Duration::ZERO);
        let (_, fields) = planned(Some(own), None);
        assert_eq!(fields, ["health.test", "health.timeout", "health.retries"]);
    }
}
