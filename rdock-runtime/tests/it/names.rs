//! Networks of one's own: names, several networks a container, what is kept apart.

use crate::host::{NEIGHBOUR, inside};
use crate::lab::Lab;
use crate::payload::PORT;
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, ResourceRecord};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "containers_of_a_network_reach_each_other_by_name_alias_and_address",
            by_name,
        ),
        trial("a_container_has_an_interface_in_each_of_its_networks", several),
        trial("addresses_are_as_asked_for_or_a_typed_error", static_addresses),
        trial(
            "other_names_are_asked_of_the_hosts_or_the_given_servers",
            forwarded,
        ),
        trial("rt_internal_dns", internal),
        trial("rt_net_isolation", isolation),
        trial("rt_net_isolation_of_addresses", usurpers),
        trial("rt_net_isolation_within_a_network", no_talk),
        trial("rt_ipv6_ra_with_ipv6", no_advertisements),
        trial("rt_abstract_socket", no_abstract_sockets),
        trial("a_running_container_joins_and_leaves_networks", joins_and_leaves),
        trial("a_network_lives_as_long_as_somebody_is_in_it", lifetime),
    ]
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Tested {
    if holds { Ok(()) } else { Err(what().into()) }
}

/// A name server in the LAN that knows `outside.example` and counts what it is asked.
struct NameServer {
    asked: Arc<AtomicUsize>,
    names: Arc<Mutex<Vec<String>>>,
}

const ANSWER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn reply(query: &[u8], names: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let packet = Packet::parse(query).ok()?;
    let question = packet.questions.first()?;
    let name = question.qname.to_string();
    names.lock().ok()?.push(name.clone());
    let mut reply = Packet::new_reply(packet.id());
    reply.questions.push(question.clone());
    if name == "outside.example" {
        let data = RData::A(A {
            address: ANSWER.to_bits(),
        });
        reply
            .answers
            .push(ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, data));
    } else {
        *reply.rcode_mut() = simple_dns::RCODE::NameError;
    }
    reply.build_bytes_vec().ok()
}

