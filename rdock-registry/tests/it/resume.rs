//! Pulls and pushes that end early, by a broken connection or by `kill -9`: the store stays sound, and the next
//! one goes on.

use crate::content::Content;
use crate::pushes::make;
use crate::server::{Registry, cut_after};
use crate::{Host, push_with, quick, runtime, trial};
use libtest_mimic::Trial;
use rdock_image::{Digest, ImageStore, Platform, Progress, Reference};
use rdock_registry::server::{Fault, FaultRule};
use rdock_registry::{PushProgress, RegistryClient};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The environment variable by which this program is told to be another process: `ROLE ROOT NAME`.
const ROLE: &str = "RDOCK_REGISTRY_TEST_ROLE";
/// Bytes of a layer of which what has come is kept.
const LARGE: usize = 6 << 20;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        trial(
            "a_pull_goes_on_in_another_process",
            a_pull_goes_on_in_another_process,
        ),
        trial(
            "a_wrong_beginning_is_thrown_away",
            a_wrong_beginning_is_thrown_away,
        ),
        trial(
            "an_upload_goes_on_in_another_process",
            an_upload_goes_on_in_another_process,
        ),
        trial(
            "an_upload_that_the_registry_forgot_begins_anew_in_another_process",
            an_upload_that_the_registry_forgot_begins_anew,
        ),
        trial(
            "an_upload_with_a_wrong_beginning_begins_anew_in_another_process",
            an_upload_with_a_wrong_beginning_begins_anew,
        ),
        trial(
            "a_push_that_fails_leaves_its_upload_for_the_next",
            a_push_that_fails_leaves_its_upload,
        ),
        trial("kill_during_pulls", kill_during_pulls),
        trial("kill_during_pushes", kill_during_pushes),
    ]
}

/// What this process is to do instead of testing, if anything.
pub(crate) fn role() -> Option<ExitCode> {
    let text = std::env::var(ROLE).ok()?;
    let mut words = text.split(' ');
    let (Some(role), Some(root), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Some(ExitCode::from(2));
    };
    let work = || -> Result<(), Box<dyn std::error::Error>> {
        let store = ImageStore::open(root)?;
        let mut config = quick();
        if role == "push-patiently" {
            config.idle_timeout = Duration::from_secs(300);
        }
        let client = RegistryClient::new(config)?;
        let reference = Reference::parse(name)?;
        match role {
            "pull" => {
                let platform = Platform::host();
                runtime().block_on(client.pull(&reference, &platform, &store, &Progress::default()))?;
            }
            _ => {
                runtime().block_on(client.push(&reference, &store, &PushProgress::default()))?;
            }
        }
        Ok(())
    };
    let code = match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    };
    // The most memory this process ever had, for whoever wants to know.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    std::io::Write::write_all(&mut std::io::stdout(), peak.unwrap_or_default().as_bytes()).ok();
    Some(code)
}

/// How a process ended, and the most memory it had, in KiB.
pub(crate) fn peak(role: &str, root: &Path, name: &str) -> (std::process::ExitStatus, u64) {
    let output = process(role, root, name)
        .stdout(Stdio::piped())
        .output()
        .expect("run");
    let text = String::from_utf8_lossy(&output.stdout);
    let kib = text
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number of KiB");
    (output.status, kib)
}

/// This program as another process, which does one thing.
pub(crate) fn process(role: &str, root: &Path, name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .env(ROLE, format!("{role} {} {name}", root.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn parts(host: &Host) -> Vec<u64> {
    let ingest = host.store.root().join("ingest");
    let entries = std::fs::read_dir(ingest)
        .expect("a list")
        .map(|entry| entry.expect("an entry"));
    entries
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "part")
        })
        .map(|entry| entry.metadata().expect("there").len())
        .collect()
}

