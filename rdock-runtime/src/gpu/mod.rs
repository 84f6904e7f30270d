//! GPUs that a container asks for: by the host's CDI specification, else by what NVIDIA's driver has put on the host.

mod nvidia;

use crate::cdi::{CdiError, Edited, Registry};
use crate::spec::{CdiDevice, GpuCount, GpuRequest};
use crate::warning::Warning;
use nvidia::Driver;
use std::path::Path;

/// Parts of NVIDIA's driver, by the words of `NVIDIA_DRIVER_CAPABILITIES`.
const DRIVER_CAPABILITIES: [&str; 7] = [
    "compute", "utility", "video", "graphics", "display", "ngx", "compat32",
];

/// What a container gets without a word about it, as with NVIDIA's own tools.
const DEFAULT_CAPABILITIES: [&str; 2] = ["compute", "utility"];

/// Adds what the requests need. `variable` is one of the container's, `owner` are the ids of its user.
///
/// # Errors
/// When there is no such GPU, or no driver for it.
pub(crate) fn add(
    edited: &mut Edited,
    registry: &Registry,
    requests: &[GpuRequest],
    variable: impl Fn(&str) -> Option<String>,
    owner: (u32, u32),
) -> Result<(), CdiError> {
    add_at(edited, registry, requests, variable, owner, Path::new("/"))
}

/// The same for a host whose files are below `host`.
fn add_at(
    edited: &mut Edited,
    registry: &Registry,
    requests: &[GpuRequest],
    variable: impl Fn(&str) -> Option<String>,
    owner: (u32, u32),
    host: &Path,
) -> Result<(), CdiError> {
    for request in requests {
        if !request.options.is_empty() {
            let names: Vec<_> = request.options.keys().cloned().collect();
            edited.warnings.push(Warning::GpuOptionsIgnored { names });
        }
        let known = |word: &String| {
            ["gpu", "nvidia", "amd"].contains(&word.as_str()) || DRIVER_CAPABILITIES.contains(&word.as_str())
        };
        let driver = request.driver.as_deref().unwrap_or_default();
        let none = |reason: String| CdiError::NoGpuDriver {
            driver: driver.to_owned(),
            capabilities: request.capabilities.clone(),
            reason,
        };
        if driver == "cdi" {
            for name in &request.ids {
                let device = CdiDevice::parse(name).map_err(|error| none(error.to_string()))?;
                edited.add(registry, &device, owner)?;
            }
            continue;
        }
        if let Some(unknown) = request.capabilities.iter().find(|word| !known(word)) {
            return Err(none(format!("no driver has the capability {unknown:?}")));
        }
        if request.ids.is_empty() && request.count == Some(GpuCount::Number(0)) {
            continue;
        }
        let kinds: &[&str] = match driver {
            "" => &["nvidia.com/gpu", "amd.com/gpu"],
            "nvidia" => &["nvidia.com/gpu"],
            "amd" => &["amd.com/gpu"],
            other => return Err(none(format!("the driver {other:?} is not known"))),
        };
        let described = kinds.iter().find(|kind| registry.has_kind(kind));
        // Two makers' devices on one host: the driver that is there without a file comes first, as in docker.
        if let Some(kind) = described.filter(|kind| **kind == kinds[0]) {
            by_registry(edited, registry, request, kind, owner)?;
            continue;
        }
        if driver != "amd"
            && let Some(found) = Driver::find(host).map_err(none)?
        {
            let capabilities = driver_capabilities(request, &variable);
            found.add(edited, request, &capabilities)?;
            continue;
        }
        match described {
            Some(kind) => by_registry(edited, registry, request, kind, owner)?,
            None => {
                let missing = match driver {
                    "amd" => "no CDI specification describes amd.com/gpu",
                    _ => {
                        "NVIDIA's driver is not loaded (no /proc/driver/nvidia/version), and no CDI specification \
                         describes a GPU"
                    }
                };
                return Err(none(missing.into()));
            }
        }
    }
    Ok(())
}

/// The devices of a kind that is described.
fn by_registry(
    edited: &mut Edited,
    registry: &Registry,
    request: &GpuRequest,
    kind: &str,
    owner: (u32, u32),
) -> Result<(), CdiError> {
    let names = registry.names(kind);
    let missing = |id: &str| CdiError::NoSuchGpu {
        id: id.to_owned(),
        present: format!("{kind}={}", names.join(", ")),
    };
    let wanted: Vec<String> = match (&request.ids[..], request.count.unwrap_or(GpuCount::Number(1))) {
        ([], GpuCount::All) if names.iter().any(|name| name == "all") => vec!["all".into()],
        ([], GpuCount::All) => names.clone(),
        ([], GpuCount::Number(count)) => (0..count).map(|index| index.to_string()).collect(),
        (ids, _) => ids.to_vec(),
    };
    for id in &wanted {
        // A name that is no name of a device names none.
        let device = CdiDevice::parse(&format!("{kind}={id}")).map_err(|_| missing(id))?;
        if !names.contains(id) {
            return Err(missing(id));
        }
        edited.add(registry, &device, owner)?;
    }
    Ok(())
}

