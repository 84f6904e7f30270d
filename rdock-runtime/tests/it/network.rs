//! What the default network promises: a way out, closed to the outside, published ports.

use crate::host::{Firewall, HOST, Host, OUTSIDE, inside};
use crate::lab::Lab;
use crate::payload::{self, PORT};
use crate::{Cannot, Tested, needs_root, same, trial};
use libtest_mimic::Trial;
use rdock_runtime::{NetError, PortMapping, Runtime, ScopedContainer};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_network_of_higher_priority_takes_the_default_route", priorities),
        trial("an_interface_has_the_name_that_was_asked_for", interface_names),
        trial("a_link_is_a_name_of_one_container_alone", links),
        trial("egress_beside_dockers_firewall_and_after_a_flush", egress),
        trial("egress_that_a_firewall_forbids_is_a_warning", forbidden_egress),
        trial(
            "egress_outlives_the_program_that_made_the_network",
            egress_of_the_second,
        ),
        trial("rt_publish_firewall", publish_firewall),
        trial("a_host_that_is_no_router_does_not_become_one", no_router),
        trial("rt_localhost_exposure", localhost_exposure),
        trial("rt_ipv6_ra", ipv6),
        trial("rules_of_a_dead_program_are_gone_after_the_next_open", dead_rules),
        trial("a_published_port_refuses_until_the_server_listens", published),
        trial("published_datagrams_come_back", datagrams),
        trial("containers_of_a_network_reach_each_other", neighbours),
        trial("containers_started_at_once_have_addresses_of_their_own", at_once),
        trial("a_port_in_use_is_a_typed_error", port_in_use),
    ]
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Tested {
    if holds { Ok(()) } else { Err(what().into()) }
}

fn egress() -> Tested {
    let root = tempfile::tempdir()?;
    let mut host = Host::start(root.path(), Firewall::Docker)?;
    check(host.docker_user_rules()? == 2, || {
        "no rules in DOCKER-USER: the test has no firewall".into()
    })?;
    check(host.warnings == 0, || "the container has warnings".into())?;
    for after in ["the start", "nft flush ruleset"] {
        let answer = host.order(&format!("fetch {OUTSIDE}"))?;
        check(answer == format!("you are {HOST}"), || {
            format!("after {after}: {answer}")
        })?;
        host.flush_ruleset()?;
    }
    Ok(())
}

fn forbidden_egress() -> Tested {
    let root = tempfile::tempdir()?;
    let mut host = Host::start(root.path(), Firewall::Drop)?;
    check(host.warnings == 1, || format!("{} warnings", host.warnings))?;
    let answer = host.order(&format!("fetch {OUTSIDE}"))?;
    check(answer.starts_with("failed"), || answer)
}

fn egress_of_the_second() -> Tested {
    let root = tempfile::tempdir()?;
    let mut host = Host::start(root.path(), Firewall::Docker)?;
    let mut second = host.another()?;
    check(second.container != host.container, || {
        "both have one address".into()
    })?;
    let answer = second.order(&format!("fetch {}:{PORT}", host.container))?;
    check(answer == format!("you are {}", second.container), || answer)?;
    host.kill()?;
    host.open_again()?;
    let answer = second.order(&format!("fetch {OUTSIDE}"))?;
    check(answer == format!("you are {HOST}"), || answer)?;
    // A newcomer finds the network by the second's helper.
    let mut third = host.another()?;
    let answer = third.order(&format!("fetch {}:{PORT}", second.container))?;
    check(answer == format!("you are {}", third.container), || answer)
}

fn publish_firewall() -> Tested {
    let root = tempfile::tempdir()?;
    let mut host = Host::start(root.path(), Firewall::None)?;
    host.route_everything_to_the_container()?;
    let server = SocketAddr::from((host.container, PORT));
    let (_, network) = host.uplink()?;
    for round in ["before", "after"] {
        // The server is there: its own container reaches it.
        let own = host.order(&format!("fetch {server}"))?;
        check(own.starts_with("you are"), || own)?;
        for closed in [
            server,
            SocketAddr::from((network, PORT)),
            SocketAddr::from((HOST, host.loopback_port)),
        ] {
            let answer = host.get_from_lan(closed)?;
            check(answer.is_err(), || {
                format!("{round} the flush {closed} answers {answer:?}")
            })?;
        }
        let published = host.get_from_lan((HOST, host.port))?;
        check(
            published
                .as_ref()
                .is_ok_and(|answer| answer.starts_with("you are")),
            || format!("{round} the flush the published port answers {published:?}"),
        )?;
        host.flush_ruleset()?;
    }
    Ok(())
}