fn a_pull_goes_on_in_another_process() {
    let content = Content::sized(1, 150, LARGE);
    let (layer, blob) = (content.layer(0), content.layers[0].clone());
    let registry = Registry::start(&content, move |seen| {
        (seen.is_blob(&layer) && seen.before == 0).then(|| cut_after(&blob, 5 << 20))
    });
    let host = Host::new();
    let name = format!("{}/a:1", registry.host());
    let mut config = quick();
    config.retries = 0;
    host.pull(config, &name).expect_err("it was cut");
    host.assert_nothing_half_made();
    let kept = parts(&host);
    assert!(kept.len() == 1 && kept[0] > 0 && kept[0] <= 5 << 20, "{kept:?}");
    let done = process("pull", host.path(), &name).status().expect("run");
    assert!(done.success());
    let seen = registry.seen_of(&content.layer(0));
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].range, Some(format!("bytes={}-", kept[0])));
    assert!(parts(&host).is_empty(), "what is complete is not kept twice");
    check(&host.store, &[&content]);
    let image = host.store.get(&name).expect("read").expect("there");
    assert_eq!(image.manifest_digest(), &content.digest());
}

fn a_wrong_beginning_is_thrown_away() {
    let content = Content::sized(1, 151, LARGE);
    let registry = Registry::plain(&content);
    let host = Host::new();
    for garbage in [vec![7; 1 << 20], vec![7; 2 * LARGE], content.layers[0].clone()] {
        let whole = garbage == content.layers[0];
        let mut partial = host
            .store
            .partial(&content.layer(0))
            .expect("opened")
            .expect("free");
        partial.append(&garbage).expect("written");
        drop(partial);
        let before = registry.seen_of(&content.layer(0)).len();
        let name = format!("{}/a:1", registry.host());
        host.pull(quick(), &name).expect("pulled");
        assert!(parts(&host).is_empty());
        check(&host.store, &[&content]);
        let asked = registry.seen_of(&content.layer(0)).len() - before;
        assert!(if whole { asked == 0 } else { asked >= 1 }, "{asked}");
        host.store.remove(&name, true).expect("removed");
        host.store
            .prune(&rdock_image::PruneFilter::default())
            .expect("pruned");
    }
}

/// Bytes of an upload that the registry takes before it is cut.
const TAKEN: u64 = 50_000;

/// An image in a store and a registry that has taken the beginning of its layer from a process that is dead.
struct Half {
    host: Host,
    to: Registry,
    name: String,
    image: rdock_image::Image,
    /// Where the layer came from, if it was not made here.
    _from: Option<Registry>,
}

/// The first upload is cut, and the registry does not say how far it is.
fn cut_and_silent() -> Vec<FaultRule> {
    vec![
        FaultRule::new(Fault::CutUpload(TAKEN))
            .on_method("PATCH")
            .times(1),
        FaultRule::new(Fault::Silent(Duration::from_secs(300)))
            .on_method("GET")
            .on_path("/blobs/uploads/"),
    ]
}

