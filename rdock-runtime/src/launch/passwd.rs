//! Users and groups of a container, from its own passwd and group files. Compiled into the helper too;
//! `core` only. The files are hostile: nothing is assumed about them but their size, which the caller bounds.
//!
//! Rules as in Docker: a name is looked up first, then a decimal number is taken as an id. A number never
//! falls back to a name of another id, never wraps, and everything else is an error.

/// Most supplementary groups kept.
pub(crate) const MOST_GROUPS: usize = 64;

/// Who a process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity<'a> {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: [u32; MOST_GROUPS],
    pub(crate) group_count: usize,
    /// Of the passwd entry; empty without one.
    pub(crate) home: &'a [u8],
}

/// Why there is no such identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown<'a> {
    User(&'a [u8]),
    Group(&'a [u8]),
}

impl<'a> Unknown<'a> {
    /// What was looked for.
    #[cfg_attr(test, allow(dead_code))]
    pub(crate) fn name(self) -> &'a [u8] {
        match self {
            Self::User(name) | Self::Group(name) => name,
        }
    }
}

/// A decimal id: digits only, at most 2^31 - 1 as in Docker.
pub(crate) fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    let mut value = 0u64;
    for &byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(byte - b'0');
    }
    if value < 1 << 31 { Some(value as u32) } else { None }
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|&byte| byte == b'\n')
        .map(trim)
        .filter(|line| !line.is_empty() && line[0] != b'#')
}

fn trim(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r', rest @ ..] | [rest @ .., b' ' | b'\t' | b'\r'] = line {
        line = rest;
    }
    line
}

fn field(line: &[u8], index: usize) -> Option<&[u8]> {
    line.split(|&byte| byte == b':').nth(index)
}

/// Looks up `user[:group]`; `""` is uid 0.
pub(crate) fn resolve<'a>(
    user: &'a [u8],
    additional: impl Iterator<Item = &'a [u8]>,
    passwd: &'a [u8],
    group: &'a [u8],
) -> Result<Identity<'a>, Unknown<'a>> {
    let (name, group_name) = match user.iter().position(|&byte| byte == b':') {
        Some(at) => (&user[..at], &user[at + 1..]),
        None => (user, &user[..0]),
    };
    let mut found = Identity {
        uid: 0,
        gid: 0,
        groups: [0; MOST_GROUPS],
        group_count: 0,
        home: &[],
    };
    let mut login: &[u8] = &[];
    let entry = |wanted: &dyn Fn(&[u8], u32) -> bool| {
        lines(passwd).find_map(|line| {
            let (login, uid, gid) = (
                field(line, 0)?,
                number(field(line, 2)?)?,
                number(field(line, 3)?)?,
            );
            wanted(login, uid).then_some((login, uid, gid, field(line, 5).unwrap_or(&[])))
        })
    };
    let by_name = if name.is_empty() {
        None
    } else {
        entry(&|login, _| login == name)
    };
    let uid = if name.is_empty() { Some(0) } else { number(name) };
    let matched = by_name.or_else(|| uid.and_then(|wanted| entry(&|_, uid| uid == wanted)));
    match (matched, uid) {
        // A line that names a number as login must not change which id the number means.
        (Some((_, other, ..)), Some(uid)) if other != uid => {
            found.uid = uid;
            if let Some((own, _, gid, home)) = entry(&|_, candidate| candidate == uid) {
                (login, found.gid, found.home) = (own, gid, home);
            }
        }
        (Some((own, uid, gid, home)), _) => {
            (login, found.uid, found.gid, found.home) = (own, uid, gid, home);
        }
        (None, Some(uid)) => found.uid = uid,
        (None, None) => return Err(Unknown::User(name)),
    }
    if user.len() > name.len() {
        if group_name.is_empty() {
            return Err(Unknown::Group(group_name));
        }
        found.gid = group_id(group_name, group).ok_or(Unknown::Group(group_name))?;
    } else if !login.is_empty() {
        // Without an explicit group the user's memberships count.
        for line in lines(group) {
            let (Some(gid), Some(members)) = (field(line, 2).and_then(number), field(line, 3)) else {
                continue;
            };
            if members
                .split(|&byte| byte == b',')
                .any(|member| trim(member) == login)
            {
                found.add(gid);
            }
        }
    }
    for name in additional {
        found.add(group_id(name, group).ok_or(Unknown::Group(name))?);
    }
    Ok(found)
}

impl Identity<'_> {
    fn add(&mut self, gid: u32) {
        let held = &self.groups[..self.group_count];
        if self.group_count < MOST_GROUPS && !held.contains(&gid) {
            self.groups[self.group_count] = gid;
            self.group_count += 1;
        }
    }
}

fn group_id(name: &[u8], group: &[u8]) -> Option<u32> {
    if let Some(id) = number(name) {
        return Some(id);
    }
    lines(group)
        .find(|line| field(line, 0) == Some(name))
        .and_then(|line| number(field(line, 2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nmysql:x:999:998::/var/lib/mysql:\n1000:x:0:0::/evil:\n\
        bad line\nbig:x:4294967296:0::/:\nminus:x:-1:0::/:\n#mysql:x:0:0::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nmysql:x:998:\nextra:x:77:other,mysql\nwheel:x:10: mysql ,root\n";

    fn user(text: &str) -> Result<Identity<'_>, Unknown<'_>> {
        resolve(text.as_bytes(), std::iter::empty(), PASSWD, GROUP)
    }

    #[test]
    fn rt_user_numeric() {
        let found = user("mysql").expect("by name");
        assert_eq!(
            (found.uid, found.gid, found.home),
            (999, 998, &b"/var/lib/mysql"[..])
        );
        assert_eq!(&found.groups[..found.group_count], [77, 10]);
        assert_eq!(user("").expect("nobody asked for").uid, 0);
        assert_eq!(user("999").expect("by number").gid, 998);
        // A hostile line names a number as login and gives it another id.
        let found = user("1000").expect("by number");
        assert_eq!((found.uid, found.gid, found.home), (1000, 0, &b""[..]));
        let found = user("1:1").expect("numbers");
        assert_eq!((found.uid, found.gid, found.group_count), (1, 1, 0));
        for wrong in [
            "-1",
            "2147483648",
            "4294967295",
            "4294967296",
            "0x0",
            "nobody",
            "big",
            "minus",
            "root:",
            "root:no",
            " 0",
        ] {
            assert!(user(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(user(":").map(|found| found.uid), Err(Unknown::Group(b"")));
        assert_eq!(user("2147483647").expect("the last one").uid, 2_147_483_647);
    }

    #[test]
    fn rt_supplementary_groups() {
        let more = [&b"extra"[..], b"4242"];
        let found = resolve(b"root", more.into_iter(), PASSWD, GROUP).expect("known groups");
        assert_eq!(&found.groups[..found.group_count], [10, 77, 4242]);
        // With an explicit group the memberships do not count.
        assert_eq!(user("mysql:root").expect("known").group_count, 0);
        let unknown = [&b"nobody"[..]];
        assert_eq!(
            resolve(b"root", unknown.into_iter(), PASSWD, GROUP),
            Err(Unknown::Group(b"nobody"))
        );
    }
}
