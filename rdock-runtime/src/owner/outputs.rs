//! What the payload writes: into the log, and to whoever is attached.

use super::{Owner, Shared};
use crate::logs::LogStream;
use crate::reactor::{Interest, Loop, Token};
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// The payload's outputs.
#[derive(Default)]
pub(super) struct Outputs {
    all: Vec<Output>,
    /// Clients that have not taken everything yet, after the end of an output.
    lingering: Vec<Sink>,
    buffer: Vec<u8>,
}

struct Output {
    fd: Rc<OwnedFd>,
    stream: LogStream,
    token: Token,
    sinks: Vec<Sink>,
}

/// One attached client; a socket, since writing to a closed one raises no signal in the host program.
struct Sink {
    number: u64,
    fd: Rc<OwnedFd>,
    /// Read from the payload and not yet taken by the client; the payload waits meanwhile.
    pending: Vec<u8>,
    token: Option<Token>,
}

/// Reads `fd` from now on.
pub(super) fn watch(
    events: &mut Loop,
    owner: &Shared,
    fd: Rc<OwnedFd>,
    stream: LogStream,
) -> std::io::Result<()> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    let this = owner.clone();
    let token = events.add(&*fd, Interest::IN, move |events, _| {
        read_some(events, &this, stream, false);
    })?;
    owner.borrow_mut().outputs.all.push(Output {
        fd,
        stream,
        token,
        sinks: Vec::new(),
    });
    Ok(())
}

/// Copies an output to `sink` from now on.
pub(super) fn connect(owner: &Shared, stream: LogStream, sink: OwnedFd) -> std::io::Result<()> {
    rustix::io::ioctl_fionbio(&sink, true)?;
    let mut this = owner.borrow_mut();
    let number = this.next_connection;
    this.next_connection += 1;
    if let Some(output) = this.outputs.all.iter_mut().find(|output| output.stream == stream) {
        output.sinks.push(Sink {
            number,
            fd: Rc::new(sink),
            pending: Vec::new(),
            token: None,
        });
    }
    Ok(())
}

/// Reads once; false at the end of the output or when there is nothing now. After the end of the payload
/// (`ending`) everything is read, however slow the clients are: a pipe's worth at most.
fn read_some(events: &mut Loop, owner: &Shared, stream: LogStream, ending: bool) -> bool {
    let mut borrowed = owner.borrow_mut();
    let Owner { outputs, log, .. } = &mut *borrowed;
    let Outputs { all, buffer, .. } = outputs;
    let Some(at) = all.iter().position(|output| output.stream == stream) else {
        return false;
    };
    buffer.resize(CHUNK, 0);
    let output = &mut all[at];
    let read = match rustix::io::read(&*output.fd, &mut buffer[..]) {
        Ok(read) => read,
        Err(Errno::AGAIN | Errno::INTR) => return false,
        // EIO: the last process has closed the terminal.
        Err(_) => 0,
    };
    if read == 0 {
        drop(borrowed);
        close(events, owner, stream);
        return false;
    }
    // A full disk must not stop the payload: what does not fit is lost from the log alone.
    let _ = log.write(stream, &buffer[..read]);
    let mut blocked = Vec::new();
    output.sinks.retain_mut(|sink| {
        if !sink.pending.is_empty() {
            sink.pending.extend_from_slice(&buffer[..read]);
            return true;
        }
        match send(&sink.fd, &buffer[..read]) {
            Ok(sent) if sent == read => true,
            Ok(sent) => {
                sink.pending.extend_from_slice(&buffer[sent..read]);
                blocked.push((sink.number, sink.fd.clone()));
                true
            }
            Err(_) => false,
        }
    });
    // An idle container keeps no buffer.
    if read < CHUNK {
        *buffer = Vec::new();
    }
    let (fd, token) = (output.fd.clone(), output.token);
    drop(borrowed);
    if blocked.is_empty() || ending {
        return true;
    }
    // Back-pressure: nothing is read until every client has taken its part.
    if events.modify(token, &*fd, Interest::empty()).is_ok() {
        for (number, sink) in blocked {
            wait_for(events, owner, stream, number, sink);
        }
    }
    false
}

