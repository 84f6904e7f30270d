//! NVIDIA's driver on a host that has no CDI specification: what its files and its part of `/proc` say.
//!
//! A container gets the nodes of its GPUs, the driver's libraries and tools at their places on the host, read-only,
//! the links by which programs find the libraries, and the variables that say what it got. Which libraries belong to
//! which part of the driver is in NVIDIA's documentation of `NVIDIA_DRIVER_CAPABILITIES` and of the driver's files.

use crate::cdi::{CdiError, Edited};
use crate::launch::{DevicePlan, LinkPlan, MountFlags, MountKind, MountPlan};
use crate::plan;
use crate::spec::{DeviceAccess, GpuCount, GpuRequest};
use crate::warning::Warning;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Libraries by the part of the driver they belong to, without `.so` and versions.
const LIBRARIES: [(&str, &[&str]); 6] = [
    ("utility", &["libnvidia-ml", "libnvidia-cfg", "libnvidia-nscq"]),
    (
        "compute",
        &[
            "libcuda",
            "libcudadebugger",
            "libnvidia-ptxjitcompiler",
            "libnvidia-nvvm",
            "libnvidia-nvvm70",
            "libnvidia-fatbinaryloader",
            "libnvidia-compiler",
            "libnvidia-opencl",
            "libnvidia-gpucomp",
            "libnvidia-allocator",
            "libnvidia-pkcs11",
            "libnvidia-pkcs11-openssl3",
            "libnvidia-sandboxutils",
            "libnvidia-tileiras",
        ],
    ),
    (
        "video",
        &[
            "libnvidia-encode",
            "libnvcuvid",
            "libnvidia-opticalflow",
            "libvdpau_nvidia",
        ],
    ),
    (
        "graphics",
        &[
            "libGLX_nvidia",
            "libEGL_nvidia",
            "libGLESv1_CM_nvidia",
            "libGLESv2_nvidia",
            "libnvidia-glcore",
            "libnvidia-eglcore",
            "libnvidia-glsi",
            "libnvidia-tls",
            "libnvidia-fbc",
            "libnvidia-rtcore",
            "libnvidia-glvkspirv",
            "libnvidia-gpucomp",
            "libnvidia-allocator",
            "libnvoptix",
        ],
    ),
    ("display", &["libnvidia-tls", "libnvidia-glsi"]),
    ("ngx", &["libnvidia-ngx"]),
];

/// Programs, likewise.
const PROGRAMS: [(&str, &[&str]); 2] = [
    (
        "utility",
        &["nvidia-smi", "nvidia-debugdump", "nvidia-persistenced"],
    ),
    ("compute", &["nvidia-cuda-mps-control", "nvidia-cuda-mps-server"]),
];

/// Sockets of the driver's services that its libraries talk to.
const SOCKETS: [&str; 2] = [
    "/run/nvidia-persistenced/socket",
    "/run/nvidia-fabricmanager/socket",
];

/// Where libraries are beside the directories of the loader's cache.
const LIBRARY_DIRECTORIES: [&str; 7] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/run/opengl-driver/lib",
];

/// Where programs are.
const PROGRAM_DIRECTORIES: [&str; 6] = [
    "/usr/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/bin",
    "/usr/local/nvidia/bin",
    "/run/current-system/sw/bin",
];

/// Bytes of the loader's cache that are looked at.
const LARGEST_CACHE: u64 = 16 << 20;

/// The driver of a running kernel.
#[derive(Debug)]
pub(super) struct Driver {
    /// The top of the host's files.
    host: PathBuf,
    /// In the order of the PCI bus, which is that of their indexes.
    gpus: Vec<Gpu>,
}

#[derive(Debug, PartialEq, Eq)]
struct Gpu {
    uuid: String,
    /// Of its node.
    minor: u32,
}

