//! Forwarding over real sockets. The "container" is this process: its sockets are made by a stand-in for the helper.

use super::*;
use crate::reactor::{Interest, LoopHandle};
use crate::spec::Protocol;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Domain, kind, protocol and count.
type Asked = (i32, i32, i32, u8, SocketAnswer);

/// Answers from the loop, as the owner does.
struct Maker {
    wake: Rc<OwnedFd>,
    asked: Rc<RefCell<Vec<Asked>>>,
}

impl Maker {
    fn new(events: &mut Loop) -> Rc<Self> {
        let wake = Rc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let maker = Rc::new(Self {
            wake: wake.clone(),
            asked: Rc::default(),
        });
        let asked = maker.asked.clone();
        let own = wake.clone();
        events
            .add(&*wake, Interest::IN, move |events, _| {
                rustix::io::read(&*own, &mut [0u8; 8]).unwrap();
                for (domain, kind, protocol, count, answer) in asked.take() {
                    let made = (0..count).map(|_| {
                        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                        Ok(rustix::net::socket_with(
                            AddressFamily::from_raw(domain as u16),
                            SocketType::from_raw(kind as u32),
                            flags,
                            std::num::NonZeroU32::new(protocol as u32).map(rustix::net::Protocol::from_raw),
                        )?)
                    });
                    let made = made.collect();
                    answer(events, made);
                }
            })
            .unwrap();
        maker
    }
}

impl SocketMaker for Maker {
    fn request(
        &self,
        _: SocketPlace,
        domain: i32,
        kind: i32,
        protocol: i32,
        count: u8,
        answer: SocketAnswer,
    ) {
        self.asked
            .borrow_mut()
            .push((domain, kind, protocol, count, answer));
        rustix::io::write(&*self.wake, &1u64.to_ne_bytes()).unwrap();
    }

    fn payload(&self) -> i32 {
        std::process::id() as i32
    }
}

