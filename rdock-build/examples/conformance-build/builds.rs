//! Suites that build: in a runtime of their own, with the base images that the rows name.
use super::{Outcome, equal, text_of};
use rdock_build::runtime::Runtime;
use rdock_build::{BuildOutput, Builder, PullPolicy};
use rdock_image::{FileInfo, FileKind, MergedView};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The names that rows give the base image.
const NAMES: [&str; 6] = [
    "mirror.gcr.io/busybox:latest",
    "mirror.gcr.io/alpine:latest",
    "busybox:latest",
    "alpine:latest",
    "quay.io/libpod/centos:7",
    "quay.io/fedora/python-311:latest",
];

/// Where a suite is built.
pub(crate) struct Site {
    fixtures: PathBuf,
    scratch: tempfile::TempDir,
    runtime: Runtime,
    tokio: tokio::runtime::Runtime,
    /// The files of the base image.
    base: BTreeMap<PathBuf, Value>,
    /// The one build of the exclude suite.
    once: std::cell::OnceCell<BuildOutput>,
}

impl Site {
    /// Makes a runtime, and the base image by the Dockerfile among the fixtures, if there is one.
    pub(crate) fn open(suite: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let scratch = tempfile::tempdir()?;
        let mut site = Self {
            fixtures: suite.join("files"),
            runtime: Runtime::open(scratch.path().join("root"))?,
            tokio: tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
            scratch,
            base: BTreeMap::new(),
            once: std::cell::OnceCell::new(),
        };
        let dockerfile = site.fixtures.join("base/Dockerfile");
        if dockerfile.exists() {
            let context = site.scratch.path().join("base");
            std::fs::create_dir(&context)?;
            std::fs::copy(crate::busybox::busybox()?, context.join("busybox"))?;
            std::fs::copy(dockerfile, context.join("Dockerfile"))?;
            let builder = NAMES
                .iter()
                .fold(Builder::new(context), |builder, name| builder.tag(*name));
            let built = site.tokio.block_on(builder.build(&site.runtime))?;
            site.base = site.files(&built)?;
        }
        Ok(site)
    }

    fn build(&self, context: &Path, input: &Value) -> Result<BuildOutput, String> {
        let mut builder = Builder::new(context)
            .dockerfile_text(text_of(&input["dockerfile"]))
            .pull(PullPolicy::Never);
        for (name, value) in input["build_args"].as_object().into_iter().flatten() {
            builder = builder.build_arg(name, text_of(value));
        }
        let built = self.tokio.block_on(builder.build(&self.runtime));
        built.map_err(|error| error.to_string())
    }