impl NameServer {
    fn start(lab: &Lab) -> Tested<Self> {
        let (udp, tcp) = inside(&lab.lan, || {
            Ok::<_, std::io::Error>((
                UdpSocket::bind((NEIGHBOUR, 53))?,
                TcpListener::bind((NEIGHBOUR, 53))?,
            ))
        })??;
        let this = Self {
            asked: Arc::default(),
            names: Arc::default(),
        };
        let (asked, names) = (this.asked.clone(), this.names.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((size, from)) = udp.recv_from(&mut buffer) {
                asked.fetch_add(1, Ordering::SeqCst);
                if let Some(reply) = reply(&buffer[..size], &names) {
                    let _ = udp.send_to(&reply, from);
                }
            }
        });
        let (asked, names) = (this.asked.clone(), this.names.clone());
        std::thread::spawn(move || {
            while let Ok((mut client, _)) = tcp.accept() {
                asked.fetch_add(1, Ordering::SeqCst);
                let _ = client.set_read_timeout(Some(Duration::from_secs(5)));
                let mut length = [0; 2];
                if client.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                if client.read_exact(&mut query).is_ok()
                    && let Some(reply) = reply(&query, &names)
                {
                    let _ = client.write_all(&(reply.len() as u16).to_be_bytes());
                    let _ = client.write_all(&reply);
                }
            }
        });
        Ok(this)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn by_name() -> Tested {
    let mut lab = Lab::open("nameserver 192.0.2.99\noptions timeout:1 attempts:1\n")?;
    for network in ["front", "back"] {
        lab.does(&format!("network {network}"))?;
    }
    lab.does("run one net=name=front,alias=web")?;
    lab.does("run two net=name=front,alias=web")?;
    lab.does("run three net=back")?;
    let (one, two, three) = (lab.info("one")?, lab.info("two")?, lab.info("three")?);
    let ip = |info: &rdock_runtime::ContainerInfo| info.networks[0].ip;
    for name in [
        "two".to_owned(),
        "two.front".into(),
        two.id[..12].to_owned(),
        ip(&two).to_string(),
    ] {
        let answer = lab.does(&format!("in one dial TO={name}:{PORT}"))?;
        same(&answer, &format!("you are {}", ip(&one)))?;
    }
    // An alias of several containers: all of them, by UDP and TCP.
    for transport in ["udp", "tcp"] {
        let answer = lab.does(&format!("in one ask NAME=web KIND=A BY={transport}"))?;
        let mut all: Vec<_> = answer.split(' ').collect();
        all.sort_unstable();
        let mut expected = [ip(&one).to_string(), ip(&two).to_string()];
        expected.sort_unstable();
        same(&all, &expected.each_ref().map(String::as_str).to_vec())?;
    }
    let back: Vec<String> = ip(&two).octets().iter().rev().map(u8::to_string).collect();
    let pointer = lab.does(&format!(
        "in one ask NAME={}.in-addr.arpa KIND=PTR BY=udp",
        back.join(".")
    ))?;
    same(&pointer, "two.front")?;
    // On another network there is neither the name nor the address.
    let answer = lab.says(&format!("in three dial TO=two:{PORT}"))?;
    check(answer.starts_with("failed"), || answer)?;
    for (from, to) in [("three", ip(&two)), ("one", ip(&three))] {
        let answer = lab.says(&format!("in {from} dial TO={to}:{PORT} PATIENCE=300"))?;
        check(answer.starts_with("failed"), || {
            format!("{from} reaches {to}: {answer}")
        })?;
    }
    // One that ends is forgotten.
    lab.does("stop two")?;
    let answer = lab.does("in one ask NAME=web KIND=A BY=udp")?;
    same(&answer, &ip(&one).to_string())
}

fn several() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network front")?;
    lab.does("network back internal mtu=1400")?;
    lab.does("run db net=back")?;
    lab.does("run web net=back net=name=front,gw-priority=1,mac=02:00:00:00:00:07 net=default")?;
    let info = lab.info("web")?;
    let interfaces: Vec<_> = info
        .networks
        .iter()
        .map(|endpoint| {
            (
                endpoint.interface.as_str(),
                endpoint.network.as_str(),
                endpoint.default_route,
            )
        })
        .collect();
    same(
        &interfaces,
        &vec![
            ("eth0", "back", false),
            ("eth1", "front", true),
            ("eth2", "default", false),
        ],
    )?;
    same(&info.networks[1].mac, "02:00:00:00:00:07")?;
    let read = lab.does("in web read FILES=/sys/class/net/eth1/address")?;
    same(&read, "02:00:00:00:00:07")?;
    let read = lab.does("in web read FILES=/sys/class/net/eth0/mtu")?;
    same(&read, "1400")?;
    let answer = lab.does(&format!("in web dial TO=db:{PORT}"))?;
    same(&answer, &format!("you are {}", info.networks[0].ip))?;
    let answer = lab.does(&format!("in db dial TO=web:{PORT}"))?;
    check(answer.starts_with("you are"), || answer)?;
    // The way out leads through the network with the default route.
    let answer = lab.does("in web dial TO=198.51.100.7:80")?;
    same(&answer, "you are 192.0.2.2")?;
    let hosts = lab.does("in web read FILES=/etc/hosts")?;
    for endpoint in &info.networks {
        check(hosts.contains(&endpoint.ip.to_string()), || hosts.clone())?;
    }
    Ok(())
}

fn static_addresses() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network net subnet=10.77.0.0/24 subnet=fd77::/64 ipv6")?;
    lab.does("run one net=name=net,ip=10.77.0.50,ip6=fd77::50")?;
    let info = lab.info("one")?;
    same(&info.networks[0].ip, &Ipv4Addr::new(10, 77, 0, 50))?;
    same(&info.networks[0].ip6, &Some("fd77::50".parse()?))?;
    lab.does("run two net=net")?;
    let two = lab.info("two")?;
    let six = two.networks[0].ip6.ok_or("no IPv6 address")?;
    let answer = lab.does(&format!("in one dial TO=[{six}]:{PORT}"))?;
    same(&answer, "you are fd77::50")?;
    let answer = lab.does("in one ask NAME=two KIND=AAAA BY=udp")?;
    same(&answer, &six.to_string())?;
    for (options, words) in [
        ("net=name=net,ip=10.77.0.50", "the address of container one"),
        ("net=name=net,ip6=fd77::50", "the address of container one"),
        ("net=name=net,ip=10.77.0.1", "gateway"),
        ("net=name=net,ip=10.78.0.1", "not in 10.77.0.0/24"),
        ("net=name=net,ip6=fd78::1", "not in fd77::/64"),
        ("net=name=default,ip6=fd78::1", "no IPv6"),
        ("net=missing", "no such network"),
    ] {
        let answer = lab.says(&format!("run bad {options}"))?;
        check(answer.contains(words), || format!("{options}: {answer}"))?;
    }
    lab.does("stop one")?;
    lab.does("run again net=name=net,ip=10.77.0.50,ip6=fd77::50")
        .map(drop)
}

