//! Removal, and the janitor: what a container leaves is named after its id, so that anyone can take it away.

use crate::error::{Error, Result};
use crate::events::EventAction;
use crate::launch;
use crate::runtime::Runtime;
use crate::state::{ContainerDir, Happened, Record, Status};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::time::{Duration, Instant};

/// In the directory of a container whose removal has begun: the names of the volumes that go with it.
const REMOVING: &str = "removing";

/// How long a removal that is asked for waits for the helper's end.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(20);

/// What a removal could not remove. It goes on after each failure and keeps them all.
#[derive(Debug, Default)]
pub(crate) struct Remains(Vec<Error>);

impl Remains {
    /// Remembers a failure.
    pub(crate) fn note<T>(&mut self, result: Result<T>) {
        if let Err(error) = result {
            self.0.push(error);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.0.iter().map(|error| describe(error).join(": ")).collect()
    }

    /// The first failure, as an error about the container.
    pub(crate) fn into_result(self, name: &str) -> Result<()> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(Error::Remains {
                name: name.to_owned(),
                source: Box::new(first),
            }),
        }
    }
}

/// An error and its causes, outermost first.
pub(crate) fn describe(error: &dyn std::error::Error) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        messages.push(cause.to_string());
        next = cause.source();
    }
    messages
}

/// Removes all that a container without processes has: cgroup, snapshot, anonymous volumes, state, name.
///
/// The state directory goes last: as long as anything is left, the next open finds it.
pub(crate) fn everything(runtime: &Runtime, record: &Record) -> Remains {
    let mut remains = Remains::default();
    let dir = runtime.state().path(&record.id);
    // Who finds it half removed goes on with the same volumes. When it cannot be written, what stays is found by its
    // missing snapshot all the same.
    let volumes = serde_json::to_vec(&record.anonymous_volumes).unwrap_or_default();
    let _ = std::fs::write(dir.join(REMOVING), volumes);
    // It may have been renamed since the caller read its record.
    let name = runtime.state().load(&record.id).map(|(_, record)| record.name);
    let name = name.unwrap_or_else(|_| record.name.clone());
    remains.note(
        crate::cgroup::remove_all(&crate::cgroup::Place::of(&record.id, &record.spec)).map_err(Error::from),
    );
    remains.note(snapshot(runtime, &record.id));
    for volume in &record.anonymous_volumes {
        remains.note(
            runtime
                .volumes()
                .remove_anonymous(volume, &record.id)
                .map_err(Error::from),
        );
    }
    runtime.volumes().release_last(&record.id);
    remains.note(crate::secrets::forget(runtime, &record.id));
    if !remains.0.is_empty() {
        return remains;
    }
    // In one step: whoever is killed in the middle leaves nothing that looks like a container.
    let gone = runtime.state().gone(&record.id);
    let removed = match std::fs::rename(&dir, &gone) {
        Ok(()) => std::fs::remove_dir_all(&gone),
        other => other,
    };
    // Only now: as long as the container is there, whoever else has its volumes is not their last user.
    runtime.volumes().release(&record.id);
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            remains.note::<()>(Err(Error::state("remove", &dir)(error)));
        }
        _ => {
            runtime.journal().container(record, EventAction::Destroy, &[]);
            runtime.state().release_name(&name, &record.id);
        }
    }
    remains
}

/// Finishes what a process that died has begun: the removal of a container, or its creation, which is undone. Whether
/// there was something to finish.
///
/// # Errors
/// When the container cannot be looked at.
pub(crate) fn finish(runtime: &Runtime, id: &str) -> Result<bool> {
    // A snapshot appears in one step; it is not read, since this is asked of every container at every open.
    let snapshot = runtime.root().join("image/snapshots").join(id);
    let half = |dir: &ContainerDir| -> std::io::Result<bool> {
        Ok(!snapshot.try_exists()? || dir.file(REMOVING).try_exists()?)
    };
    let half = |dir: &ContainerDir| half(dir).map_err(Error::state("look at", &snapshot));
    let (dir, _) = runtime.state().load(id)?;
    if !half(&dir)? {
        return Ok(false);
    }
    // Who holds the lock is about to make or to remove it.
    let Some(_change) = dir.try_lock_changes()? else {
        return Ok(true);
    };
    // It may have been started since the caller looked: an owner between two runs has no helper.
    if dir.owner().is_ok_and(|owner| owner.is_alive()) {
        return Ok(true);
    }
    if !half(&dir)? || !helper_has_ended(&dir.file("lock")) {
        return Ok(false);
    }
    let mut record = dir.record()?;
    if let Ok(bytes) = std::fs::read(dir.file(REMOVING))
        && let Ok(volumes) = serde_json::from_slice(&bytes)
    {
        record.anonymous_volumes = volumes;
    }
    // What stays is tried again at the next open.
    everything(runtime, &record);
    Ok(true)
}

