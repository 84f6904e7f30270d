//! Secrets and configs: files that the container has in memory.

use super::{Making, wrong};
use crate::model::{Grant, Project, Service};
use rdock_runtime::{ContainerSpec, Secret};
use std::path::Path;

/// Where the bytes come from, as secrets and configs say it alike.
struct Origin<'a> {
    /// `secrets` or `configs`.
    kind: &'a str,
    content: Option<&'a String>,
    environment: Option<&'a String>,
    file: Option<&'a String>,
}

pub(super) fn fill(spec: &mut ContainerSpec, making: &Making<'_>, service: &Service) -> Result<(), String> {
    let project = making.project;
    for grant in &service.secrets {
        let secret = project.secrets.get(&grant.source);
        let secret = secret
            .ok_or_else(|| wrong("secrets", format!("the project has no secret {:?}", grant.source)))?;
        let origin = Origin {
            kind: "secrets",
            content: None,
            environment: secret.environment.as_ref(),
            file: secret.file.as_ref(),
        };
        // A target without a slash is a file of /run/secrets.
        let target = grant.target.as_ref().unwrap_or(&grant.source);
        spec.secrets.push(granted(project, grant, &origin, target)?);
    }
    for grant in &service.configs {
        let config = project.configs.get(&grant.source);
        let config = config
            .ok_or_else(|| wrong("configs", format!("the project has no config {:?}", grant.source)))?;
        let origin = Origin {
            kind: "configs",
            content: config.content.as_ref(),
            environment: config.environment.as_ref(),
            file: config.file.as_ref(),
        };
        let target = grant.target.as_ref().unwrap_or(&grant.source);
        let target = match target.starts_with('/') {
            true => target.clone(),
            false => format!("/{target}"),
        };
        spec.secrets.push(granted(project, grant, &origin, &target)?);
    }
    Ok(())
}

fn granted(project: &Project, grant: &Grant, origin: &Origin<'_>, target: &str) -> Result<Secret, String> {
    let name = &grant.source;
    let attribute = format!("{}.{name}", origin.kind);
    let secret = if let Some(content) = origin.content {
        Secret::bytes(name, content.as_bytes())
    } else if let Some(variable) = origin.environment {
        let value = project.environment.get(variable);
        let value =
            value.ok_or_else(|| wrong(&attribute, format!("the variable {variable:?} is not set")))?;
        Secret::bytes(name, value.as_bytes())
    } else if let Some(file) = origin.file {
        // It may have become one since the file was loaded.
        if let Some(kind) = crate::load::irregular(Path::new(file)) {
            return Err(wrong(&attribute, format!("{file} is {kind}, not a file")));
        }
        Secret::file(name, file)
    } else {
        return Err(wrong(
            &attribute,
            "it is kept by something else, which is not known here",
        ));
    };
    let number = |what: &str, text: &Option<String>| -> Result<u32, String> {
        let text = text.as_deref().unwrap_or("0");
        text.parse().map_err(|_| {
            wrong(
                &format!("{attribute}.{what}"),
                format!("{text:?} is not a number"),
            )
        })
    };
    let mode = match grant.mode.as_deref() {
        None => 0o444,
        Some(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).map_err(|_| {
            wrong(
                &format!("{attribute}.mode"),
                format!("{text:?} is not an octal number"),
            )
        })?,
    };
    Ok(secret
        .at(target)
        .owner(number("uid", &grant.uid)?, number("gid", &grant.gid)?)
        .mode(mode))
}