fn forwarded() -> Tested {
    let mut lab = Lab::open(&format!(
        "nameserver 192.0.2.2\nnameserver {NEIGHBOUR}\nsearch example\noptions timeout:1\n"
    ))?;
    let server = NameServer::start(&lab)?;
    lab.does("network net")?;
    lab.does("network closed internal")?;
    lab.does("run by-host net=net")?;
    for transport in ["udp", "tcp"] {
        let answer = lab.does(&format!(
            "in by-host ask NAME=outside.example KIND=A BY={transport}"
        ))?;
        same(&answer, &ANSWER.to_string())?;
    }
    let answer = lab.does("in by-host ask NAME=missing.example KIND=A BY=udp")?;
    same(&answer, "NameError")?;
    // The host's search domain, by the C library.
    let answer = lab.does("in by-host dial TO=outside:80")?;
    same(&answer, "you are 192.0.2.2")?;
    let text = lab.does("in by-host read FILES=/etc/resolv.conf")?;
    same(
        &text,
        "nameserver 127.0.0.11|search example|options timeout:1 ndots:0",
    )?;
    // Servers of its own are asked from inside.
    lab.does(&format!("run own net=net dns={NEIGHBOUR} search=."))?;
    let answer = lab.does("in own ask NAME=outside.example KIND=A BY=udp")?;
    same(&answer, &ANSWER.to_string())?;
    lab.does(&format!("run shut net=closed dns={NEIGHBOUR}"))?;
    let before = server.asked();
    let answer = lab.says("in shut ask NAME=outside.example KIND=A BY=udp")?;
    check(answer.starts_with("failed") || answer == "ServerFailure", || {
        answer
    })?;
    same(&server.asked(), &before)
}

fn internal() -> Tested {
    let mut lab = Lab::open(&format!("nameserver {NEIGHBOUR}\n"))?;
    let server = NameServer::start(&lab)?;
    lab.does("network closed internal")?;
    lab.does("network open")?;
    lab.does("run one net=closed")?;
    lab.does("run two net=closed")?;
    lab.does("run three net=open")?;
    let answer = lab.does("in three ask NAME=outside.example KIND=A BY=udp")?;
    same(&answer, &ANSWER.to_string())?;
    let before = server.asked();
    let sent = |lab: &Lab| -> Tested<Vec<u64>> { Ok(inside(&lab.here, packets_sent)??) };
    let packets = sent(&lab)?;
    same(&packets.len(), &2)?;
    for transport in ["udp", "tcp"] {
        let answer = lab.does(&format!("in one ask NAME=outside.example KIND=A BY={transport}"))?;
        same(&answer, "NameError")?;
    }
    let answer = lab.says("in one dial TO=198.51.100.7:80")?;
    check(answer.starts_with("failed"), || answer)?;
    let answer = lab.does(&format!("in one dial TO=two:{PORT}"))?;
    check(answer.starts_with("you are"), || answer)?;
    same(&server.asked(), &before)?;
    same(&sent(&lab)?, &packets)
}

/// Packets that the host of the calling thread has sent or passed on; its interface also counts what finds neighbours.
fn packets_sent() -> std::io::Result<Vec<u64>> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    Ok(pairs
        .filter(|(name, _)| matches!(*name, "OutRequests" | "ForwDatagrams"))
        .filter_map(|(_, value)| value.parse().ok())
        .collect())
}

fn isolation() -> Tested {
    let mut lab = Lab::open("nameserver 192.0.2.2\noptions timeout:1 attempts:1\n")?;
    let networks = ["default", "one", "two", "closed"];
    lab.does("network one subnet=10.77.1.0/24")?;
    lab.does("network two subnet=10.77.2.0/24")?;
    lab.does("network closed internal subnet=10.77.3.0/24")?;
    let mut places = Vec::new();
    for network in networks {
        lab.does(&format!("run in-{network} net={network}"))?;
        let info = lab.info(&format!("in-{network}"))?;
        let file = lab.root.path().join(format!("networks/{network}/network.json"));
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
        // The container, its gateway, and the network's end of the way out.
        let mut addresses = vec![
            info.networks[0].ip.to_string(),
            info.networks[0].gateway.to_string(),
        ];
        addresses.extend(record["uplink"]["inside"].as_str().map(str::to_owned));
        places.push(addresses);
    }
    for (from, own) in networks.iter().zip(&places) {
        // What is asked for is there: the container itself.
        let answer = lab.does(&format!("in in-{from} dial TO={}:{PORT}", own[0]))?;
        check(answer.starts_with("you are"), || answer)?;
        for (to, addresses) in networks.iter().zip(&places).filter(|(to, _)| *to != from) {
            for address in addresses {
                let answer = lab.says(&format!("in in-{from} dial TO={address}:{PORT} PATIENCE=150"))?;
                check(answer.starts_with("failed"), || {
                    format!("{from} reaches {address} of {to}: {answer}")
                })?;
            }
            let answer = lab.says(&format!("in in-{from} dial TO=in-{to}:{PORT} PATIENCE=150"))?;
            check(answer.starts_with("failed"), || {
                format!("{from} knows in-{to}: {answer}")
            })?;
        }
    }
    Ok(())
}

