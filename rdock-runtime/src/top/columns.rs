//! The columns of `ps` (its options `-ef`, `aux`, `-o`), as far as /proc has them.

use super::{ProcessInfo, Top};
use crate::error::{Error, Result};
use crate::procfs;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A column and its heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    kind: Kind,
    heading: String,
}

macro_rules! kinds {
    ($($kind:ident $heading:literal $($name:literal)+,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Kind { $($kind,)+ }

        /// Names that ps has for each column; the heading of each.
        const NAMES: &[(&str, Kind, &str)] = &[$($(($name, Kind::$kind, $heading),)+)+];
    };
}

kinds! {
    Pid "PID" "pid" "tgid",
    Parent "PPID" "ppid",
    Group "PGID" "pgid" "pgrp",
    Session "SID" "sid" "sess" "session",
    ContainerPid "NSPID" "nspid" "hpid",
    User "USER" "user" "euser" "uname",
    UserId "UID" "uid" "euid",
    RealUser "RUSER" "ruser",
    RealUserId "RUID" "ruid",
    GroupName "GROUP" "group" "egroup",
    GroupId "GID" "gid" "egid",
    RealGroupId "RGID" "rgid",
    Arguments "COMMAND" "args" "command",
    ArgumentsShort "CMD" "cmd",
    Name "COMMAND" "comm" "ucmd" "ucomm",
    State "S" "s" "state",
    Stat "STAT" "stat",
    Terminal "TTY" "tty" "tt" "tname",
    CpuShare "C" "c",
    CpuPercent "%CPU" "pcpu" "%cpu",
    MemoryPercent "%MEM" "pmem" "%mem",
    Resident "RSS" "rss" "rssize" "rsz",
    Virtual "VSZ" "vsz" "vsize",
    Time "TIME" "time" "cputime",
    TimeShort "TIME" "bsdtime",
    Seconds "TIME" "cputimes" "times",
    Elapsed "ELAPSED" "etime",
    ElapsedSeconds "ELAPSED" "etimes",
    Start "STIME" "stime" "start_time",
    StartLong "STARTED" "lstart" "start",
    Nice "NI" "ni" "nice",
    Priority "PRI" "pri" "priority",
    Threads "NLWP" "nlwp" "thcount",
    Processor "PSR" "psr",
}

/// Reads options of ps.
pub(super) fn parse<I: IntoIterator<Item: AsRef<str>>>(options: I) -> Result<Vec<Column>> {
    let options: Vec<String> = options
        .into_iter()
        .map(|option| option.as_ref().to_owned())
        .collect();
    let wrong = |option: &str, reason: &str| Error::PsOption {
        option: option.to_owned(),
        reason: reason.to_owned(),
    };
    let mut columns = Vec::new();
    let mut wide = None;
    let mut words = options.iter().flat_map(|option| option.split_whitespace());
    while let Some(word) = words.next() {
        if let Some(list) = word
            .strip_prefix("--format=")
            .or_else(|| word.strip_prefix("--format"))
        {
            let list = match list {
                "" => words
                    .next()
                    .ok_or_else(|| wrong(word, "names of columns are missing"))?,
                list => list,
            };
            add(&mut columns, list)?;
            continue;
        }
        let (letters, dashed) = match word.strip_prefix('-') {
            Some(letters) => (letters, true),
            None => (word, false),
        };
        let mut rest = letters;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            match letter {
                'o' | 'O' => {
                    let list = match rest {
                        "" => words
                            .next()
                            .ok_or_else(|| wrong(word, "names of columns are missing"))?,
                        list => list,
                    };
                    add(&mut columns, list)?;
                    rest = "";
                }
                // Which processes: those of the container in any case.
                'e' | 'A' | 'a' | 'x' | 'w' | 'd' | 'g' | 'r' | 'T' | 'H' => {}
                'f' if dashed => wide = Some(FULL),
                'f' => {}
                'F' if dashed => wide = Some(FULL),
                'u' if !dashed => wide = Some(BSD),
                'l' => wide = Some(LONG),
                'j' => wide = Some(JOBS),
                _ => {
                    return Err(wrong(
                        word,
                        "known are -ef, aux, -l, -j and -o with names of columns",
                    ));
                }
            }
        }
    }
    if columns.is_empty() {
        add(
            &mut columns,
            wide.unwrap_or(match options.is_empty() {
                true => FULL,
                false => PLAIN,
            }),
        )?;
    }
    Ok(columns)
}