fn localhost_exposure() -> Tested {
    let root = tempfile::tempdir()?;
    let mut host = Host::start(root.path(), Firewall::None)?;
    let serve = |ip: Ipv4Addr| {
        move || {
            let listener = TcpListener::bind((ip, 0))?;
            let port = listener.local_addr()?.port();
            std::thread::spawn(move || {
                while let Ok((mut client, _)) = listener.accept() {
                    let _ = client.write_all(b"a service of the host");
                }
            });
            std::io::Result::Ok(port)
        }
    };
    let (uplink, network) = host.uplink()?;
    let open = inside(&host.here, serve(Ipv4Addr::UNSPECIFIED))??;
    let answer = host.order(&format!("fetch {uplink}:{open}"))?;
    check(answer == "a service of the host", || {
        format!("the test reaches no service at all: {answer}")
    })?;
    let port = inside(&host.here, serve(Ipv4Addr::LOCALHOST))??;
    for ip in [uplink, network, HOST, Ipv4Addr::LOCALHOST] {
        let answer = host.order(&format!("fetch {ip}:{port}"))?;
        check(answer.starts_with("failed"), || {
            format!("{ip}:{port} answers {answer}")
        })?;
    }
    Ok(())
}

fn ipv6() -> Tested {
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return Err(Cannot("this kernel has no IPv6".into()).into());
    }
    let root = tempfile::tempdir()?;
    let mut host = Host::start(root.path(), Firewall::None)?;
    let settings = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6 /proc/sys/net/ipv6/conf/eth0/accept_ra";
    let answer = host.order(&format!("read {settings}"))?;
    check(answer == "1|0", || answer)?;
    // No address at all but that of lo.
    let answer = host.order("read /proc/net/if_inet6")?;
    check(answer.split('|').all(|line| line.ends_with(" lo")), || answer)
}

fn dead_rules() -> Tested {
    let root = tempfile::tempdir()?;
    let mut host = Host::start(root.path(), Firewall::Docker)?;
    check(host.docker_user_rules()? == 2, || {
        "there are no rules to remove".into()
    })?;
    check(host.forwards()?, || "the host does not forward".into())?;
    host.kill()?;
    std::thread::sleep(Duration::from_secs(1));
    host.open_again()?;
    let left = host.docker_user_rules()?;
    check(left == 0, || format!("{left} rules are left"))?;
    check(!host.forwards()?, || "the host still forwards".into())?;
    let holders = std::fs::read_dir(root.path().join("networks/default/holders"))?.count();
    check(holders == 0, || format!("{holders} addresses are still taken"))
}

fn no_router() -> Tested {
    let root = tempfile::tempdir()?;
    let mut host = Host::start(root.path(), Firewall::None)?;
    let answer = host.order(&format!("fetch {OUTSIDE}"))?;
    check(answer == format!("you are {HOST}"), || answer)?;
    let behind = host.network_behind()?;
    check(host.forwards()?, || "the host does not forward".into())?;
    check(!host.lan_reaches(&behind)?, || "the host is a router now".into())?;
    // The rule belongs to a process; another one's has to do as well.
    let second = host.another()?;
    drop(std::mem::replace(&mut *host, second));
    check(!host.lan_reaches(&behind)?, || {
        "the host is a router since the first program ended".into()
    })?;
    host.end()?;
    let deadline = Instant::now() + Duration::from_secs(2);
    while host.forwards()? {
        // A program that ends at once leaves this to the next one.
        host.open_again()?;
        check(Instant::now() < deadline, || "the host still forwards".into())?;
    }
    host.forward()?;
    check(host.lan_reaches(&behind)?, || {
        "the test cannot see a router".into()
    })
}

/// Runs `test` with a runtime that holds the image.
fn with_runtime<F: Future<Output = Tested>>(test: impl FnOnce(Runtime) -> F) -> Tested {
    let root = tempfile::tempdir()?;
    let runtime = Runtime::open(root.path())?;
    payload::load(&runtime)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(test(runtime))
}

/// What the server answers once it listens; before, every try has to be refused.
fn first_answer(address: SocketAddr) -> Tested<(u32, String)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut refused = 0;
    loop {
        match TcpStream::connect(address) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(format!("{address}: {error}").into()),
            Ok(_) => return Ok((refused, payload::get(address)?)),
        }
    }
}