fn usurpers() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network net")?;
    for name in ["victim", "peer"] {
        lab.does(&format!("run {name} net=net"))?;
    }
    for name in ["by-address", "by-hardware", "honest"] {
        lab.does(&format!("run {name} net=net cap=NET_ADMIN"))?;
    }
    let place = |lab: &mut Lab, name: &str| -> Tested<_> { Ok(lab.info(name)?.networks.remove(0)) };
    let (victim, peer) = (place(&mut lab, "victim")?, place(&mut lab, "peer")?);
    let reaches = |lab: &mut Lab| lab.does(&format!("in peer dial TO={}:{PORT}", victim.ip));
    reaches(&mut lab)?;
    let own = place(&mut lab, "by-hardware")?.ip;
    let gateway = victim.gateway;
    for (who, claims) in [
        ("by-address", format!("VICTIM={}", victim.ip)),
        ("by-address", format!("VICTIM={gateway}")),
        (
            "by-hardware",
            format!("VICTIM={} MAC={} OWN={own}", victim.ip, victim.mac),
        ),
    ] {
        let answer = lab.does(&format!("in {who} usurp {claims} PEER={}", peer.ip))?;
        same(&answer, "no answer").map_err(|error| format!("{who} {claims}: {error}"))?;
        let table = lab.does("in peer read FILES=/proc/net/arp")?;
        let line = table
            .split('|')
            .find(|line| line.starts_with(&format!("{} ", victim.ip)));
        check(line.is_some_and(|line| line.contains(&victim.mac)), || table)?;
        let answer = reaches(&mut lab)?;
        same(&answer, &format!("you are {}", peer.ip))?;
    }
    // An address that nobody has may be claimed, as a virtual one is; so the test can see an answer at all.
    let octets = victim.ip.octets();
    let free = Ipv4Addr::new(octets[0], octets[1], 200, 200);
    let answer = lab.does(&format!("in honest usurp VICTIM={free} PEER={}", peer.ip))?;
    same(&answer, &format!("you are {free}"))
}

fn no_talk() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network apart com.docker.network.bridge.enable_icc=false")?;
    lab.does("run one net=apart")?;
    lab.does("run two net=apart")?;
    let answer = lab.says(&format!("in one dial TO=two:{PORT}"))?;
    check(answer.starts_with("failed"), || answer)?;
    let answer = lab.does("in one dial TO=198.51.100.7:80")?;
    same(&answer, "you are 192.0.2.2")
}

fn no_advertisements() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network six ipv6")?;
    lab.does("network four")?;
    lab.does("run both net=six net=four")?;
    let read = |lab: &mut Lab, interface: &str| {
        let settings =
            ["accept_ra", "disable_ipv6"].map(|name| format!("/proc/sys/net/ipv6/conf/{interface}/{name}"));
        lab.does(&format!("in both read FILES={}", settings[0]))
            .and_then(|first| Ok((first, lab.does(&format!("in both read FILES={}", settings[1]))?)))
    };
    same(&read(&mut lab, "eth0")?, &("0".to_owned(), "0".to_owned()))?;
    same(&read(&mut lab, "eth1")?, &("0".to_owned(), "1".to_owned()))?;
    // Nothing but what was given, and what the kernel makes for the link.
    let info = lab.info("both")?;
    let given = info.networks[0].ip6.ok_or("no IPv6 address")?;
    let given = given.octets().map(|byte| format!("{byte:02x}")).concat();
    let addresses = lab.does("in both read FILES=/proc/net/if_inet6")?;
    for line in addresses.split('|') {
        let expected = line.ends_with(" lo") || line.starts_with(&given) || line.starts_with("fe80");
        check(expected, || addresses.clone())?;
    }
    Ok(())
}

