//! The canonical model: what a project is once everything is read, merged and filled in.
//!
//! Its JSON is that of `docker compose config --format json`: short forms are long, sizes are bytes in a string,
//! durations are Go's, lists of `KEY=value` are mappings.

mod build;
mod deploy;
mod mount;
mod project;
mod resource;
mod service;
mod value;

pub use build::Build;
pub use deploy::{
    Deploy, DeployResources, DeviceRequest, DiscreteResource, GenericResource, Limits, Placement, Preference,
    Reservations, RestartPolicy, UpdateConfig,
};
pub use mount::{BindOptions, Grant, ImageOptions, ServiceVolume, TmpfsOptions, VolumeOptions};
pub(crate) use project::Origin;
pub use project::{Dependencies, Project};
pub use resource::{Config, Ipam, IpamPool, Model, Network, Secret, Volume};
pub use service::{
    BlkioConfig, BlkioRate, BlkioWeight, CredentialSpec, Dependency, Develop, Device, EnvFile, HealthCheck,
    Hook, Logging, Port, Provider, Service, ServiceModel, ServiceNetwork, Watch,
};
pub use value::{Bytes, CommandLine, Condition, Extensions, Extra, Hosts, Number, Pairs, Time, Ulimit};

/// Defines plain data of the model: every field may be absent, `x-*` keys are kept.
macro_rules! model {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "crate::model::value::Absent::absent")]
                pub $field: $kind,
            )*
            /// The `x-*` keys.
            #[serde(flatten)]
            pub extensions: crate::model::Extensions,
        }
    };
}
pub(crate) use model;