/// A loop with one published port, on a thread of its own.
struct Published {
    host: SocketAddr,
    container: u16,
    handle: LoopHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Published {
    fn new(protocol: Protocol) -> Self {
        // A free port for the server inside, which is not to listen yet.
        let free = TcpListener::bind("0.0.0.0:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host_ip = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let request = PortRequest {
            host_ip,
            host_port: None,
            container_port: free,
            protocol,
        };
        let bound = bind(&[request]).unwrap();
        let host = bound[0].address;
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut events = Loop::new().unwrap();
            let maker = Maker::new(&mut events);
            tell.send(events.handle()).unwrap();
            let forwarder = serve(&mut events, bound, maker, Ipv4Addr::LOCALHOST).unwrap();
            events.run().unwrap();
            forwarder.stop(&mut events);
        });
        Self {
            host,
            container: free,
            handle: told.recv().unwrap(),
            thread: Some(thread),
        }
    }

    fn server(&self) -> TcpListener {
        TcpListener::bind(("0.0.0.0", self.container)).unwrap()
    }

    /// Connects, trying again while the port is refused.
    fn client(&self) -> TcpStream {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match TcpStream::connect(self.host) {
                Ok(client) => return client,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        self.handle.run(|events| events.stop());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

#[test]
fn clients_are_refused_until_the_server_listens_and_after_it_stopped() {
    let port = Published::new(Protocol::Tcp);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(
        TcpStream::connect(port.host).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    let server = port.server();
    let mut client = port.client();
    let (mut inside, _) = server.accept().unwrap();
    client.write_all(b"hello").unwrap();
    let mut got = [0; 5];
    inside.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    drop(server);
    // The first one finds out, by a reset; later ones are refused. The open connection lives on.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpStream::connect(port.host) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            Ok(mut late) => {
                let end = late.read(&mut [0; 1]);
                assert!(end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert!(Instant::now() < deadline);
    }
    inside.write_all(b"still here").unwrap();
    let mut got = [0; 10];
    client.read_exact(&mut got).unwrap();
    let server = port.server();
    drop(port.client());
    drop(server);
}

#[test]
fn a_half_closed_connection_still_brings_the_answer() {
    let port = Published::new(Protocol::Tcp);
    let server = port.server();
    let mut client = port.client();
    let (mut inside, _) = server.accept().unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    inside.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    inside.write_all(b"answer").unwrap();
    drop(inside);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn what_a_server_said_last_arrives_although_the_owner_ends() {
    let port = Published::new(Protocol::Tcp);
    let server = port.server();
    let mut client = port.client();
    let (mut inside, _) = server.accept().unwrap();
    inside.write_all(b"first").unwrap();
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    port.handle.run(move |events| {
        // The loop has no turn between the server's last words and the stop.
        tell.send(()).unwrap();
        wait.recv().unwrap();
        events.stop();
    });
    told.recv().unwrap();
    inside.write_all(&[b'x'; 30_000]).unwrap();
    drop(inside);
    go.send(()).unwrap();
    drop(port);
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut last = Vec::new();
    client.read_to_end(&mut last).unwrap();
    assert_eq!(last.len(), 30_000);
}

#[test]
fn a_reset_is_passed_on_in_both_directions() {
    let port = Published::new(Protocol::Tcp);
    let server = port.server();
    let reset = |socket: TcpStream| {
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    };
    let mut client = port.client();
    let (inside, _) = server.accept().unwrap();
    reset(inside);
    assert_eq!(
        client.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    // Also while the server's direction has ended already.
    let client = port.client();
    let (mut inside, _) = server.accept().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(inside.read(&mut [0; 1]).unwrap(), 0);
    reset(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    while inside.write(b"x").is_ok() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn bytes_arrive_whole_both_ways_at_once_while_the_other_side_reads_slowly() {
    const SIZE: usize = 24 << 20;
    let port = Published::new(Protocol::Tcp);
    let server = port.server();
    let byte = |at: usize| (at.wrapping_mul(31) >> 3) as u8;
    let send = move |mut socket: TcpStream| {
        let all: Vec<u8> = (0..SIZE).map(byte).collect();
        socket.write_all(&all).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
    };
    let receive = move |mut socket: TcpStream, slowly: bool| {
        let mut all = Vec::with_capacity(SIZE);
        let mut buffer = vec![0; 300_000];
        loop {
            let count = socket.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..count]);
            if slowly && all.len() % 7 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(all.len() == SIZE && all.iter().enumerate().all(|(at, is)| *is == byte(at)));
    };
    let client = port.client();
    let (inside, _) = server.accept().unwrap();
    let (client2, inside2) = (client.try_clone().unwrap(), inside.try_clone().unwrap());
    let threads = [
        std::thread::spawn(move || send(client)),
        std::thread::spawn(move || send(inside)),
        std::thread::spawn(move || receive(client2, true)),
        std::thread::spawn(move || receive(inside2, false)),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn many_clients_at_once_are_all_served() {
    let port = Published::new(Protocol::Tcp);
    let server = port.server();
    drop(port.client());
    let (first, _) = server.accept().unwrap();
    drop(first);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut socket, _)) = server.accept() {
            let mut number = [0; 4];
            if socket.read_exact(&mut number).is_err() {
                continue;
            }
            socket.write_all(&number).unwrap();
            open.push(socket);
        }
    });
    let mut clients: Vec<_> = (0..150u32)
        .map(|_| TcpStream::connect(port.host).unwrap())
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&(number as u32).to_ne_bytes()).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(u32::from_ne_bytes(answer), number as u32);
    }
}

#[test]
fn datagrams_go_to_the_server_and_answers_to_their_client() {
    let port = Published::new(Protocol::Udp);
    let server = UdpSocket::bind(("127.0.0.1", port.container)).unwrap();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            client.connect(port.host).unwrap();
            client
        })
        .collect();
    for round in 0..3u8 {
        for (number, client) in clients.iter().enumerate() {
            client.send(&[round, number as u8]).unwrap();
            let mut got = [0; 9];
            let (size, from) = server.recv_from(&mut got).unwrap();
            assert_eq!(got[..size], [round, number as u8]);
            server.send_to(&[number as u8, round, 7], from).unwrap();
            let size = client.recv(&mut got).unwrap();
            assert_eq!(got[..size], [number as u8, round, 7]);
        }
    }
}