fn published() -> Tested {
    with_runtime(async |runtime| {
        let container = payload::server()?
            .env("DELAY", "300")
            .publish(PortMapping::tcp(PORT))
            .start(&runtime)
            .await?;
        let (refused, answer) = first_answer(container.host_addr(PORT)?)?;
        check(refused > 10, || format!("refused only {refused} times in 300 ms"))?;
        let gateway = container.inspect()?.gateway.ok_or("no gateway")?;
        check(answer == format!("you are {gateway}"), || answer)?;
        let rootless = !rustix::process::geteuid().is_root();
        let warned = container
            .inspect()?
            .warnings
            .iter()
            .any(|warning| warning.contains("outside"));
        check(warned == rootless, || "the warning about egress".into())?;
        let address = container.host_addr(PORT)?;
        container.remove().await?;
        let after = TcpStream::connect(address);
        check(
            after.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused),
            || "still open".into(),
        )
    })
}

fn datagrams() -> Tested {
    with_runtime(async |runtime| {
        let container = payload::server()?
            .publish(PortMapping::udp(PORT))
            .publish(PortMapping::tcp(PORT))
            .start(&runtime)
            .await?;
        first_answer(payload::loopback(port_of(&container, false)?))?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        client.connect(payload::loopback(port_of(&container, true)?))?;
        let gateway = container.inspect()?.gateway.ok_or("no gateway")?;
        for _ in 0..3 {
            client.send(b"who am I")?;
            let mut answer = [0; 64];
            let size = client.recv(&mut answer)?;
            let answer = String::from_utf8_lossy(&answer[..size]).into_owned();
            check(answer == format!("you are {gateway}"), || answer)?;
        }
        container.remove().await?;
        Ok(())
    })
}

fn port_of(container: &ScopedContainer, udp: bool) -> Tested<u16> {
    let ports = container.inspect()?.ports;
    let wanted = if udp {
        rdock_runtime::Protocol::Udp
    } else {
        rdock_runtime::Protocol::Tcp
    };
    let port = ports
        .iter()
        .find(|port| port.protocol == wanted)
        .ok_or("not published")?;
    Ok(port.host.port())
}

fn neighbours() -> Tested {
    needs_root()?;
    with_runtime(async |runtime| {
        let one = payload::server()?
            .publish(PortMapping::tcp(PORT))
            .start(&runtime)
            .await?;
        let other = payload::server()?.start(&runtime).await?;
        first_answer(one.host_addr(PORT)?)?;
        let ip =
            |container: &ScopedContainer| container.inspect()?.ip_address.ok_or_else(|| "no address".into());
        let (first, second): (Tested<_>, Tested<_>) = (ip(&one), ip(&other));
        let (first, second) = (first?, second?);
        let answer = payload::run_inside(&other, "fetch", ("ADDRESS", &format!("{first}:{PORT}"))).await?;
        check(answer.trim() == format!("you are {second}"), || answer)?;
        one.remove().await?;
        other.remove().await?;
        Ok(())
    })
}

fn at_once() -> Tested {
    with_runtime(async |runtime| {
        let mut starting = Vec::new();
        for _ in 0..12 {
            let (spec, runtime) = (payload::server()?, runtime.clone());
            starting.push(tokio::spawn(async move { spec.start(&runtime).await }));
        }
        let (mut addresses, mut containers) = (BTreeSet::new(), Vec::new());
        for one in starting {
            let container = one.await??;
            addresses.insert(container.inspect()?.ip_address.ok_or("no address")?);
            containers.push(container);
        }
        check(addresses.len() == containers.len(), || format!("{addresses:?}"))?;
        for container in containers {
            container.remove().await?;
        }
        let left = std::fs::read_dir(runtime.root().join("networks/default/holders"))?.count();
        check(left == 0, || format!("{left} addresses are still taken"))
    })
}

fn port_in_use() -> Tested {
    with_runtime(async |runtime| {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let port = taken.local_addr()?.port();
        let started = payload::server()?
            .publish(PortMapping::tcp(PORT).on_host(port))
            .start(&runtime)
            .await;
        let error = started.err().ok_or("it started")?;
        let right = matches!(&error, rdock_runtime::Error::Network(NetError::PortInUse { address, .. })
            if address.port() == port);
        check(right, || format!("{error:?}"))?;
        check(error.hint().is_some(), || "no hint".into())?;
        check(runtime.containers()?.is_empty(), || {
            "something half-made is left".into()
        })
    })
}

/// The interface that the default route of `web` leads through.
fn default_interface(lab: &mut Lab) -> Tested<String> {
    let routes = lab.does("in web read FILES=/proc/net/route")?;
    let default: Vec<_> = routes
        .split('|')
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let interface = fields.next()?;
            (fields.next()? == "00000000").then(|| interface.to_owned())
        })
        .collect();
    match default.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(format!("not one default route: {routes}").into()),
    }
}

