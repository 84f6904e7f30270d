//! Users and groups of `--chown` and USER, by the files of the image: never by the host's.
use rdock_image::MergedView;
use std::io::Read;

/// Larger files are none that a person wrote.
const LARGEST: u64 = 4 << 20;

/// Returns user and group id of `user`, `uid`, `user:group`, `uid:gid`. A user without a group has the one of its entry; an
/// id without one has the group of the same number, as docker has it.
pub(crate) fn resolve(view: &MergedView, text: &str) -> Result<(u32, u32), String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let (uid, mut gid) = match (user, number(user)) {
        ("", _) => (0, 0),
        (_, Some(id)) => (id, id),
        (name, None) => {
            let line = find(view, "etc/passwd", name)?
                .ok_or_else(|| format!("there is no user {name:?} in the image's /etc/passwd"))?;
            match (
                line.get(2).and_then(|id| number(id)),
                line.get(3).and_then(|id| number(id)),
            ) {
                (Some(uid), Some(gid)) => (uid, gid),
                _ => {
                    return Err(format!(
                        "the entry of user {name:?} in the image's /etc/passwd is malformed"
                    ));
                }
            }
        }
    };
    match group {
        None | Some("") => {}
        Some(group) => {
            gid = match number(group) {
                Some(id) => id,
                None => {
                    let line = find(view, "etc/group", group)?
                        .ok_or_else(|| format!("there is no group {group:?} in the image's /etc/group"))?;
                    line.get(2).and_then(|id| number(id)).ok_or_else(|| {
                        format!("the entry of group {group:?} in the image's /etc/group is malformed")
                    })?
                }
            };
        }
    }
    Ok((uid, gid))
}

/// The fields of the first line that begins with `name`.
fn find(view: &MergedView, path: &str, name: &str) -> Result<Option<Vec<String>>, String> {
    let info = view.metadata(path).map_err(|error| error.to_string())?;
    if info.is_none() {
        return Ok(None);
    }
    // Only a regular file is opened: no pipe can hold the build, and no device can be read.
    let file = view
        .open_file(path)
        .map_err(|error| format!("cannot read the image's /{path}: {error}"))?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read the image's /{path}: {error}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("the image's /{path} is larger than {LARGEST} bytes"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    Ok(line.map(|line| line.split(':').map(str::to_owned).collect()))
}
