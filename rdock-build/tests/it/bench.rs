//! A root and a context for one test.
use crate::Tested;
use crate::busybox::busybox;
use rdock_build::runtime::{NetworkMode, Runtime};
use rdock_build::{BuildError, BuildEvent, BuildOutput, Builder, StepReport};
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a build told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    steps: Vec<(usize, String)>,
    ran: Vec<usize>,
    cached: usize,
    output: Vec<u8>,
    warnings: Vec<String>,
    all: String,
}

impl Seen {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, event: &BuildEvent) {
        let mut inner = self.inner();
        inner.all.push_str(&format!("{event:?}\n"));
        match event {
            BuildEvent::Planned { steps } => {
                inner.steps = steps.iter().map(|step| (step.id, step.name.clone())).collect();
            }
            BuildEvent::StepStarted { id } => inner.ran.push(*id),
            BuildEvent::StepCached { .. } => inner.cached += 1,
            BuildEvent::StepOutput { bytes, .. } => inner.output.extend_from_slice(bytes),
            BuildEvent::Warning { text, .. } => inner.warnings.push(text.clone()),
            _ => {}
        }
    }

    /// How many steps ran.
    pub(crate) fn ran(&self) -> usize {
        self.inner().ran.len()
    }

    pub(crate) fn cached(&self) -> usize {
        self.inner().cached
    }

    /// Names of the steps that ran.
    pub(crate) fn names(&self) -> Vec<String> {
        let inner = self.inner();
        let ran = inner.steps.iter().filter(|(id, _)| inner.ran.contains(id));
        ran.map(|(_, name)| name.clone()).collect()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.inner().warnings.clone()
    }

    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.inner().output).into_owned()
    }

    /// Every event, as text.
    pub(crate) fn all(&self) -> String {
        self.inner().all.clone()
    }
}

pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) runtime: Runtime,
}

impl Bench {
    /// Makes a root with the image `base`, built from the distribution's static busybox.
    pub(crate) fn new() -> Tested<Self> {
        let dir = tempfile::tempdir()?;
        let runtime = Runtime::open(dir.path().join("root"))?;
        let bench = Self { dir, runtime };
        std::fs::create_dir(bench.path(""))?;
        std::fs::create_dir(bench.outside("base"))?;
        std::fs::copy(busybox()?, bench.outside("base/busybox"))?;
        let text = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
            RUN mkdir -p /etc /tmp /root && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd && echo root:x:0: > /etc/group\n";
        let builder = Builder::new(bench.outside("base"))
            .dockerfile_text(text)
            .network(NetworkMode::None)
            .tag("base");
        wait(builder.build(&bench.runtime))??;
        Ok(bench)
    }

    /// A path in the context.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("context").join(name)
    }

    /// A path beside it.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> Tested {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(std::fs::write(path, text)?)
    }

    fn builder(&self) -> (Builder, Seen) {
        let seen = Seen::default();
        let told = seen.clone();
        let builder = Builder::new(self.path(""))
            .network(NetworkMode::None)
            .progress(move |event: BuildEvent| told.note(&event));
        (builder, seen)
    }

    pub(crate) fn build(&self, change: impl FnOnce(Builder) -> Builder) -> Tested<(BuildOutput, Seen)> {
        let (builder, seen) = self.builder();
        Ok((wait(change(builder).build(&self.runtime))??, seen))
    }

    /// A build that must fail.
    pub(crate) fn fails(&self, change: impl FnOnce(Builder) -> Builder) -> Tested<BuildError> {
        Ok(self.fails_seen(change)?.0)
    }

    pub(crate) fn fails_seen(&self, change: impl FnOnce(Builder) -> Builder) -> Tested<(BuildError, Seen)> {
        let (builder, seen) = self.builder();
        match wait(change(builder).build(&self.runtime))? {
            Ok(_) => Err("the build did not fail".into()),
            Err(error) => Ok((error, seen)),
        }
    }

    /// Builds by a builder that is no Dockerfile's.
    pub(crate) fn build_with(&self, builder: Builder) -> Tested<(BuildOutput, Seen)> {
        let seen = Seen::default();
        let told = seen.clone();
        let builder = builder.progress(move |event: BuildEvent| told.note(&event));
        Ok((wait(builder.build(&self.runtime))??, seen))
    }

    pub(crate) fn fails_with(&self, builder: Builder) -> Tested<BuildError> {
        match wait(builder.build(&self.runtime))? {
            Ok(_) => Err("the build did not fail".into()),
            Err(error) => Ok(error),
        }
    }

    pub(crate) fn explain(&self, change: impl FnOnce(Builder) -> Builder) -> Tested<Vec<StepReport>> {
        let (builder, _) = self.builder();
        Ok(wait(change(builder).explain(&self.runtime))??)
    }

    /// Drops a build as soon as a command has written `word`.
    pub(crate) fn build_and_drop(&self, word: &'static str) -> Tested {
        self.build_until(move |event| {
            matches!(event, BuildEvent::StepOutput { bytes, .. } if String::from_utf8_lossy(bytes).contains(word))
        })
    }

    /// Drops a build as soon as an event has come.
    pub(crate) fn build_until(&self, wanted: impl Fn(&BuildEvent) -> bool + Send + Sync + 'static) -> Tested {
        let (tell, hear) = tokio::sync::oneshot::channel();
        let tell = Mutex::new(Some(tell));
        let builder =
            Builder::new(self.path(""))
                .network(NetworkMode::None)
                .progress(move |event: BuildEvent| {
                    if wanted(&event)
                        && let Some(tell) = tell.lock().unwrap_or_else(PoisonError::into_inner).take()
                    {
                        let _ = tell.send(());
                    }
                });
        self.drop_when(&builder, hear)
    }

    /// Drops a build as soon as the test says so.
    pub(crate) fn build_until_told(&self, hear: tokio::sync::oneshot::Receiver<()>) -> Tested {
        self.drop_when(&self.builder().0, hear)
    }

    fn drop_when(&self, builder: &Builder, hear: tokio::sync::oneshot::Receiver<()>) -> Tested {
        wait(async {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(60)) => Err("what was waited for never came".into()),
                built = builder.build(&self.runtime) => Err(format!("the build ended: {built:?}").into()),
                _ = hear => Ok(()),
            }
        })?
    }

    /// Reads a file of an image.
    pub(crate) fn read(&self, built: &BuildOutput, path: &str) -> Tested<String> {
        let store = self.runtime.images();
        let view = store.view_layers(&built.config.rootfs.diff_ids)?;
        let mut text = String::new();
        view.open_file(path)?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// As [`Bench::assert_clean`], as soon as what is ending has ended.
    pub(crate) fn assert_clean_soon(&self) -> Tested {
        let until = Instant::now() + Duration::from_secs(30);
        while self.assert_clean().is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.assert_clean()
    }

    /// No container, snapshot or half-made file is left.
    pub(crate) fn assert_clean(&self) -> Tested {
        let root = self.runtime.root();
        for (dir, keep) in [
            ("containers", &["format", "names", "journal", "events"][..]),
            ("containers/names", &[]),
            ("image/snapshots", &[]),
            ("image/ingest", &[]),
            ("image/leases", &[]),
            ("build/locks", &[]),
            ("build/tmp", &[]),
        ] {
            let Ok(entries) = std::fs::read_dir(root.join(dir)) else {
                continue;
            };
            for entry in entries {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if !keep.contains(&name.as_str()) {
                    return Err(format!("{dir}/{name} is left").into());
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> Tested<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future))
}
