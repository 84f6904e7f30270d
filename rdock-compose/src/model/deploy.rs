//! `deploy`: how many containers, what they may use, how they are replaced.

use super::{Bytes, Extra, Number, Time, model};

model! {
    /// `deploy` of a service.
    Deploy {
        /// `replicated` or `global`.
        mode: Option<String>,
        /// How many containers.
        replicas: Option<i64>,
        /// Labels of the service (not of its containers).
        labels: Extra,
        /// How a new version takes over.
        update_config: Option<UpdateConfig>,
        /// How an old version comes back.
        rollback_config: Option<UpdateConfig>,
        /// Limits and reservations.
        resources: Option<DeployResources>,
        /// When containers start again.
        restart_policy: Option<RestartPolicy>,
        /// Which machine.
        placement: Option<Placement>,
        /// How clients find the service.
        endpoint_mode: Option<String>,
    }
}

model! {
    /// Steps of an update.
    UpdateConfig {
        /// Containers at a time.
        parallelism: Option<i64>,
        /// Time between groups.
        delay: Option<Time>,
        /// `continue`, `rollback` or `pause`.
        failure_action: Option<String>,
        /// How long a container is watched.
        monitor: Option<Time>,
        /// Which share may fail.
        max_failure_ratio: Option<Number>,
        /// `start-first` or `stop-first`.
        order: Option<String>,
    }
}

model! {
    /// What containers may use, and what is kept for them.
    DeployResources {
        /// The most.
        limits: Option<Limits>,
        /// What is kept free.
        reservations: Option<Reservations>,
    }
}

model! {
    /// The most a container may use.
    Limits {
        /// Processors.
        cpus: Option<Number>,
        /// Memory.
        memory: Option<Bytes>,
        /// Processes.
        pids: Option<i64>,
    }
}

model! {
    /// What is kept for a container.
    Reservations {
        /// Processors.
        cpus: Option<Number>,
        /// Memory.
        memory: Option<Bytes>,
        /// Devices such as GPUs.
        devices: Vec<DeviceRequest>,
        /// Resources that an operator defined.
        generic_resources: Vec<GenericResource>,
    }
}

model! {
    /// Devices that a driver hands out.
    DeviceRequest {
        /// What they must be able to do.
        capabilities: Vec<String>,
        /// The driver.
        driver: Option<String>,
        /// How many; -1 is all.
        count: Option<i64>,
        /// Which.
        device_ids: Vec<String>,
        /// For the driver.
        options: Extra,
    }
}

model! {
    /// One of `generic_resources`.
    GenericResource {
        /// A countable one.
        discrete_resource_spec: Option<DiscreteResource>,
    }
}

model! {
    /// A countable resource.
    DiscreteResource {
        /// Its kind.
        kind: String,
        /// How many.
        value: i64,
    }
}

model! {
    /// When containers start again.
    RestartPolicy {
        /// `none`, `on-failure` or `any`.
        condition: Option<String>,
        /// Time between attempts.
        delay: Option<Time>,
        /// How often.
        max_attempts: Option<i64>,
        /// How long it must run to count as started.
        window: Option<Time>,
    }
}

model! {
    /// Which machine of a cluster.
    Placement {
        /// What a machine must be.
        constraints: Vec<String>,
        /// How containers are spread.
        preferences: Vec<Preference>,
        /// The most on one machine.
        max_replicas_per_node: Option<i64>,
    }
}

model! {
    /// How containers are spread.
    Preference {
        /// By which label.
        spread: Option<String>,
    }
}