/// The parts of the driver a container gets: as the request says, else as the container's variable does.
fn driver_capabilities(request: &GpuRequest, variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let known = |word: &str| DRIVER_CAPABILITIES.contains(&word);
    let asked: Vec<String> = request
        .capabilities
        .iter()
        .filter(|word| known(word))
        .cloned()
        .collect();
    if !asked.is_empty() {
        return asked;
    }
    let words = variable("NVIDIA_DRIVER_CAPABILITIES").unwrap_or_default();
    let words: Vec<&str> = words.split(',').map(str::trim).collect();
    if words.contains(&"all") {
        return DRIVER_CAPABILITIES.map(str::to_owned).to_vec();
    }
    let said: Vec<String> = words
        .into_iter()
        .filter(|word| known(word))
        .map(str::to_owned)
        .collect();
    match said.is_empty() {
        true => DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
        false => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(dir: &Path, kind: &str, names: &[&str]) -> Registry {
        let devices: String = names
            .iter()
            .map(|name| format!("- name: \"{name}\"\n  containerEdits: {{env: [\"GOT_{name}=1\"]}}\n"))
            .collect();
        let text = format!("cdiVersion: 0.6.0\nkind: {kind}\ndevices:\n{devices}");
        std::fs::write(dir.join("gpu.yaml"), text).expect("write");
        Registry::read(&[dir.to_owned()])
    }

    fn names(registry: &Registry, requests: &[GpuRequest]) -> Result<Vec<String>, CdiError> {
        let nothing = tempfile::tempdir().expect("dir");
        let mut edited = Edited::default();
        add_at(&mut edited, registry, requests, |_| None, (0, 0), nothing.path())?;
        Ok(edited.env.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn a_specification_of_the_host_says_what_a_gpu_is() {
        let dir = tempfile::tempdir().expect("dir");
        let three = registry(dir.path(), "nvidia.com/gpu", &["0", "1", "GPU-abc"]);
        let table = [
            (GpuRequest::all(), vec!["GOT_0", "GOT_1", "GOT_GPU-abc"]),
            (GpuRequest::default(), vec!["GOT_0"]),
            (GpuRequest::count(2), vec!["GOT_0", "GOT_1"]),
            (GpuRequest::count(0), vec![]),
            (
                GpuRequest::ids(["1", "GPU-abc", "1"]),
                vec!["GOT_1", "GOT_GPU-abc"],
            ),
            (GpuRequest::ids(["nvidia.com/gpu=1"]).driver("cdi"), vec!["GOT_1"]),
            (
                GpuRequest::all().driver("nvidia").capability("compute"),
                vec!["GOT_0", "GOT_1", "GOT_GPU-abc"],
            ),
        ];
        for (request, expected) in table {
            assert_eq!(names(&three, &[request]).expect("found"), expected);
        }
        for request in [
            GpuRequest::count(3),
            GpuRequest::ids(["7"]),
            GpuRequest::ids(["a b"]),
        ] {
            match names(&three, &[request]) {
                Err(CdiError::NoSuchGpu { present, .. }) => {
                    assert_eq!(present, "nvidia.com/gpu=0, 1, GPU-abc");
                }
                other => panic!("{other:?}"),
            }
        }
        let all = registry(dir.path(), "nvidia.com/gpu", &["0", "all"]);
        assert_eq!(names(&all, &[GpuRequest::all()]).expect("all"), ["GOT_all"]);
        let amd = registry(dir.path(), "amd.com/gpu", &["0"]);
        assert_eq!(names(&amd, &[GpuRequest::all()]).expect("amd"), ["GOT_0"]);
        assert_eq!(
            names(&amd, &[GpuRequest::all().driver("amd")]).expect("amd"),
            ["GOT_0"]
        );
    }

    #[test]
    fn without_a_gpu_the_error_is_dockers() {
        let none = Registry::default();
        let error = names(&none, &[GpuRequest::all()]).expect_err("no GPU");
        let text = error.to_string();
        assert!(
            text.starts_with("could not select device driver \"\" with capabilities: [[gpu]]"),
            "{text}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("/etc/cdi")));
        for request in [
            GpuRequest::all().driver("acme"),
            GpuRequest::all().driver("amd"),
            GpuRequest::all().capability("tpu"),
            GpuRequest::ids(["no name"]).driver("cdi"),
        ] {
            assert!(matches!(
                names(&none, &[request]),
                Err(CdiError::NoGpuDriver { .. })
            ));
        }
        match names(&none, &[GpuRequest::ids(["v.com/c=x"]).driver("cdi")]) {
            Err(CdiError::NoSuchDevice { device, .. }) => assert_eq!(device.to_string(), "v.com/c=x"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parts_of_the_driver_are_those_of_the_request_then_of_the_container() {
        let parts = |request: &GpuRequest, said: &str| {
            driver_capabilities(request, |name| {
                (name == "NVIDIA_DRIVER_CAPABILITIES").then(|| said.to_owned())
            })
            .join(",")
        };
        let all = GpuRequest::all();
        assert_eq!(parts(&all, ""), "compute,utility");
        assert_eq!(parts(&all, "video, utility,unknown"), "video,utility");
        assert_eq!(parts(&all, "all").split(',').count(), DRIVER_CAPABILITIES.len());
        assert_eq!(parts(&all.capability("ngx"), "all"), "ngx");
    }
}
