//! The host's forwarding, by interface: switched on while a network needs it, and off again afterwards.
//!
//! An answer from the outside comes in by the interface of the default route and goes on to the uplink, which the
//! kernel only does when that interface forwards. A host that was no router before is none to others meanwhile: our
//! table drops what comes in there and is not for an uplink. What was switched on is noted under `/run`, so that a
//! program that comes after a crash can switch it off.

use super::state;
use std::fs;
use std::io;
use std::path::PathBuf;

/// Files `<inode of the network namespace>_<interface>`.
fn notes() -> PathBuf {
    PathBuf::from("/run/rdock/forwarding")
}

/// Switches an interface on. The caller holds the host's lock.
pub(super) fn switch_on(interface: &str) -> Result<(), (PathBuf, io::Error)> {
    let setting = setting(interface);
    if fs::read(&setting).is_ok_and(|now| now.trim_ascii() == b"1") {
        return Ok(());
    }
    let note = note(interface).map_err(|error| (notes(), error))?;
    // The note comes first: a setting without one would stay.
    fs::create_dir_all(notes())
        .and_then(|()| fs::write(&note, ""))
        .map_err(|error| (note.clone(), error))?;
    fs::write(&setting, "1").map_err(|error| {
        let _ = fs::remove_file(note);
        (setting, error)
    })
}

/// The interfaces of this host that forward only because of us.
pub(super) fn switched_on() -> Vec<String> {
    let (Ok(entries), Ok(prefix)) = (fs::read_dir(notes()), prefix()) else {
        return Vec::new();
    };
    let name = |entry: fs::DirEntry| {
        entry
            .file_name()
            .to_str()?
            .strip_prefix(&prefix)
            .map(String::from)
    };
    entries.flatten().filter_map(name).collect()
}

/// Switches them off again. The caller holds the host's lock, and the host has no uplink any more.
pub(super) fn switch_off() -> io::Result<()> {
    for interface in switched_on() {
        match fs::write(setting(&interface), "0") {
            // The interface may be gone.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::remove_file(note(&interface)?)?,
        }
    }
    Ok(())
}

fn setting(interface: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net/ipv4/conf")
        .join(interface)
        .join("forwarding")
}

fn note(interface: &str) -> io::Result<PathBuf> {
    Ok(notes().join(prefix()? + interface))
}

/// Tells hosts in namespaces of their own apart.
fn prefix() -> io::Result<String> {
    let own = fs::File::open("/proc/thread-self/ns/net")?;
    let (_, inode) = state::identity(own).ok_or(io::ErrorKind::NotFound)?;
    Ok(format!("{inode}_"))
}