impl Half {
    fn new(made: bool, seed: u64) -> Self {
        let to = Registry::with(|options| options);
        to.set_faults(cut_and_silent());
        let host = Host::new();
        let name = format!("{}/half:1", to.host());
        let (image, from) = match made {
            true => (make(&host.store, &name, seed), None),
            false => {
                let content = Content::sized(1, seed, LARGE);
                let from = Registry::plain(&content);
                let image = host
                    .pull(quick(), &format!("{}/a:1", from.host()))
                    .expect("pulled");
                let reference = Reference::parse(&name).expect("a name");
                host.store.tag(&image, &reference).expect("tagged");
                (image, Some(from))
            }
        };
        let half = Self {
            host,
            to,
            name,
            image,
            _from: from,
        };
        let mut child = process("push-patiently", half.host.path(), &half.name)
            .spawn()
            .expect("started");
        // The upload was cut, and the process wants to know how far it came.
        let until = Instant::now() + Duration::from_secs(120);
        while half.count("GET") == 0 {
            assert!(
                Instant::now() < until,
                "the push never asked: {:?}",
                half.to.seen()
            );
            assert!(child.try_wait().expect("waited").is_none(), "the push ended");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().expect("killed");
        child.wait().expect("waited");
        half.to.set_faults(Vec::new());
        half
    }

    /// Requests about uploads.
    fn count(&self, method: &str) -> usize {
        let seen = self.to.seen();
        seen.iter()
            .filter(|seen| seen.method == method && seen.path.contains("/blobs/uploads/"))
            .count()
    }

    /// Pushes with a fresh handle; says how many uploads were begun, in both processes.
    fn push(&self) -> usize {
        let store = ImageStore::open(self.host.path()).expect("opened");
        let (pushed, _) = push_with(&store, quick(), &self.name);
        assert_eq!(pushed.expect("pushed").id, *self.image.id());
        let back = Host::new().pull(quick(), &self.name).expect("pulled back");
        assert_eq!(back.diff_ids(), self.image.diff_ids());
        let ingest = self.host.store.root().join("ingest");
        assert_eq!(std::fs::read_dir(ingest).expect("a list").count(), 0);
        self.count("POST")
    }
}

fn an_upload_goes_on_in_another_process() {
    let half = Half::new(false, 160);
    // That of the layer and that of the config.
    assert_eq!(half.push(), 2);
    let seen = half.to.seen();
    let last = seen.iter().rfind(|seen| seen.method == "PATCH").expect("a part");
    let range = last.content_range.as_deref().unwrap_or_default();
    assert!(range.starts_with(&format!("{TAKEN}-")), "{last:?}");
    // One that is compressed on the way, too.
    assert_eq!(Half::new(true, 161).push(), 2);
}

fn an_upload_that_the_registry_forgot_begins_anew() {
    for made in [false, true] {
        let half = Half::new(made, 162);
        let lost = FaultRule::new(Fault::LoseUpload).on_method("GET");
        half.to.set_faults(vec![lost]);
        assert_eq!(half.push(), 3);
    }
}

fn an_upload_with_a_wrong_beginning_begins_anew() {
    for made in [false, true] {
        let half = Half::new(made, 164);
        let uploads = half.to.root().join("uploads");
        let entries = std::fs::read_dir(uploads).expect("a list");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        let path = files.pop().filter(|_| files.is_empty()).expect("one upload");
        let mut bytes = std::fs::read(&path).expect("read");
        assert_eq!(bytes.len() as u64, TAKEN);
        bytes[7] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        assert_eq!(half.push(), 3);
    }
}

/// The connection was bad, and the process gave up.
fn a_push_that_fails_leaves_its_upload() {
    let to = Registry::with(|options| options);
    let cut = FaultRule::new(Fault::CutUpload(TAKEN)).on_method("PATCH");
    to.set_faults(vec![cut]);
    let host = Host::new();
    let name = format!("{}/half:1", to.host());
    let image = make(&host.store, &name, 166);
    let mut config = quick();
    config.retries = 0;
    let (pushed, _) = push_with(&host.store, config, &name);
    pushed.expect_err("it was cut");
    let begun = |to: &Registry| to.seen().iter().filter(|seen| seen.method == "POST").count();
    assert_eq!(begun(&to), 1);
    to.set_faults(Vec::new());
    let (pushed, _) = push_with(&host.store, quick(), &name);
    assert_eq!(pushed.expect("pushed").id, *image.id());
    assert_eq!(begun(&to), 2);
}

/// Every blob has its digest, every layer the tar that it came as, and there are no others.
pub(crate) fn check(store: &ImageStore, contents: &[&Content]) {
    let report = store.fsck().expect("read");
    assert!(
        report.findings.is_empty() && report.unchecked.is_empty(),
        "{report:?}"
    );
    let known: Vec<_> = contents.iter().flat_map(|content| &content.diff_ids).collect();
    let layers = std::fs::read_dir(store.root().join("layers")).expect("a list");
    for entry in layers {
        let hex = entry.expect("an entry").file_name().into_string().expect("text");
        assert!(
            known.iter().any(|diff_id| diff_id.hex() == hex),
            "{hex} is no layer of ours"
        );
    }
}

/// Kills a process after a part of the time it would need; says whether it was still at work.
///
/// `whole` is how long it needs. A machine with other work to do is slower now and faster then, so it is adjusted.
fn killed(mut command: Command, whole: &mut Duration, moment: u32) -> bool {
    let mut child = command.spawn().expect("started");
    // A random moment is what is wanted here, not an outcome.
    std::thread::sleep(*whole * moment / 1000);
    let running = child.try_wait().expect("waited").is_none();
    child.kill().expect("killed");
    child.wait().expect("waited");
    *whole = match running {
        true => *whole * 21 / 20,
        false => *whole * 4 / 5,
    };
    running
}

/// Numbers that look random and are the same in each run.
fn moments(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |number| number.wrapping_mul(0x9e37_79b1) % 1000)
}

