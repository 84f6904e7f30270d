//! Published ports: forwarder x protocol x family x published address x where from.

use crate::host::{Firewall, HOST, HOST6, NEIGHBOUR, inside};
use crate::lab::Lab;
use crate::payload::{PORT, call, get_within};
use crate::{Tested, same, trial};
use libtest_mimic::Trial;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("published_ports_by_the_event_loop_from_everywhere", || {
            table(false)
        }),
        trial("published_ports_by_the_kernel_from_everywhere", || table(true)),
        trial("rt_publish_firewall_by_the_kernel", firewalled),
        trial("every_exposed_port_is_published_when_asked_for", exposed),
    ]
}

const PATIENCE: Duration = Duration::from_millis(300);

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Host,
    Lan,
    /// The container itself, by way of the host.
    Hairpin,
    /// Another container of its network.
    Neighbour,
    /// A container of another network.
    Stranger,
}

/// Where a port is published, and where a client calls it.
const PLACES: [(&str, IpAddr); 4] = [
    ("127.0.0.1", IpAddr::V4(Ipv4Addr::LOCALHOST)),
    ("[::1]", IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ("192.0.2.2", IpAddr::V4(HOST)),
    ("[2001:db8::2]", IpAddr::V6(HOST6)),
];

/// Whether a client there reaches a port published at `published` by calling `called`.
fn is_open(from: From, published: Option<IpAddr>, called: IpAddr) -> bool {
    let there = published.is_none_or(|published| published == called);
    match from {
        From::Host => there,
        From::Lan => there && !called.is_loopback(),
        // These networks have no IPv6, and their own loopback interface is not the host's.
        From::Hairpin | From::Neighbour | From::Stranger => {
            there && !called.is_loopback() && called.is_ipv4()
        }
    }
}

fn table(kernel: bool) -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network one")?;
    lab.does("network two")?;
    let forwarding = if kernel { " forwarding=kernel" } else { "" };
    let publications = [None].into_iter().chain(PLACES.map(Some));
    let mut order = format!("run server net=one{forwarding}");
    for (number, place) in publications.clone().enumerate() {
        let address = place.map(|(text, _)| format!("{text}:")).unwrap_or_default();
        for protocol in ["tcp", "udp"] {
            order.push_str(&format!(" publish={address}{}:{PORT}/{protocol}", 9000 + number));
        }
    }
    lab.does(&order)?;
    lab.does("run neighbour net=one")?;
    lab.does("run stranger net=two")?;
    let info = lab.info("server")?;
    same(&info.warnings, &Vec::<String>::new())?;
    let (gateway, mut wrong, mut cells) = (info.gateway.ok_or("no gateway")?, Vec::new(), 0);
    for (number, place) in publications.enumerate() {
        let port = 9000 + number as u16;
        for (_, called) in PLACES {
            for udp in [false, true] {
                for from in [
                    From::Host,
                    From::Lan,
                    From::Hairpin,
                    From::Neighbour,
                    From::Stranger,
                ] {
                    let to = SocketAddr::new(called, port);
                    let answer = client(&mut lab, from, udp, to)?;
                    let open = is_open(from, place.map(|(_, ip)| ip), called);
                    // Only what comes in from the LAN by IPv4 keeps its address, and only by the kernel.
                    let seen = match (kernel, from) {
                        (true, From::Lan) if called.is_ipv4() => Some(NEIGHBOUR.to_string()),
                        (true, From::Hairpin | From::Neighbour | From::Stranger) => None,
                        _ => Some(gateway.clone()),
                    };
                    let right = match (&answer, open) {
                        (Some(answer), true) => seen.is_none_or(|seen| *answer == format!("you are {seen}")),
                        (answer, open) => answer.is_some() == open,
                    };
                    cells += 1;
                    if !right {
                        wrong.push(format!(
                            "{from:?} {} {to} published at {:?}: {answer:?}",
                            if udp { "udp" } else { "tcp" },
                            place.map(|(text, _)| text)
                        ));
                    }
                }
            }
        }
    }
    same(&cells, &200)?;
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{} of {cells} are wrong:\n{}", wrong.len(), wrong.join("\n")).into()),
    }
}

/// What a client hears, if anything.
fn client(lab: &mut Lab, from: From, udp: bool, to: SocketAddr) -> Tested<Option<String>> {
    let there = move || match udp {
        true => call(to, PATIENCE),
        false => get_within(to, PATIENCE),
    };
    let container = match from {
        From::Host => return Ok(inside(&lab.here, there)?.ok()),
        From::Lan => return Ok(inside(&lab.lan, there)?.ok()),
        From::Hairpin => "server",
        From::Neighbour => "neighbour",
        From::Stranger => "stranger",
    };
    let role = if udp { "shout" } else { "dial" };
    let answer = lab.says(&format!("in {container} {role} TO={to} PATIENCE=300"))?;
    Ok(answer.starts_with("you are").then_some(answer))
}

fn firewalled() -> Tested {
    // Where the host drops what it forwards, the kernel's way is closed: the event loop serves, and says so.
    let mut lab = Lab::behind(Firewall::Drop, "")?;
    lab.does(&format!(
        "run server publish=9000:{PORT} publish=127.0.0.1:9001:{PORT} forwarding=kernel"
    ))?;
    let info = lab.info("server")?;
    let said = info
        .warnings
        .iter()
        .any(|warning| warning.contains("do not keep their clients' addresses"));
    if !said {
        return Err(format!("{:?}", info.warnings).into());
    }
    let answer = client(&mut lab, From::Lan, false, (HOST, 9000).into())?;
    same(
        &answer,
        &Some(format!("you are {}", info.gateway.ok_or("no gateway")?)),
    )?;
    // One that is translated is closed again when its container is gone.
    let mut lab = Lab::open("")?;
    lab.does(&format!(
        "run server publish=9000:{PORT} publish=127.0.0.1:9001:{PORT} forwarding=kernel"
    ))?;
    let answer = client(&mut lab, From::Lan, false, (HOST, 9000).into())?;
    same(&answer, &Some(format!("you are {NEIGHBOUR}")))?;
    let answer = client(&mut lab, From::Lan, false, (HOST, 9001).into())?;
    same(&answer, &None)?;
    lab.does("stop server")?;
    lab.does(&format!("run other publish=9002:{PORT}"))?;
    let answer = client(&mut lab, From::Lan, false, (HOST, 9000).into())?;
    same(&answer, &None)
}

fn exposed() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does(&format!("run server expose={PORT}/tcp expose={PORT}/udp all=yes"))?;
    let info = lab.info("server")?;
    for udp in [false, true] {
        let wanted = if udp {
            rdock_runtime::Protocol::Udp
        } else {
            rdock_runtime::Protocol::Tcp
        };
        let bound = info
            .ports
            .iter()
            .find(|bound| bound.protocol == wanted && bound.host.is_ipv4());
        let port = bound.ok_or("not published")?.host.port();
        let answer = client(&mut lab, From::Lan, udp, (HOST, port).into())?;
        if answer.is_none() {
            return Err(format!("port {port} is closed").into());
        }
    }
    Ok(())
}