const FULL: &str = "user=UID,pid,ppid,c,stime,tty,time,cmd";
const BSD: &str = "user,pid,%cpu,%mem,vsz,rss,tty,stat,stime=START,bsdtime,args";
const LONG: &str = "s,uid,pid,ppid,c,pri,ni,vsz,tty,time,cmd";
const JOBS: &str = "pid,pgid,sid,tty,time,cmd";
const PLAIN: &str = "pid,tty,time,cmd";

fn add(columns: &mut Vec<Column>, list: &str) -> Result<()> {
    for item in list.split(',') {
        let (name, heading) = match item.split_once('=') {
            Some((name, heading)) => (name, Some(heading)),
            None => (item, None),
        };
        let Some((_, kind, usual)) = NAMES.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = NAMES.iter().map(|(known, ..)| *known).collect();
            return Err(Error::PsOption {
                option: item.to_owned(),
                reason: format!("no such column; there are {}", known.join(", ")),
            });
        };
        columns.push(Column {
            kind: *kind,
            heading: heading.unwrap_or(usual).to_owned(),
        });
    }
    Ok(())
}

/// The rows.
pub(super) fn table(columns: &[Column], processes: &[ProcessInfo]) -> Top {
    let host = Host {
        now: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
        memory: procfs::memory_total(),
        users: names("/etc/passwd"),
        groups: names("/etc/group"),
    };
    Top {
        titles: columns.iter().map(|column| column.heading.clone()).collect(),
        processes: processes
            .iter()
            .map(|process| {
                columns
                    .iter()
                    .map(|column| host.cell(column.kind, process))
                    .collect()
            })
            .collect(),
    }
}

/// What cells need beside the process.
struct Host {
    now: i64,
    memory: u64,
    /// Of the host, as under docker: the container's own files are not looked at.
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

fn names(path: &str) -> BTreeMap<u32, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
            found.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    found
}

impl Host {
    fn cell(&self, kind: Kind, process: &ProcessInfo) -> String {
        let name = |names: &BTreeMap<u32, String>, id: u32| {
            names.get(&id).cloned().unwrap_or_else(|| id.to_string())
        };
        let age = Duration::from_nanos(self.now.saturating_sub(process.started_nanos));
        let cpu = process.cpu_time.as_secs();
        match kind {
            Kind::Pid => process.pid.to_string(),
            Kind::Parent => process.parent.to_string(),
            Kind::Group => process.group.to_string(),
            Kind::Session => process.session.to_string(),
            Kind::ContainerPid => process.container_pid.to_string(),
            Kind::User => name(&self.users, process.uid),
            Kind::UserId => process.uid.to_string(),
            Kind::RealUser => name(&self.users, process.real_uid),
            Kind::RealUserId => process.real_uid.to_string(),
            Kind::GroupName => name(&self.groups, process.gid),
            Kind::GroupId => process.gid.to_string(),
            Kind::RealGroupId => process.real_gid.to_string(),
            Kind::Arguments | Kind::ArgumentsShort => command(process),
            Kind::Name => printable(&process.name),
            Kind::State => process.state.to_string(),
            Kind::Stat => stat(process),
            Kind::Terminal => terminal(process.terminal),
            Kind::CpuShare => format!("{:.0}", self.percent(process).min(99.0).floor()),
            Kind::CpuPercent => format!("{:.1}", self.percent(process)),
            Kind::MemoryPercent => {
                format!(
                    "{:.1}",
                    100.0 * process.resident_size as f64 / (self.memory.max(1)) as f64
                )
            }
            Kind::Resident => (process.resident_size / 1024).to_string(),
            Kind::Virtual => (process.virtual_size / 1024).to_string(),
            Kind::Time => clock(cpu, false),
            Kind::TimeShort => format!("{}:{:02}", cpu / 60, cpu % 60),
            Kind::Seconds => cpu.to_string(),
            Kind::Elapsed => clock(age.0, true),
            Kind::ElapsedSeconds => age.0.to_string(),
            Kind::Start => start(process.started_nanos, self.now),
            Kind::StartLong => moment(process.started_nanos, "%a %b %e %H:%M:%S %Y"),
            Kind::Nice => process.nice.to_string(),
            Kind::Priority => (39 - process.priority.clamp(-100, 139)).to_string(),
            Kind::Threads => process.threads.to_string(),
            Kind::Processor => process.processor.to_string(),
        }
    }