fn priorities() -> Tested {
    let mut lab = Lab::open("")?;
    for name in ["low", "high", "higher"] {
        lab.does(&format!("network {name}"))?;
    }
    lab.does("network closed internal")?;
    lab.does("run web net=low")?;
    let shown = |lab: &mut Lab| -> Tested<Vec<String>> {
        let info = lab.info("web")?;
        let networks = info.networks.iter().filter(|endpoint| endpoint.default_route);
        Ok(networks.map(|endpoint| endpoint.network.clone()).collect())
    };
    same(&default_interface(&mut lab)?.as_str(), &"eth0")?;
    for (order, interface, network) in [
        // As high, and higher with nowhere to lead to: it stays.
        ("connect web name=high", "eth0", "low"),
        ("disconnect web high", "eth0", "low"),
        ("connect web name=closed,gw-priority=9", "eth0", "low"),
        ("disconnect web closed", "eth0", "low"),
        ("connect web name=high,gw-priority=1", "eth1", "high"),
        ("connect web name=higher,gw-priority=2", "eth2", "higher"),
        ("disconnect web higher", "eth1", "high"),
        ("disconnect web high", "eth0", "low"),
    ] {
        lab.does(order)?;
        same(&default_interface(&mut lab)?.as_str(), &interface)
            .map_err(|error| format!("{order}: {error}"))?;
        same(&shown(&mut lab)?, &vec![network]).map_err(|error| format!("{order}: {error}"))?;
        let answer = lab.does("in web dial TO=198.51.100.7:80")?;
        same(&answer.as_str(), &"you are 192.0.2.2").map_err(|error| format!("{order}: {error}"))?;
    }
    lab.does("stop web").map(drop)
}

fn interface_names() -> Tested {
    let mut lab = Lab::open("")?;
    for name in ["a", "b", "c", "d"] {
        lab.does(&format!("network {name}"))?;
    }
    const SYSCTL: &str = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    lab.does(&format!(
        "run web net=a net=name=b,interface_name=lan0,gw-priority=1,driver-opt={SYSCTL} net=name=c,interface_name=eth0"
    ))?;
    let names = |lab: &mut Lab| -> Tested<String> {
        let info = lab.info("web")?;
        let names = info
            .networks
            .iter()
            .map(|is| format!("{} {}", is.network, is.interface));
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok(names.join(", "))
    };
    same(&names(&mut lab)?.as_str(), &"a eth1, b lan0, c eth0")?;
    same(&default_interface(&mut lab)?.as_str(), &"lan0")?;
    for (interface, value) in [("lan0", "1"), ("eth1", "0")] {
        let marked = lab.does(&format!(
            "in web read FILES=/proc/sys/net/ipv4/conf/{interface}/log_martians"
        ))?;
        same(&marked.trim_end_matches(['|', '\n']), &value)?;
    }
    let taken = lab.does("connect web name=d,interface_name=lan0");
    let taken = taken.err().map(|error| error.to_string()).unwrap_or_default();
    same(&taken.contains("another interface named lan0"), &true).map_err(|_| taken)?;
    lab.does("connect web name=d,interface_name=lan1,gw-priority=2")?;
    same(&default_interface(&mut lab)?.as_str(), &"lan1")?;
    lab.does("disconnect web a")?;
    lab.does("connect web a")?;
    same(&names(&mut lab)?.as_str(), &"a eth1, b lan0, c eth0, d lan1")?;
    lab.does("stop web").map(drop)
}

fn links() -> Tested {
    let mut lab = Lab::open("")?;
    lab.does("network a internal")?;
    lab.does("run db net=a")?;
    lab.does("run other net=a")?;
    lab.does("run web net=name=a,link=db:store,link=later:soon")?;
    lab.does("run api net=name=a,link=other:store")?;
    let check = |lab: &mut Lab, who: &str, name: &str, expected: &str| -> Tested {
        let found = lab.says(&format!("in {who} ask NAME={name} KIND=A BY=udp"))?;
        same(&found.as_str(), &expected).map_err(|error| format!("{who} asks for {name}: {error}").into())
    };
    let address =
        |lab: &mut Lab, name: &str| -> Tested<String> { Ok(lab.info(name)?.networks[0].ip.to_string()) };
    for (who, whom) in [("web", "db"), ("api", "other")] {
        let ip = address(&mut lab, whom)?;
        check(&mut lab, who, "store", &ip)?;
    }
    check(&mut lab, "db", "store", "NameError")?;
    check(&mut lab, "web", "soon", "NameError")?;
    // One that comes later is found then.
    lab.does("run later net=a")?;
    let ip = address(&mut lab, "later")?;
    check(&mut lab, "web", "soon", &ip)
}
