//! Networks, volumes, configs, secrets and models of a project.

use super::{Extra, model};

model! {
    /// A network.
    Network {
        /// Its real name.
        name: String,
        /// How it works; absent is the default (a bridge).
        driver: Option<String>,
        /// For the driver.
        driver_opts: Extra,
        /// Its addresses.
        ipam: Option<Ipam>,
        /// It is there already and stays.
        external: bool,
        /// Nothing leads outside.
        internal: bool,
        /// Single containers may join.
        attachable: bool,
        /// Labels.
        labels: Extra,
        /// Whether it has IPv4 addresses.
        enable_ipv4: Option<bool>,
        /// Whether it has IPv6 addresses.
        enable_ipv6: Option<bool>,
    }
}

model! {
    /// Where a network's addresses come from.
    Ipam {
        /// Who hands them out.
        driver: Option<String>,
        /// Pools.
        config: Vec<IpamPool>,
        /// For the driver.
        options: Extra,
    }
}

model! {
    /// A pool of addresses.
    IpamPool {
        /// The subnet.
        subnet: Option<String>,
        /// The gateway's address.
        gateway: Option<String>,
        /// The part that containers get.
        ip_range: Option<String>,
        /// Addresses that are taken, by name.
        aux_addresses: Extra,
    }
}

model! {
    /// A volume.
    Volume {
        /// Its real name.
        name: String,
        /// How it works; absent is `local`.
        driver: Option<String>,
        /// For the driver.
        driver_opts: Extra,
        /// It is there already and stays.
        external: bool,
        /// Labels.
        labels: Extra,
    }
}

model! {
    /// A secret: a file that services are given.
    Secret {
        /// Its real name.
        name: String,
        /// The variable with its content.
        environment: Option<String>,
        /// The file with its content.
        file: Option<String>,
        /// It is kept by something else.
        external: bool,
        /// Labels.
        labels: Extra,
        /// Who keeps it.
        driver: Option<String>,
        /// For the driver.
        driver_opts: Extra,
        /// Who fills templates in.
        template_driver: Option<String>,
    }
}

model! {
    /// A config: a file that services are given.
    Config {
        /// Its real name.
        name: String,
        /// The content.
        content: Option<String>,
        /// The variable with its content.
        environment: Option<String>,
        /// The file with its content.
        file: Option<String>,
        /// It is kept by something else.
        external: bool,
        /// Labels.
        labels: Extra,
        /// Who fills templates in.
        template_driver: Option<String>,
    }
}

model! {
    /// A model of machine learning that services use.
    Model {
        /// Its real name.
        name: Option<String>,
        /// Its artefact.
        model: String,
        /// How much it keeps in mind.
        context_size: Option<i64>,
        /// For its runner.
        runtime_flags: Vec<String>,
    }
}