impl Driver {
    /// The driver, when it is loaded.
    ///
    /// # Errors
    /// In words, when it is loaded and cannot be used.
    pub(super) fn find(host: &Path) -> Result<Option<Self>, String> {
        let proc = host.join("proc/driver/nvidia");
        if !proc.join("version").exists() {
            return Ok(None);
        }
        if !host.join("dev/nvidiactl").exists() {
            return Err(
                "NVIDIA's driver is loaded, and its node /dev/nvidiactl is missing (nvidia-modprobe makes it)".into(),
            );
        }
        let mut addresses: Vec<PathBuf> = std::fs::read_dir(proc.join("gpus"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        addresses.sort();
        let mut gpus = Vec::new();
        for address in addresses {
            let path = address.join("information");
            let text =
                std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            gpus.extend(gpu(&text));
        }
        Ok(Some(Self {
            host: host.to_owned(),
            gpus,
        }))
    }

    /// Adds what a request needs.
    ///
    /// # Errors
    /// [`CdiError::NoSuchGpu`], and when a node cannot be used.
    pub(super) fn add(
        &self,
        edited: &mut Edited,
        request: &GpuRequest,
        capabilities: &[String],
    ) -> Result<(), CdiError> {
        let (chosen, visible) = self.choose(request)?;
        let has = |part: &str| capabilities.iter().any(|own| own == part);
        let mut nodes = vec!["nvidiactl".to_owned()];
        for name in ["nvidia-uvm", "nvidia-uvm-tools"] {
            match self.host.join("dev").join(name).exists() {
                true => nodes.push(name.into()),
                false if has("compute") => edited.warnings.push(Warning::GpuPartMissing {
                    what: format!("/dev/{name}"),
                }),
                false => {}
            }
        }
        if has("graphics") || has("display") {
            nodes.push("nvidia-modeset".into());
        }
        nodes.extend(chosen.iter().map(|gpu| format!("nvidia{}", gpu.minor)));
        for name in nodes {
            match self.node(&name) {
                Ok(device) => edited.set_device(device, DeviceAccess::ALL),
                // A host without a display has none.
                Err(_) if name == "nvidia-modeset" => {}
                Err(error) => {
                    return Err(CdiError::NoSuchGpu {
                        id: visible,
                        present: format!("no usable /dev/{name}: {error}"),
                    });
                }
            }
        }
        self.add_libraries(edited, capabilities);
        self.add_programs(edited, capabilities);
        for path in SOCKETS {
            if self.host.join(&path[1..]).exists() {
                self.bind(edited, Path::new(path), Path::new(path));
            }
        }
        edited.set_env("NVIDIA_VISIBLE_DEVICES", &visible);
        edited.set_env("NVIDIA_DRIVER_CAPABILITIES", &capabilities.join(","));
        Ok(())
    }

    /// The GPUs of a request, and the word for them.
    fn choose(&self, request: &GpuRequest) -> Result<(Vec<&Gpu>, String), CdiError> {
        let missing = |id: String| CdiError::NoSuchGpu {
            id,
            present: match self.gpus.len() {
                0 => "none".into(),
                count => {
                    let uuids: Vec<_> = self.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
                    format!("{count}: {}", uuids.join(", "))
                }
            },
        };
        let all = |id: &str| match self.gpus.is_empty() {
            true => Err(missing(id.to_owned())),
            false => Ok((self.gpus.iter().collect(), "all".to_owned())),
        };
        let ids: Vec<String> = match (&request.ids[..], request.count.unwrap_or(GpuCount::Number(1))) {
            ([], GpuCount::All) => return all("all"),
            ([], GpuCount::Number(count)) if count as usize > self.gpus.len() => {
                return Err(missing(format!("{count} of them")));
            }
            ([], GpuCount::Number(count)) => (0..count).map(|index| index.to_string()).collect(),
            (ids, _) if ids.iter().any(|id| id == "all") => return all("all"),
            (ids, _) => ids.to_vec(),
        };
        let mut chosen: Vec<&Gpu> = Vec::new();
        for id in &ids {
            let by_index = || id.parse::<usize>().ok().and_then(|index| self.gpus.get(index));
            // As nvidia-smi: the beginning of a UUID is enough when it is one GPU's.
            let mut by_uuid = self.gpus.iter().filter(|gpu| gpu.uuid.starts_with(id.as_str()));
            let found = match id.starts_with("GPU-") {
                true => match (by_uuid.next(), by_uuid.next()) {
                    (Some(gpu), None) => Some(gpu),
                    _ => None,
                },
                false => by_index(),
            };
            let gpu = found.ok_or_else(|| missing(id.clone()))?;
            if !chosen.contains(&gpu) {
                chosen.push(gpu);
            }
        }
        Ok((chosen, ids.join(",")))
    }

    fn node(&self, name: &str) -> std::io::Result<DevicePlan> {
        let source = self.host.join("dev").join(name);
        let mut device = plan::devices::node(&source)?;
        device.path = Path::new("/dev").join(name);
        Ok(device)
    }

    /// A file of the host at `path`, read-only at `target`. One that is gone meanwhile is not there.
    fn bind(&self, edited: &mut Edited, path: &Path, target: &Path) {
        let source = self.host.join(path.strip_prefix("/").unwrap_or(path));
        if let Ok(mut kind) = plan::bind(source) {
            if let MountKind::Bind(bind) = &mut kind {
                bind.recursive = false;
            }
            let flags = MountFlags {
                read_only: true,
                no_suid: true,
                no_dev: true,
                ..MountFlags::default()
            };
            edited.set_mount(MountPlan {
                kind,
                target: target.to_owned(),
                flags,
            });
        }
    }

    fn add_libraries(&self, edited: &mut Edited, capabilities: &[String]) {
        let wanted: Vec<&str> = LIBRARIES
            .iter()
            .filter(|(part, _)| capabilities.iter().any(|own| own == part))
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        // The same library may be in a second directory: as a link to it, or as an old copy, which is left out.
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        for directory in self.library_directories() {
            let at = self.host.join(directory.strip_prefix("/").unwrap_or(&directory));
            let entries = std::fs::read_dir(&at).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            for name in names {
                let Some(name) = name.to_str() else { continue };
                let library = name.split_once(".so").map(|(library, _)| library);
                if !library.is_some_and(|library| wanted.contains(&library)) {
                    continue;
                }
                let Some(file) = self.real(&directory.join(name)) else {
                    continue;
                };
                if !is_native(&self.host.join(file.strip_prefix("/").unwrap_or(&file))) {
                    continue;
                }
                if *found.entry(name.to_owned()).or_insert_with(|| file.clone()) != file {
                    continue;
                }
                let place = directory.join(name);
                if file != place {
                    let target = match file.parent() == place.parent() {
                        true => file.file_name().map(PathBuf::from).unwrap_or_default(),
                        false => file.clone(),
                    };
                    edited.links.push(LinkPlan { path: place, target });
                }
                self.bind(edited, &file, &file);
                for directory in [Some(directory.as_path()), file.parent()].into_iter().flatten() {
                    if !edited.libraries.iter().any(|known| known == directory) {
                        edited.libraries.push(directory.to_owned());
                    }
                }
            }
        }
        for needed in ["libcuda", "libnvidia-ml"] {
            let there = found.keys().any(|name| {
                name.split_once(".so")
                    .is_some_and(|(library, _)| library == needed)
            });
            if wanted.contains(&needed) && !there {
                edited.warnings.push(Warning::GpuPartMissing {
                    what: format!("{needed}.so"),
                });
            }
        }
    }

    fn add_programs(&self, edited: &mut Edited, capabilities: &[String]) {
        for (part, names) in PROGRAMS {
            if !capabilities.iter().any(|own| own == part) {
                continue;
            }
            for name in names {
                let mut places = PROGRAM_DIRECTORIES
                    .iter()
                    .map(|directory| Path::new(directory).join(name));
                let program = |place: PathBuf| {
                    let file = self.real(&place)?;
                    is_native(&self.host.join(file.strip_prefix("/").unwrap_or(&file))).then_some(file)
                };
                if let Some(file) = places.find_map(program) {
                    self.bind(edited, &file, &Path::new("/usr/bin").join(name));
                }
            }
        }
    }

    /// The file that a path of the host leads to, as a path of the host.
    fn real(&self, path: &Path) -> Option<PathBuf> {
        let at = self.host.join(path.strip_prefix("/").unwrap_or(path));
        let real = std::fs::canonicalize(at).ok()?;
        let below = real.strip_prefix(&self.host).ok()?;
        real.is_file().then(|| Path::new("/").join(below))
    }

    /// Directories that may hold the driver's libraries, each once.
    fn library_directories(&self) -> Vec<PathBuf> {
        let mut bytes = Vec::new();
        // A host without a cache has its libraries in the usual places.
        if let Ok(file) = std::fs::File::open(self.host.join("etc/ld.so.cache")) {
            let _ = file.take(LARGEST_CACHE).read_to_end(&mut bytes);
        }
        let mut directories: Vec<PathBuf> = Vec::new();
        let known = directories_in_cache(&bytes)
            .into_iter()
            .chain(LIBRARY_DIRECTORIES.iter().map(PathBuf::from));
        for directory in known {
            // /usr/lib64 and /lib64 are one in most distributions.
            let at = self.host.join(directory.strip_prefix("/").unwrap_or(&directory));
            let Ok(real) = std::fs::canonicalize(at) else {
                continue;
            };
            let Ok(below) = real.strip_prefix(&self.host) else {
                continue;
            };
            let directory = Path::new("/").join(below);
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        directories
    }
}

/// One GPU of the driver's list.
fn gpu(text: &str) -> Option<Gpu> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    Some(Gpu {
        uuid: field("GPU UUID").unwrap_or_default().to_owned(),
        minor: field("Device Minor")?.parse().ok()?,
    })
}

/// Where the loader's cache (ld.so.cache) has the driver's two main libraries. Its texts end with a NUL each; what is
/// between them does not matter here.
fn directories_in_cache(bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for text in bytes.split(|&byte| byte == 0) {
        let Ok(text) = std::str::from_utf8(text) else {
            continue;
        };
        let Some((directory, name)) = text.rsplit_once('/') else {
            continue;
        };
        let is_main = name.starts_with("libcuda.so") || name.starts_with("libnvidia-ml.so");
        if text.starts_with('/') && is_main && !found.iter().any(|known| known == Path::new(directory)) {
            found.push(PathBuf::from(directory));
        }
    }
    found
}

/// Whether a file is an ELF file for processes such as this one: no script around a program, and no library of 32 bits.
fn is_native(path: &Path) -> bool {
    let (mut own, mut other) = ([0u8; 20], [0u8; 20]);
    let read = |path: &Path, into: &mut [u8; 20]| {
        std::fs::File::open(path)
            .and_then(|mut file| file.read_exact(into))
            .is_ok()
    };
    // Class and byte order, then the machine.
    read(Path::new("/proc/self/exe"), &mut own)
        && read(path, &mut other)
        && own[..6] == other[..6]
        && own[18..] == other[18..]
}

#[cfg(test)]
mod tests;