fn no_abstract_sockets() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network net")?;
    lab.does(&format!("run one net=net publish=9000:{PORT}"))?;
    lab.does("run on-host net=host")?;
    // Abstract names belong to a network namespace: here is what a container with the host's network sees.
    let seen = lab.does("in on-host read FILES=/proc/net/unix")?;
    check(seen.contains("/control"), || {
        format!("the test sees no socket of an owner: {seen}")
    })?;
    check(!seen.contains('@'), || seen.clone())?;
    // The owner's socket has a path, below directories that others may not enter.
    use std::os::unix::fs::PermissionsExt;
    let containers = lab.root.path().join("containers");
    let id = lab.info("one")?.id;
    for folder in [containers.clone(), containers.join(id)] {
        let mode = std::fs::metadata(&folder)?.permissions().mode();
        same(&(mode & 0o777), &0o700)?;
    }
    Ok(())
}

fn joins_and_leaves() -> Tested {
    let mut lab = Lab::open("nameserver 192.0.2.2\noptions timeout:1 attempts:1\n")?;
    lab.does("network front")?;
    lab.does("network back")?;
    lab.does("run db net=back")?;
    lab.does("run web publish=8080:8080")?;
    let port = crate::payload::PORT;
    let published = |lab: &Lab| -> Tested<_> { lab.get_from_here(("127.0.0.1", 8080)) };
    let gateway = |lab: &mut Lab, name: &str| -> Tested<String> {
        let info = lab.info(name)?;
        Ok(info.gateway.ok_or("no gateway")?)
    };
    let first = gateway(&mut lab, "web")?;
    same(&published(&lab)?, &format!("you are {first}"))?;
    // From the default network, which has no names, into one that has.
    let answer = lab.says(&format!("in web dial TO=db:{port}"))?;
    check(answer.starts_with("failed"), || answer)?;
    lab.does("connect web name=back,alias=frontend")?;
    let answer = lab.does(&format!("in web dial TO=db:{port}"))?;
    let info = lab.info("web")?;
    same(&answer, &format!("you are {}", info.networks[1].ip))?;
    same(&info.networks[1].interface, "eth1")?;
    let answer = lab.does(&format!("in db dial TO=frontend:{port}"))?;
    check(answer.starts_with("you are"), || answer)?;
    let hosts = lab.does("in web read FILES=/etc/hosts")?;
    check(hosts.contains(&info.networks[1].ip.to_string()), || hosts)?;
    for (order, words) in [
        ("connect web back", "already"),
        ("connect web missing", "no such network"),
        ("disconnect web front", "not connected"),
    ] {
        let answer = lab.says(order)?;
        check(answer.contains(words), || format!("{order}: {answer}"))?;
    }
    // The default route, the published port and the helper move to the other network.
    lab.does("disconnect web default")?;
    let second = gateway(&mut lab, "web")?;
    check(first != second, || "the gateway is the old one".into())?;
    lab.eventually("the published port", || {
        let answer = published(&lab)?;
        Ok(answer == format!("you are {second}"))
    })?;
    let answer = lab.does("in web dial TO=198.51.100.7:80")?;
    same(&answer, "you are 192.0.2.2")?;
    let devices = lab.does("in web read FILES=/proc/net/dev")?;
    check(!devices.contains("eth0"), || devices)?;
    // Nowhere, and back.
    lab.does("disconnect web back")?;
    let answer = lab.says(&format!("in db dial TO=web:{port}"))?;
    check(answer.starts_with("failed"), || answer)?;
    check(published(&lab).is_err(), || "the port is still open".into())?;
    lab.does("connect web front")?;
    let third = gateway(&mut lab, "web")?;
    lab.eventually("the published port", || {
        Ok(published(&lab).is_ok_and(|answer| answer == format!("you are {third}")))
    })?;
    let answer = lab.does("in web dial TO=198.51.100.7:80")?;
    same(&answer, "you are 192.0.2.2")?;
    lab.does("stop db")?;
    lab.does("rm back")?;
    lab.does("stop web")?;
    lab.does("rm front").map(drop)
}

fn lifetime() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network net subnet=10.77.0.0/24")?;
    lab.does("run one net=net")?;
    let answer = lab.says("rm net")?;
    check(answer.contains("in use by one"), || answer)?;
    lab.does("stop one")?;
    // Its next life is the same network.
    lab.does("run two net=net")?;
    check(
        lab.info("two")?.networks[0].ip.octets()[..3] == [10, 77, 0],
        || "another subnet".into(),
    )?;
    lab.does("stop two")?;
    lab.does("rm net")?;
    let answer = lab.says("run three net=net")?;
    check(answer.contains("no such network"), || answer)
}