/// Whether somebody has begun to remove it, and has not come to the end.
pub(crate) fn is_begun(dir: &ContainerDir) -> bool {
    dir.file(REMOVING).exists()
}

fn snapshot(runtime: &Runtime, id: &str) -> Result<()> {
    let Some(snapshot) = runtime.images().open_snapshot(id)? else {
        return Ok(());
    };
    let upper = snapshot.upper().to_owned();
    match snapshot.remove() {
        Ok(()) => Ok(()),
        Err(error) => {
            // Directories without permission for their owner, from a user namespace.
            let Some(snapshot) = runtime.images().open_snapshot(id)? else {
                return Err(error.into());
            };
            let work = upper.with_file_name("work");
            for tree in [&upper, &work] {
                launch::remove_tree(tree).map_err(Error::state("remove", tree))?;
            }
            Ok(snapshot.remove()?)
        }
    }
}

/// Looks after what dead owners left. Every failure is left for the next open: opening must not fail on it.
pub(crate) fn sweep(runtime: &Runtime) -> Result<()> {
    runtime.state().sweep_unfinished();
    for id in runtime.state().ids()? {
        // Another process may be removing it.
        let _ = crate::recover::recover(runtime, &id);
    }
    crate::secrets::sweep(runtime);
    crate::net::janitor(runtime.root());
    Ok(())
}

/// Whether the helper's lock is free, waiting a moment for a helper that is just ending.
pub(crate) fn helper_has_ended(lock: &std::path::Path) -> bool {
    has_ended_within(lock, Duration::from_secs(2))
}

/// The same, waiting so long.
pub(crate) fn has_ended_within(lock: &std::path::Path, patience: Duration) -> bool {
    let Ok(file) = rustix::fs::open(lock, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return true;
    };
    let deadline = Instant::now() + patience;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return true,
            Err(_) if Instant::now() >= deadline => return false,
            // The kernel gives no event for the end of a process that is not ours by lock alone.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Removes a container that does not run, whoever owned it.
pub(crate) fn ended(runtime: &Runtime, record: &Record, volumes: bool) -> Result<()> {
    let (dir, _) = runtime.state().load(&record.id)?;
    let _change = dir.lock_changes()?;
    let is_over = matches!(dir.status()?, Status::Exited(_) | Status::Created | Status::Dead);
    // The kernel may have to end many processes, and somebody may look at its files.
    if !is_over || !has_ended_within(&dir.file("lock"), REMOVAL_PATIENCE) {
        return Err(Error::StillRunning {
            name: record.name.clone(),
        });
    }
    let mut record = dir.record()?;
    crate::recover::settle(runtime, &dir, &record)?;
    if !volumes && !record.spec.auto_remove {
        record.anonymous_volumes.clear();
    }
    let removed = everything(runtime, &record).into_result(&record.name);
    removed.inspect_err(|error| {
        // For who lists containers; the error itself goes to the caller.
        let _ = dir.append(&Happened::Dead {
            time: crate::state::now(),
            reason: describe(error).join(": "),
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessIdentity;

    const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    /// A container whose removal was cut off, and that somebody has started all the same.
    #[test]
    fn a_container_is_not_removed_under_a_monitor_that_came_meanwhile() {
        let root = tempfile::tempdir().expect("tempdir");
        let runtime = Runtime::open_only(root.path()).expect("open");
        let record = Record {
            version: 1,
            id: ID.into(),
            name: "n".into(),
            image: String::new(),
            image_id: String::new(),
            created: String::new(),
            detached: true,
            command: Vec::new(),
            spec: Default::default(),
            mounts: Vec::new(),
            anonymous_volumes: Vec::new(),
            stop_signal: 15,
            image_config: None,
        };
        runtime.state().claim_name("n", ID).expect("name");
        let (dir, making) = runtime.state().create(&record, true).expect("create");
        std::fs::write(dir.file(REMOVING), "[]").expect("write");
        // Whoever opens the root is just here: it has seen a removal that was cut off, and no owner. While the lock is
        // held that is somebody's affair...
        assert!(finish(&runtime, ID).expect("finish"));
        assert!(dir.path().exists());
        drop(making);
        // ... and so it is when the owner lives, though no helper holds its lock between two runs.
        assert!(dir.owner().expect("owner").is_alive());
        assert!(finish(&runtime, ID).expect("finish"));
        assert!(dir.path().exists(), "removed under its monitor");
        // A dead one has nothing to lose.
        let mut dead = ProcessIdentity::current().expect("identity");
        dead.start += 1;
        dir.write_file("owner", &dead).expect("write");
        assert!(finish(&runtime, ID).expect("finish"));
        assert!(!dir.path().exists());
        assert!(runtime.state().ids().expect("ids").is_empty());
        assert!(!root.path().join("containers/names/n").exists());
    }
}