    fn context(&self, name: &Value) -> Result<PathBuf, String> {
        let dir = tempfile::tempdir_in(self.scratch.path()).map_err(|error| error.to_string())?;
        if let Some(name) = name.as_str() {
            let file = File::open(self.fixtures.join(name)).map_err(|error| format!("{name}: {error}"))?;
            let mut archive = tar::Archive::new(file);
            archive.set_preserve_permissions(true);
            archive.set_preserve_ownerships(false);
            archive
                .unpack(dir.path())
                .map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(dir.keep())
    }

    fn files(&self, built: &BuildOutput) -> Result<BTreeMap<PathBuf, Value>, Box<dyn std::error::Error>> {
        let image = built.image.as_ref().ok_or("no image was made")?;
        let view = self.runtime.images().view(image)?;
        (view.walk()?.into_iter())
            .map(|(path, info)| {
                let file = describe(&view, &path, &info)?;
                Ok((Path::new("/").join(path), file))
            })
            .collect()
    }

    /// A row of the golden suite.
    pub(crate) fn golden(&self, input: &Value, expect: &Value) -> Outcome {
        let context = self.context(&input["context"])?;
        let built = match (self.build(&context, input), text_of(&expect["result"])) {
            (Ok(built), "ok") => built,
            (Err(_), "error") => return Ok(()),
            (Ok(_), _) => return Err(format!("it builds; expected {}", expect["message"])),
            (Err(error), _) => return Err(error),
        };
        let config = serde_json::to_value(&built.config.config).map_err(|error| error.to_string())?;
        equal("config", &plain(&config), &plain(&expect["config"]))?;
        equal("author", &json!(built.config.author), &expect["author"])?;
        let history: Vec<_> = (built.config.history.iter())
            .map(|entry| json!({"created_by": entry.created_by, "empty_layer": entry.empty_layer}))
            .collect();
        equal("history", &json!(history), &expect["history"])?;
        equal(
            "layers",
            &json!(built.config.rootfs.diff_ids.len()),
            &expect["layers"],
        )?;
        let files = self.files(&built).map_err(|error| error.to_string())?;
        let on_base = expect["history"]
            .as_array()
            .is_some_and(|rows| text_of(&rows[0]["created_by"]).contains("busybox"));
        let nothing = BTreeMap::new();
        let below = if on_base { &self.base } else { &nothing };
        let expected = expect["files"].as_object();
        for (path, file) in &files {
            let name = path.display().to_string();
            let wanted = expected.and_then(|files| files.get(&name));
            match wanted.or(below.get(path)) {
                Some(wanted) => equal(&name, file, &normal(wanted))?,
                None => return Err(format!("{name} is too much: {file}")),
            }
        }
        let removed: Vec<_> = (below.keys().filter(|path| !files.contains_key(*path)))
            .map(|path| path.display().to_string())
            .collect();
        equal("removed_from_base", &json!(removed), &expect["removed_from_base"])?;
        let missing = expected
            .into_iter()
            .flatten()
            .find(|(name, _)| !files.contains_key(Path::new(name)));
        missing.map_or(Ok(()), |(name, _)| Err(format!("{name} is missing")))
    }

    /// A row of the exclude suite: one build, many paths.
    pub(crate) fn exclude(&self, input: &Value, expect: &Value) -> Outcome {
        if self.once.get().is_none() {
            let context = self.context(&Value::Null)?;
            for (name, text) in input["context"].as_object().into_iter().flatten() {
                let path = context.join(name);
                let parent = path.parent().ok_or("a file without a directory")?;
                std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
                std::fs::write(&path, text_of(text)).map_err(|error| error.to_string())?;
            }
            let built = self.build(&context, input)?;
            self.once.set(built).map_err(|_| "built twice".to_owned())?;
        }
        let image = self
            .once
            .get()
            .and_then(|built| built.image.as_ref())
            .ok_or("nothing was built")?;
        let view = self
            .runtime
            .images()
            .view(image)
            .map_err(|error| error.to_string())?;
        let path = text_of(&input["path"]);
        let found = view.metadata(path).map_err(|error| error.to_string())?;
        equal("present", &json!(found.is_some()), &expect["present"])?;
        if found.is_none() || expect["content"].is_null() {
            return Ok(());
        }
        let data = read(&view, Path::new(path)).map_err(|error| error.to_string())?;
        equal(
            "content",
            &json!(String::from_utf8_lossy(&data)),
            &expect["content"],
        )
    }
}

/// A config without what rows may ignore and what says nothing.
fn plain(config: &Value) -> Value {
    let mut fields: Map<String, Value> = config.as_object().cloned().unwrap_or_default();
    fields.remove("ArgsEscaped");
    fields.retain(|_, value| {
        !(value.is_null() || *value == json!("") || *value == json!([]) || *value == json!({}))
    });
    json!(fields)
}

fn read(view: &MergedView, path: &Path) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut data = Vec::new();
    std::io::Read::read_to_end(&mut view.open_file(path)?, &mut data)?;
    Ok(data)
}

/// A file in the form of the rows, its mode's permission bits alone.
fn describe(view: &MergedView, path: &Path, info: &FileInfo) -> Result<Value, Box<dyn std::error::Error>> {
    let kind = match info.kind {
        FileKind::Dir => "dir",
        FileKind::File => "file",
        FileKind::Symlink => "symlink",
        _ => "special",
    };
    let mut file = json!({"type": kind, "uid": info.uid, "gid": info.gid});
    match info.kind {
        FileKind::Symlink => file["link"] = json!(view.read_link(path)?),
        _ => file["mode"] = json!(info.mode & 0o7777),
    }
    if info.kind == FileKind::File {
        let data = read(view, path)?;
        let hash: String = Sha256::digest(&data)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        file["size"] = json!(data.len());
        file["sha256"] = json!(hash);
    }
    Ok(file)
}

/// A row's file in that form: its mode is a text such as `0o100644`.
fn normal(file: &Value) -> Value {
    let mut file = file.clone();
    if let Some(text) = file["mode"].as_str() {
        let bits = u32::from_str_radix(text.trim_start_matches("0o"), 8).unwrap_or_default();
        file["mode"] = json!(bits & 0o7777);
    }
    if let Some(fields) = file.as_object_mut() {
        if fields.get("type") == Some(&json!("symlink")) {
            fields.remove("mode");
            fields.remove("size");
        }
        if fields.get("type") == Some(&json!("dir")) {
            fields.remove("size");
        }
    }
    file
}