    /// Processor time over the process's age, as ps has it.
    fn percent(&self, process: &ProcessInfo) -> f64 {
        let age = self.now.saturating_sub(process.started_nanos).max(1) as f64;
        100.0 * process.cpu_time.as_nanos() as f64 / age
    }
}

/// Whole seconds; a clock that was set back makes nothing negative.
struct Duration(u64);

impl Duration {
    fn from_nanos(nanos: i64) -> Self {
        Self((nanos.max(0) / 1_000_000_000).cast_unsigned())
    }
}

fn command(process: &ProcessInfo) -> String {
    match process.arguments.is_empty() {
        true => format!(
            "[{}]{}",
            printable(&process.name),
            if process.state == 'Z' { " <defunct>" } else { "" }
        ),
        false => printable(&process.arguments.join(" ")),
    }
}

/// A process names itself: nothing of it may move a terminal's cursor or forge a line.
fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

fn stat(process: &ProcessInfo) -> String {
    let mut text = process.state.to_string();
    match process.nice {
        ..0 => text.push('<'),
        0 => {}
        _ => text.push('N'),
    }
    for (is, letter) in [
        (process.locked, 'L'),
        (process.leads_session, 's'),
        (process.threads > 1, 'l'),
        (process.foreground && process.terminal != 0, '+'),
    ] {
        if is {
            text.push(letter);
        }
    }
    text
}

/// `pts/0`, `tty1`, `?`; numbers of the kernel's Documentation/admin-guide/devices.
fn terminal(device: u64) -> String {
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    );
    match major {
        0 => "?".to_owned(),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => format!("{major}:{minor}"),
    }
}

/// `[days-]hours:minutes:seconds`; an elapsed time has hours only when there are any.
fn clock(seconds: u64, elapsed: bool) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let mut text = String::new();
    if days > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, "{days}-");
    }
    if !elapsed || days > 0 || hours > 0 {
        let _ = write!(text, "{hours:02}:");
    }
    let _ = write!(text, "{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    text
}

/// The time of today, else the day.
fn start(nanos: i64, now: i64) -> String {
    let format = match moment(nanos, "%F") == moment(now, "%F") {
        true => "%H:%M",
        false => "%b%d",
    };
    moment(nanos, format)
}

fn moment(nanos: i64, format: &str) -> String {
    let Ok(time) = jiff::Timestamp::from_nanosecond(nanos.into()) else {
        return String::new();
    };
    let local = jiff::tz::TimeZone::system().to_datetime(time);
    local.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headings(options: &[&str]) -> String {
        let columns = parse(options).expect("parse");
        columns
            .iter()
            .map(|column| column.heading.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn options_choose_the_columns_that_ps_has_for_them() {
        assert_eq!(headings(&[]), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(headings(&["-ef"]), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(
            headings(&["aux"]),
            "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"
        );
        assert_eq!(headings(&["-eo", "pid,comm"]), "PID COMMAND");
        assert_eq!(
            headings(&["-o", "pid=NUMBER,args", "-o", "rss"]),
            "NUMBER COMMAND RSS"
        );
        assert_eq!(headings(&["-opid"]), "PID");
        assert_eq!(headings(&["--format", "pid,etime"]), "PID ELAPSED");
        assert_eq!(headings(&["-e"]), "PID TTY TIME CMD");
        for wrong in [
            &["-o"][..],
            &["-o", "colour"],
            &["-Z"],
            &["--sort=pid"],
            &["-o", ""],
        ] {
            assert!(matches!(parse(wrong), Err(Error::PsOption { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn times_and_terminals_look_as_in_ps() {
        assert_eq!(clock(59, false), "00:00:59");
        assert_eq!(clock(90_061, false), "1-01:01:01");
        assert_eq!(clock(59, true), "00:59");
        assert_eq!(clock(3_661, true), "01:01:01");
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal(0x8803), "pts/3");
        assert_eq!(terminal(0x0401), "tty1");
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a?[2Jb?c");
    }

    proptest! {
        #[test]
        fn any_options_are_columns_or_an_error(options in "[-a-z%=, ]{0,40}") {
            let _ = parse([options]);
        }
    }
}
