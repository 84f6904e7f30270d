//! Reading the journal: what was, and what comes.

use super::filter::EventFilter;
use super::{Event, EventAction, EventKind, Journal};
use crate::error::{Error, Result};
use crate::moment;
use rustix::fs::inotify;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// A longer line is none that a writer of ours has made, and is passed over.
const LONGEST_LINE: usize = 4 << 20;

/// What happens in a root, whichever process does it; made by [`crate::Runtime::events`].
///
/// Without a span of time it is a stream of what happens from the call on, which never ends. [`Self::since`]
/// and [`Self::until`] replay what is recorded: the last 8 MiB or more of it.
///
/// ```no_run
/// # async fn example(runtime: &rdock_runtime::Runtime) -> rdock_runtime::Result<()> {
/// use rdock_runtime::EventAction;
/// let mut ends = runtime.events().action(EventAction::Die).label("tier", Some("web"));
/// while let Some(event) = ends.next().await? {
///     let (name, code) = (event.attribute("name"), event.attribute("exitCode"));
///     eprintln!("{name:?} ended with {code:?} at {}", event.time());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "events are read by next or next_blocking"]
pub struct Events {
    journal: Journal,
    filter: EventFilter,
    follow: bool,
    since: Option<i64>,
    until: Option<i64>,
    /// The end of the journal when this was made: file and offset.
    from: (u64, u64),
    reader: Option<Reader>,
}

enum Next {
    Event(Event),
    /// For more to be written; for so long at most.
    Wait(Option<Duration>),
    End,
}

impl Events {
    pub(crate) fn new(journal: Journal) -> Self {
        let number = journal.number().unwrap_or(1);
        let size = std::fs::metadata(journal.file(number)).map_or(0, |found| found.len());
        Self {
            journal,
            filter: EventFilter::default(),
            follow: true,
            since: None,
            until: None,
            from: (number, size),
            reader: None,
        }
    }

    /// Begins with what is recorded from `when` on: RFC 3339, unix seconds with decimals, or a duration back
    /// from now (`10m`, `1h30m`).
    ///
    /// # Errors
    /// [`Error::Time`] for anything else.
    pub fn since(self, when: &str) -> Result<Self> {
        let when = nanos(moment::parse(when)?);
        Ok(self.since_nanos(when))
    }

    /// [`Self::since`] a time in nanoseconds since 1970, such as [`Event::time_nanos`] and one.
    pub fn since_nanos(mut self, nanos: i64) -> Self {
        self.since = Some(nanos);
        self
    }

    /// Ends at `when`, written as for [`Self::since`]. Without [`Self::since`] everything that is recorded
    /// until then comes.
    ///
    /// # Errors
    /// [`Error::Time`] for anything else.
    pub fn until(self, when: &str) -> Result<Self> {
        let when = nanos(moment::parse(when)?);
        Ok(self.until_nanos(when))
    }

    /// [`Self::until`] a time in nanoseconds since 1970.
    pub fn until_nanos(mut self, nanos: i64) -> Self {
        self.until = Some(nanos);
        self
    }

    /// Goes on with new events; on by default. Without it everything that is recorded comes, from
    /// [`Self::since`] on when that is given, and then the end.
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// Leaves out what `filter` does not match.
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Only things that happen to this kind of object; several are alternatives.
    pub fn kind(mut self, kind: EventKind) -> Self {
        self.filter = self.filter.kind(kind);
        self
    }

    /// Only this action; several are alternatives.
    pub fn action(mut self, action: EventAction) -> Self {
        self.filter = self.filter.action(action);
        self
    }

    /// Only the container with this id or name; several are alternatives.
    pub fn container(mut self, container: impl Into<String>) -> Self {
        self.filter = self.filter.container(container);
        self
    }

    /// Only objects with this label, and this value when one is given; several must all be there.
    pub fn label(mut self, name: impl Into<String>, value: Option<&str>) -> Self {
        self.filter = self.filter.label(name, value);
        self
    }

    /// The next event, or `None` at the end: of the span of time, or of the journal without
    /// [`Self::follow`]. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the journal cannot be read or watched.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            let limit = match self.step()? {
                Next::Event(event) => return Ok(Some(event)),
                Next::End => return Ok(None),
                Next::Wait(limit) => limit,
            };
            let ready = crate::sys::readable(self.watch()?.as_fd());
            let waited = match limit {
                None => ready.await,
                Some(limit) => tokio::time::timeout(limit, ready).await.unwrap_or(Ok(())),
            };
            waited.map_err(Error::system("watch the events"))?;
        }
    }

    /// [`Self::next`] for programs without an asynchronous runtime; blocks.
    ///
    /// # Errors
    /// When the journal cannot be read or watched.
    pub fn next_blocking(&mut self) -> Result<Option<Event>> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        loop {
            let limit = match self.step()? {
                Next::Event(event) => return Ok(Some(event)),
                Next::End => return Ok(None),
                Next::Wait(limit) => limit,
            };
            let limit = limit.map(|limit| Timespec {
                tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(limit.subsec_nanos()),
            });
            match poll(&mut [PollFd::new(self.watch()?, PollFlags::IN)], limit.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::system("watch the events")(errno.into())),
            }
        }
    }

    fn watch(&self) -> Result<&OwnedFd> {
        let watch = self.reader.as_ref().and_then(|reader| reader.watch.as_ref());
        watch.ok_or_else(|| Error::system("watch the events")(std::io::ErrorKind::NotConnected.into()))
    }

    /// Opens the journal at its place, once.
    pub(super) fn begin(&mut self) -> Result<&mut Reader> {
        if self.reader.is_none() {
            let replay = self.since.is_some() || self.until.is_some() || !self.follow;
            let from = (!replay).then_some(self.from);
            let reader = Reader::open(self.journal.clone(), self.follow, from, self.since);
            self.reader = Some(reader.map_err(Error::state("read the events in", self.journal.dir()))?);
        }
        match &mut self.reader {
            Some(reader) => Ok(reader),
            None => unreachable!("opened above"),
        }
    }

    fn step(&mut self) -> Result<Next> {
        loop {
            let dir = self.journal.dir().to_owned();
            let next = self.begin()?.step();
            match next.map_err(Error::state("read the events in", dir))? {
                Some(event) => {
                    let early = self.since.is_some_and(|since| event.time_nanos < since);
                    let late = self.until.is_some_and(|until| event.time_nanos > until);
                    if !early && !late && self.filter.matches(&event) {
                        return Ok(Next::Event(event));
                    }
                }
                None if !self.follow => return Ok(Next::End),
                None => {
                    let Some(until) = self.until else {
                        return Ok(Next::Wait(None));
                    };
                    let left = until.saturating_sub(nanos(jiff::Timestamp::now()));
                    return Ok(match u64::try_from(left) {
                        Err(_) | Ok(0) => Next::End,
                        Ok(left) => Next::Wait(Some(Duration::from_nanos(left))),
                    });
                }
            }
        }
    }
}