fn wait_for(events: &mut Loop, owner: &Shared, stream: LogStream, number: u64, fd: Rc<OwnedFd>) {
    let this = owner.clone();
    let added = events.add(&*fd, Interest::OUT, move |events, _| {
        push_pending(events, &this, stream, number)
    });
    if let Ok(token) = added {
        let mut this = owner.borrow_mut();
        if let Some(sink) = this.outputs.sink(stream, number) {
            sink.token = Some(token);
        }
    }
}

fn push_pending(events: &mut Loop, owner: &Shared, stream: LogStream, number: u64) {
    let mut this = owner.borrow_mut();
    let Some(sink) = this.outputs.sink(stream, number) else {
        return;
    };
    let gone = match send(&sink.fd, &sink.pending) {
        Ok(sent) => {
            sink.pending.drain(..sent);
            if !sink.pending.is_empty() {
                return;
            }
            false
        }
        Err(_) => true,
    };
    if let Some(token) = sink.token.take() {
        events.remove(token, &*sink.fd);
    }
    let Some(output) = this.outputs.all.iter_mut().find(|output| output.stream == stream) else {
        return;
    };
    if gone {
        output.sinks.retain(|sink| sink.number != number);
    }
    if output.sinks.iter().all(|sink| sink.pending.is_empty()) {
        // Failing here means the descriptor is no longer watched, and then nothing is to be resumed.
        let _ = events.modify(output.token, &*output.fd, Interest::IN);
    }
}

/// Sends what fits; `Err` when the client is gone.
fn send(fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    let mut sent = 0;
    while sent < bytes.len() {
        match rustix::net::send(fd, &bytes[sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => sent += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(sent)
}

/// After the end of the payload: everything it wrote is read, then the outputs are closed.
pub(super) fn drain(events: &mut Loop, owner: &Shared) {
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        while read_some(events, owner, stream, true) {}
        close(events, owner, stream);
    }
}

/// Ends an output. A client that has not taken everything yet keeps its part until it has, or leaves.
fn close(events: &mut Loop, owner: &Shared, stream: LogStream) {
    let mut this = owner.borrow_mut();
    let Some(at) = this.outputs.all.iter().position(|output| output.stream == stream) else {
        return;
    };
    let output = this.outputs.all.remove(at);
    events.remove(output.token, &*output.fd);
    for mut sink in output.sinks {
        if let Some(token) = sink.token.take() {
            events.remove(token, &*sink.fd);
        }
        if sink.pending.is_empty() {
            continue;
        }
        let (again, number, fd) = (owner.clone(), sink.number, sink.fd.clone());
        let added = events.add(&*fd, Interest::OUT, move |events, _| {
            linger(events, &again, number)
        });
        if let Ok(token) = added {
            sink.token = Some(token);
            this.outputs.lingering.push(sink);
        }
    }
}

fn linger(events: &mut Loop, owner: &Shared, number: u64) {
    let mut this = owner.borrow_mut();
    let lingering = &mut this.outputs.lingering;
    let Some(at) = lingering.iter().position(|sink| sink.number == number) else {
        return;
    };
    let sink = &mut lingering[at];
    if let Ok(sent) = send(&sink.fd, &sink.pending) {
        sink.pending.drain(..sent);
        if !sink.pending.is_empty() {
            return;
        }
    }
    let sink = lingering.swap_remove(at);
    if let Some(token) = sink.token {
        events.remove(token, &*sink.fd);
    }
    drop(this);
    super::end_if_done(events, owner);
}

impl Outputs {
    fn sink(&mut self, stream: LogStream, number: u64) -> Option<&mut Sink> {
        let output = self.all.iter_mut().find(|output| output.stream == stream)?;
        output.sinks.iter_mut().find(|sink| sink.number == number)
    }

    /// Whether every client has everything.
    pub(super) fn are_delivered(&self) -> bool {
        self.lingering.is_empty()
    }
}
