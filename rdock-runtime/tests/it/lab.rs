//! A laboratory: a host of its own in network namespaces, with a program on it that does what it is told, line by
//! line: networks, containers, and what happens inside these.

use crate::host::{Firewall, inside, lay_host};
use crate::{Cannot, Tested, chain};
use rdock_runtime::{
    ContainerInfo, ContainerSpec, NetworkJoin, NetworkSpec, PortForwarding, PortMapping, Ready, Runtime,
    ScopedContainer, SubnetSpec,
};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The host, its neighbour in the LAN, and the program.
pub(crate) struct Lab {
    pub(crate) here: OwnedFd,
    pub(crate) lan: OwnedFd,
    pub(crate) root: tempfile::TempDir,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Lab {
    /// `resolv_conf` is what the host's file says.
    pub(crate) fn open(resolv_conf: &str) -> Tested<Self> {
        Self::behind(Firewall::None, resolv_conf)
    }

    pub(crate) fn behind(firewall: Firewall, resolv_conf: &str) -> Tested<Self> {
        let (here, lan) = lay_host(firewall)?;
        let root = tempfile::tempdir()?;
        std::fs::write(root.path().join("resolv.conf"), resolv_conf)?;
        let (program, path) = (std::env::current_exe()?, root.path().to_owned());
        let mut child = inside(&here, move || {
            Command::new(program)
                .env("RDOCK_TEST_ROLE", "lab")
                .env("RDOCK_TEST_ROOT", path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        })??;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self {
            here,
            lan,
            root,
            child,
            orders,
            answers,
        })
    }

    /// What the program says to an order, errors included.
    pub(crate) fn says(&mut self, order: &str) -> Tested<String> {
        let orders = self.orders.as_mut().ok_or("no input")?;
        writeln!(orders, "{order}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err(format!("{order}: the program has ended").into());
        }
        Ok(line.trim().to_owned())
    }

    /// An order that must succeed.
    pub(crate) fn does(&mut self, order: &str) -> Tested<String> {
        let answer = self.says(order)?;
        match answer.starts_with("failed") {
            true => Err(format!("{order}: {answer}").into()),
            false => Ok(answer),
        }
    }

    /// What a client on the host gets.
    pub(crate) fn get_from_here(&self, address: (&str, u16)) -> Tested<String> {
        use std::net::ToSocketAddrs;
        let address = address.to_socket_addrs()?.next().ok_or("no address")?;
        Ok(inside(&self.here, move || crate::payload::get(address))??)
    }

    /// Waits until something holds.
    pub(crate) fn eventually(&self, what: &str, holds: impl Fn() -> Tested<bool>) -> Tested {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !holds().unwrap_or(false) {
            if std::time::Instant::now() > deadline {
                return Err(format!("{what}: not in ten seconds").into());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(())
    }

    pub(crate) fn info(&mut self, name: &str) -> Tested<ContainerInfo> {
        Ok(serde_json::from_str(&self.does(&format!("info {name}"))?)?)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
        // What a program that ends at once leaves on the host is taken away by the next one.
        let root = self.root.path().to_owned();
        for _ in 0..20 {
            let path = root.clone();
            let forwards = inside(&self.here, move || {
                let _ = Runtime::open(path);
                std::fs::read("/proc/sys/net/ipv4/conf/eth0/forwarding").is_ok_and(|is| is.starts_with(b"1"))
            });
            if !forwards.unwrap_or(false) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
    }
}

/// The program.
pub(crate) fn play() -> Tested {
    let root = std::env::var("RDOCK_TEST_ROOT")?;
    own_resolv_conf(&Path::new(&root).join("resolv.conf"))?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio.block_on(async {
        let runtime = Runtime::open(&root)?;
        crate::payload::load(&runtime)?;
        let mut containers = HashMap::new();
        for line in std::io::stdin().lock().lines() {
            let answer = match obey(&runtime, &mut containers, &line?).await {
                Ok(answer) => answer,
                Err(error) => format!("failed: {}", chain(error.as_ref())),
            };
            writeln!(std::io::stdout(), "{}", answer.trim().replace('\n', "|"))?;
        }
        for (_, container) in containers {
            container.remove().await?;
        }
        Ok(())
    })
}

/// This program alone sees the file at the host's place.
fn own_resolv_conf(file: &Path) -> Tested {
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|error| Cannot(format!("no mount namespace: {error}")))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let place = std::fs::canonicalize("/etc/resolv.conf")?;
    Ok(mount_bind(file, place)?)
}

async fn obey(
    runtime: &Runtime,
    containers: &mut HashMap<String, ScopedContainer>,
    order: &str,
) -> Tested<String> {
    let words: Vec<&str> = order.split_whitespace().collect();
    let known = |name: &str| format!("no container {name}");
    match words.as_slice() {
        ["network", name, options @ ..] => {
            let mut spec = NetworkSpec::new(*name);
            for option in options {
                match option.split_once('=') {
                    None if *option == "internal" => spec.internal = true,
                    None if *option == "ipv6" => spec.ipv6 = true,
                    Some(("subnet", subnet)) => spec.subnets.push(SubnetSpec::new(subnet)),
                    Some(("mtu", mtu)) => spec.mtu = Some(mtu.parse()?),
                    Some((key, value)) => spec = spec.option(key, value),
                    None => return Err(format!("what? {option}").into()),
                }
            }
            Ok(runtime.networks().create(&spec)?.name)
        }
        ["rm", name] => {
            runtime.networks().remove(name)?;
            Ok((*name).to_owned())
        }
        ["run", name, options @ ..] => {
            let spec = spec(name, options)?;
            let container = spec.start(runtime).await?;
            containers.insert((*name).to_owned(), container);
            Ok((*name).to_owned())
        }
        ["in", name, role, variables @ ..] => {
            let container = containers.get(*name).ok_or_else(|| known(name))?;
            let mut exec = container.exec(["/test"]).env("RDOCK_TEST_ROLE", *role);
            for variable in variables {
                let (key, value) = variable.split_once('=').ok_or("no KEY=VALUE")?;
                exec = exec.env(key, value);
            }
            let output = exec.output().await?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr))
        }
        ["connect", name, network] => {
            let container = containers.get(*name).ok_or_else(|| known(name))?;
            let NetworkJoin::Endpoint(endpoint) = NetworkJoin::parse(network)? else {
                return Err("no network".into());
            };
            container.connect_network(endpoint).await?;
            Ok((*name).to_owned())
        }
        ["disconnect", name, network] => {
            let container = containers.get(*name).ok_or_else(|| known(name))?;
            container.disconnect_network(*network).await?;
            Ok((*name).to_owned())
        }
        ["info", name] => {
            let container = containers.get(*name).ok_or_else(|| known(name))?;
            Ok(serde_json::to_string(&container.inspect()?)?)
        }
        ["stop", name] => {
            let container = containers.remove(*name).ok_or_else(|| known(name))?;
            container.remove().await?;
            Ok((*name).to_owned())
        }
        _ => Err(format!("what? {order}").into()),
    }
}

/// `KEY=VALUE` words.
fn spec(name: &str, options: &[&str]) -> Tested<ContainerSpec> {
    let mut spec = crate::payload::server()?
        .name(name)
        .ready_when(Ready::port(crate::payload::PORT));
    for option in options {
        let (key, value) = option.split_once('=').ok_or("no KEY=VALUE")?;
        match key {
            "net" => spec = spec.network(NetworkJoin::parse(value)?),
            "publish" => spec.ports.extend(PortMapping::parse(value)?),
            "dns" => spec = spec.dns(value.parse::<std::net::IpAddr>()?),
            "search" => spec = spec.dns_search(value),
            "host" => {
                let (name, address) = value.split_once(':').ok_or("no NAME:ADDRESS")?;
                spec = spec.extra_host(name, address);
            }
            "cap" => spec = spec.cap_add(value),
            "ready" => spec.ready.clear(),
            "expose" => spec.expose.extend(rdock_runtime::parse_exposed(value)?),
            "all" => spec = spec.publish_all(value == "yes"),
            "env" => {
                let (name, text) = value.split_once(':').ok_or("no NAME:VALUE")?;
                spec = spec.env(name, text);
            }
            "forwarding" if value == "kernel" => spec = spec.port_forwarding(PortForwarding::Kernel),
            _ => return Err(format!("what? {option}").into()),
        }
    }
    Ok(spec)
}