fn nanos(time: jiff::Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time.as_nanosecond() < 0 {
        i64::MIN
    } else {
        i64::MAX
    })
}

/// A place in the journal.
#[derive(Debug)]
pub(super) struct Reader {
    journal: Journal,
    number: u64,
    /// None only while there is no journal at all.
    file: Option<File>,
    buffer: Vec<u8>,
    used: usize,
    /// In a line that is too long.
    skipping: bool,
    watch: Option<OwnedFd>,
}

impl Reader {
    fn open(
        journal: Journal,
        follow: bool,
        from: Option<(u64, u64)>,
        since: Option<i64>,
    ) -> std::io::Result<Self> {
        let mut watch = None;
        if follow {
            // What is written before the first read is read; what is written after it wakes.
            journal.begin()?;
            let made = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let flags =
                inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&made, journal.dir(), flags)?;
            watch = Some(made);
        }
        let number = match from {
            Some((number, _)) => number,
            None => oldest(&journal, since)?,
        };
        let mut reader = Self {
            journal,
            number,
            file: None,
            buffer: Vec::new(),
            used: 0,
            skipping: false,
            watch,
        };
        reader.enter(number)?;
        if let (Some(file), Some((wanted, offset))) = (&mut reader.file, from)
            && reader.number == wanted
        {
            // Every write begins with a newline, so that the middle of a line is no trap.
            file.seek(SeekFrom::Start(offset))?;
        }
        Ok(reader)
    }

    /// Opens the first file from `number` on that is there; false when none is.
    fn enter(&mut self, number: u64) -> std::io::Result<bool> {
        let last = self.journal.number().unwrap_or(0);
        for number in number..=last {
            match File::open(self.journal.file(number)) {
                Ok(file) => {
                    self.number = number;
                    self.file = Some(file);
                    self.buffer.clear();
                    (self.used, self.skipping) = (0, false);
                    return Ok(true);
                }
                // Removed meanwhile: older than what is kept.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The next event, or `None` when there is nothing more now.
    fn step(&mut self) -> std::io::Result<Option<Event>> {
        loop {
            while let Some(line) = self.line() {
                if let Ok(event) = serde_json::from_slice(line) {
                    return Ok(Some(event));
                }
            }
            if self.fill()? > 0 {
                continue;
            }
            // Nothing is added to a file that has a successor: after one more read it has been read to its end.
            if self.journal.number().is_some_and(|last| last > self.number) {
                if self.fill()? > 0 || self.enter(self.number + 1)? {
                    continue;
                }
                return Ok(None);
            }
            let Some(watch) = &self.watch else { return Ok(None) };
            let mut notes = [std::mem::MaybeUninit::uninit(); 1024];
            let mut notes = inotify::Reader::new(watch, &mut notes);
            let mut noted = false;
            while notes.next().is_ok() {
                noted = true;
            }
            if !noted {
                return Ok(None);
            }
        }
    }

    fn line(&mut self) -> Option<&[u8]> {
        loop {
            let rest = &self.buffer[self.used..];
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                if rest.len() > LONGEST_LINE {
                    self.skipping = true;
                    self.used = self.buffer.len();
                }
                return None;
            };
            let start = self.used;
            self.used += end + 1;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            return Some(&self.buffer[start..start + end]);
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let Some(file) = &mut self.file else { return Ok(0) };
        self.buffer.drain(..self.used);
        self.used = 0;
        let held = self.buffer.len();
        self.buffer.resize(held + CHUNK, 0);
        let read = file.read(&mut self.buffer[held..]);
        self.buffer.truncate(held + read.as_ref().map_or(0, |&read| read));
        if held == 0 && self.buffer.is_empty() {
            // A stream that waits keeps no buffer.
            self.buffer = Vec::new();
        }
        read
    }
}

/// The first file that can have events since then: those that were written to for the last time before
/// cannot.
fn oldest(journal: &Journal, since: Option<i64>) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let numbers = journal.numbers()?;
    let may_have = |number: &&u64| {
        let Ok(found) = std::fs::metadata(journal.file(**number)) else {
            return false;
        };
        // A file's time is that of the last clock tick, and a writer takes the time before it writes.
        since.is_none_or(|since| found.mtime() >= since / 1_000_000_000 - 1)
    };
    let first = numbers.iter().find(may_have).or(numbers.last());
    Ok(first.copied().unwrap_or(1))
}
