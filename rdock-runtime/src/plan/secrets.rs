//! Secrets and configs are checked by name and place; what they hold is not looked at here.

use super::mounts::clean;
use super::{Findings, PlannedMount};
use crate::spec::{ContainerSpec, SecretTarget};

/// Most secrets of one container.
const MOST: usize = 256;

pub(super) fn check(spec: &ContainerSpec, mounts: &[PlannedMount], single_id: bool, findings: &mut Findings) {
    if spec.secrets.len() > MOST {
        findings.add("secrets", format!("more than {MOST}"));
    }
    let mut targets: Vec<String> = Vec::new();
    for (index, secret) in spec.secrets.iter().enumerate() {
        let field = format!("secrets[{index}]");
        if secret.name.is_empty() || secret.name.contains('\0') {
            findings.add(
                format!("{field}.name"),
                format!("{:?} is not a name", secret.name),
            );
        }
        match &secret.target {
            SecretTarget::Variable { name } => {
                if name.is_empty() || name.contains(['=', '\0']) {
                    findings.add(
                        format!("{field}.target"),
                        format!("{name:?} is not the name of a variable"),
                    );
                }
            }
            SecretTarget::File { path, uid, gid, mode } => {
                let target = clean(path);
                let field = format!("{field}.target");
                let below = |system: &str| {
                    target
                        .strip_prefix(system)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                if !path.starts_with('/') || path.contains('\0') || target == "/" || path.ends_with('/') {
                    findings.add(&field, format!("{path:?} is not the absolute path of a file"));
                } else if ["/proc", "/sys"].into_iter().any(below) {
                    findings.add(&field, format!("{target} is in a file system of the kernel"));
                } else if targets.contains(&target) || mounts.iter().any(|mount| mount.target == target) {
                    findings.add(&field, format!("{target} is mounted twice"));
                }
                if *mode > 0o7777 {
                    findings.add(&field, "the mode is beyond 7777");
                }
                if single_id && (*uid, *gid) != (0, 0) {
                    findings.add(
                        &field,
                        "without root and subordinate ids the container has id 0 alone",
                    );
                }
                targets.push(target);
            }
        }
    }
}