const KILLS: u32 = 50;

fn kill_during_pulls() {
    let content = Content::sized(2, 152, LARGE);
    let registry = Registry::plain(&content);
    let name = format!("{}/a:1", registry.host());
    let first = Host::new();
    let started = Instant::now();
    assert!(
        process("pull", first.path(), &name)
            .status()
            .expect("run")
            .success()
    );
    let mut whole = started.elapsed();
    let host = Host::new();
    let (mut hit, mut resumed) = (0, 0);
    for moment in moments(KILLS) {
        hit += u32::from(killed(process("pull", host.path(), &name), &mut whole, moment));
        // A new handle sweeps what the dead process left.
        let store = ImageStore::open(host.path()).expect("opened");
        check(&store, &[&content]);
        resumed += parts(&host).iter().filter(|length| **length > 0).count();
        let image = host.pull(quick(), &name).expect("the next one succeeds");
        assert_eq!(image.diff_ids(), content.diff_ids);
        check(&host.store, &[&content]);
        host.store.remove(&name, true).expect("removed");
        host.store
            .prune(&rdock_image::PruneFilter::default())
            .expect("pruned");
    }
    assert!(
        hit >= KILLS / 3,
        "only {hit} of {KILLS} pulls were at work when they were killed"
    );
    assert!(resumed > 0, "no download was ever kept");
}

fn kill_during_pushes() {
    let content = Content::sized(2, 153, LARGE);
    let from = Registry::plain(&content);
    let host = Host::new();
    let base = format!("{}/a:1", from.host());
    let image = host.pull(quick(), &base).expect("pulled");
    let to = Registry::with(|options| options);
    let name = |number: u32| format!("{}/app{number}:1", to.host());
    let tag = |number: u32| {
        let reference = Reference::parse(&name(number)).expect("a name");
        host.store.tag(&image, &reference).expect("tagged");
    };
    tag(KILLS);
    let started = Instant::now();
    assert!(
        process("push", host.path(), &name(KILLS))
            .status()
            .expect("run")
            .success()
    );
    let mut whole = started.elapsed();
    let mut hit = 0;
    for (number, moment) in (0..KILLS).zip(moments(KILLS)) {
        // To a registry that has nothing, or the blobs would be mounted.
        let to = Registry::with(|options| options);
        let name = format!("{}/app:1", to.host());
        let reference = Reference::parse(&name).expect("a name");
        host.store.tag(&image, &reference).expect("tagged");
        hit += u32::from(killed(process("push", host.path(), &name), &mut whole, moment));
        let store = ImageStore::open(host.path()).expect("opened");
        check(&store, &[&content]);
        if to.tag("app", "1").is_some() {
            assert!((0..2).all(|layer| to.blob("app", &content.layer(layer)).is_some()));
        }
        let (pushed, _) = push_with(&host.store, quick(), &name);
        assert_eq!(
            pushed.expect("the next one succeeds").digest,
            content.digest(),
            "{number}"
        );
        for (digest, bytes) in content.blobs() {
            let digest = Digest::parse(&digest).expect("a digest");
            assert_eq!(to.blob("app", &digest), Some(bytes));
        }
        check(&host.store, &[&content]);
    }
    assert!(
        hit >= KILLS / 3,
        "only {hit} of {KILLS} pushes were at work when they were killed"
    );
}
