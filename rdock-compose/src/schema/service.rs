//! The attributes of a service.

use super::Shape::{
    Any, Bool, Bytes, Checked, Choice, Command, Count, Duration, HealthTest, Hosts, Int, Keyed, List, Micros,
    Mode, Named, Names, Nullable, Number, Object as Fixed, OneOrMany, Pairs, Path, Ports, Replaced, Scalar,
    Short, Text, Ulimit,
};
use super::build::BUILD;
use super::short;
use super::{Alone, Object, Same, Shape, by_keys, closed, object, requiring};
use crate::yaml::Node;

const TEXTS: Shape = List(&Text, Same::Value);
const TEXT_OR_TEXTS: Shape = OneOrMany(&Text, Same::Value);
const WHOLE: Shape = Int(i64::MIN, i64::MAX);
const COUNT: Shape = Int(0, i64::MAX);

/// The key of a secret or config in a service: where it is put.
fn grant_target(node: &Node) -> String {
    match node.get("target").and_then(Node::as_text) {
        Some(target) => target.rsplit("/run/secrets/").next().unwrap_or(target).to_owned(),
        None => by_keys(node, &["source"]),
    }
}

fn path_before_options(node: &Node) -> String {
    let text = node.as_text().unwrap_or_default();
    text.split(':').next().unwrap_or_default().to_owned()
}

pub(super) const GRANTS: Shape = List(
    &Short(
        short::grant,
        &object(&[
            ("source", Text),
            ("target", Text),
            ("uid", Text),
            ("gid", Text),
            ("mode", Mode),
        ]),
    ),
    Same::Key(grant_target),
);

pub(super) const ULIMITS: Shape = Keyed(&Replaced(&Ulimit(&requiring(
    &["soft", "hard"],
    &[("soft", Int(-1, i64::MAX)), ("hard", Int(-1, i64::MAX))],
))));

const BLKIO_LIMITS: Shape = List(
    &Fixed(&closed(object(&[("path", Text), ("rate", Bytes(0))]))),
    Same::Key(|node| by_keys(node, &["path"])),
);

const ENV_FILES: Shape = OneOrMany(
    &Short(
        short::env_file,
        &closed(requiring(
            &["path"],
            &[
                ("path", Path),
                ("required", Bool),
                ("format", Checked(short::env_format)),
            ],
        )),
    ),
    Same::Key(|node| by_keys(node, &["path"])),
);

const DEVICES: Shape = List(
    &Short(
        short::device,
        &requiring(
            &["source"],
            &[("source", Text), ("target", Text), ("permissions", Text)],
        ),
    ),
    Same::Key(|node| by_keys(node, &["target"])),
);

const GPU: [(&str, Shape); 5] = [
    ("capabilities", List(&Text, Same::Value)),
    ("count", Count),
    ("device_ids", List(&Text, Same::Value)),
    ("driver", Text),
    ("options", Pairs(Alone::Empty)),
];

const HOOK: Object = requiring(
    &["command"],
    &[
        ("command", Command),
        ("user", Text),
        ("privileged", Bool),
        ("working_dir", Text),
        ("environment", Pairs(Alone::Null)),
    ],
);

const PRE_START: Object = object(&[
    ("command", Command),
    ("image", Text),
    ("user", Text),
    ("privileged", Bool),
    ("working_dir", Text),
    ("environment", Pairs(Alone::Null)),
    ("per_replica", Bool),
]);

const UPDATE: Shape = Fixed(&object(&[
    ("parallelism", COUNT),
    ("delay", Duration),
    ("failure_action", Text),
    ("monitor", Duration),
    ("max_failure_ratio", Number),
    ("order", Choice(&["start-first", "stop-first"])),
]));

const DEPLOY: Object = object(&[
    ("mode", Text),
    ("endpoint_mode", Text),
    ("replicas", COUNT),
    ("labels", Pairs(Alone::Empty)),
    ("rollback_config", UPDATE),
    ("update_config", UPDATE),
    (
        "resources",
        Fixed(&object(&[
            (
                "limits",
                Fixed(&object(&[
                    ("cpus", Number),
                    ("memory", Bytes(0)),
                    ("pids", WHOLE),
                ])),
            ),
            (
                "reservations",
                Fixed(&object(&[
                    ("cpus", Number),
                    ("memory", Bytes(0)),
                    (
                        "generic_resources",
                        List(
                            &Fixed(&object(&[(
                                "discrete_resource_spec",
                                Fixed(&object(&[("kind", Text), ("value", WHOLE)])),
                            )])),
                            Same::Never,
                        ),
                    ),
                    (
                        "devices",
                        List(&Fixed(&requiring(&["capabilities"], &GPU)), Same::Never),
                    ),
                ])),
            ),
        ])),
    ),
    (
        "restart_policy",
        Fixed(&object(&[
            ("condition", Text),
            ("delay", Duration),
            ("max_attempts", COUNT),
            ("window", Duration),
        ])),
    ),
    (
        "placement",
        Fixed(&object(&[
            ("constraints", List(&Text, Same::Never)),
            (
                "preferences",
                List(&Fixed(&object(&[("spread", Text)])), Same::Never),
            ),
            ("max_replicas_per_node", COUNT),
        ])),
    ),
]);

const WATCH: Object = requiring(
    &["path", "action"],
    &[
        ("path", Path),
        (
            "action",
            Choice(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]),
        ),
        ("target", Text),
        ("ignore", TEXT_OR_TEXTS),
        ("include", TEXT_OR_TEXTS),
        ("exec", Fixed(&HOOK)),
        ("initial_sync", Bool),
    ],
);

const NETWORK_ENTRY: Object = object(&[
    ("aliases", TEXTS),
    ("interface_name", Text),
    ("ipv4_address", Checked(short::ipv4)),
    ("ipv6_address", Checked(short::ipv6)),
    ("link_local_ips", TEXTS),
    ("mac_address", Text),
    ("driver_opts", Keyed(&Scalar)),
    ("priority", WHOLE),
    ("gw_priority", WHOLE),
]);

const VOLUMES: Shape = List(
    &Short(
        short::volume,
        &requiring(
            &["type"],
            &[
                (
                    "type",
                    Choice(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]),
                ),
                // A path only when the type is bind; the resolver looks.
                ("source", Text),
                ("target", Text),
                ("read_only", Bool),
                ("consistency", Text),
                (
                    "bind",
                    Fixed(&object(&[
                        ("propagation", Text),
                        ("create_host_path", Bool),
                        (
                            "recursive",
                            Choice(&["enabled", "disabled", "writable", "readonly"]),
                        ),
                        ("selinux", Choice(&["z", "Z"])),
                    ])),
                ),
                (
                    "volume",
                    Fixed(&object(&[
                        ("labels", Pairs(Alone::Empty)),
                        ("nocopy", Bool),
                        ("subpath", Text),
                    ])),
                ),
                ("tmpfs", Fixed(&object(&[("size", Bytes(0)), ("mode", WHOLE)]))),
                ("image", Fixed(&object(&[("subpath", Text)]))),
            ],
        ),
    ),
    Same::Key(|node| by_keys(node, &["target"])),
);

/// The 93 attributes.
pub(super) static SERVICE: Object = object(&[
    ("annotations", Pairs(Alone::Empty)),
    ("attach", Bool),
    (
        "blkio_config",
        Fixed(&closed(object(&[
            ("weight", Int(0, 1000)),
            (
                "weight_device",
                List(
                    &Fixed(&closed(object(&[("path", Text), ("weight", Int(0, 1000))]))),
                    Same::Key(|node| by_keys(node, &["path"])),
                ),
            ),
            ("device_read_bps", BLKIO_LIMITS),
            ("device_read_iops", BLKIO_LIMITS),
            ("device_write_bps", BLKIO_LIMITS),
            ("device_write_iops", BLKIO_LIMITS),
        ]))),
    ),
    ("build", Short(short::build, &BUILD)),
    ("cap_add", TEXTS),
    ("cap_drop", TEXTS),
    ("cgroup", Choice(&["host", "private"])),
    ("cgroup_parent", Text),
    ("command", Command),
    ("configs", GRANTS),
    ("container_name", Checked(short::container_name)),
    ("cpu_count", COUNT),
    ("cpu_percent", Number),
    ("cpu_period", Micros),
    ("cpu_quota", WHOLE),
    ("cpu_rt_period", Micros),
    ("cpu_rt_runtime", Micros),
    ("cpu_shares", COUNT),
    ("cpus", Number),
    ("cpuset", Text),
    (
        "credential_spec",
        Fixed(&object(&[("config", Text), ("file", Text), ("registry", Text)])),
    ),
    (
        "depends_on",
        Names(
            &Fixed(&requiring(
                &["condition"],
                &[
                    (
                        "condition",
                        Choice(&[
                            "service_started",
                            "service_healthy",
                            "service_completed_successfully",
                        ]),
                    ),
                    ("restart", Bool),
                    ("required", Bool),
                ],
            )),
            short::dependency,
        ),
    ),
    ("deploy", Nullable(&Fixed(&DEPLOY))),
    (
        "develop",
        Nullable(&Fixed(&object(&[(
            "watch",
            List(
                &Fixed(&WATCH),
                Same::Key(|node| by_keys(node, &["path", "action", "target"])),
            ),
        )]))),
    ),
    ("device_cgroup_rules", TEXTS),
    ("devices", DEVICES),
    ("dns", TEXT_OR_TEXTS),
    ("dns_opt", TEXTS),
    ("dns_search", TEXT_OR_TEXTS),
    ("domainname", Text),
    ("entrypoint", Command),
    ("env_file", ENV_FILES),
    ("environment", Pairs(Alone::Null)),
    ("expose", List(&Checked(short::expose), Same::Value)),
    (
        "extends",
        Short(
            short::extends,
            &closed(requiring(&["service"], &[("service", Text), ("file", Text)])),
        ),
    ),
    ("external_links", TEXTS),
    ("extra_hosts", Hosts),
    ("gpus", short::GPUS_SHAPE),
    ("group_add", List(&Scalar, Same::Value)),
    (
        "healthcheck",
        Fixed(&object(&[
            ("disable", Bool),
            ("interval", Duration),
            ("retries", COUNT),
            ("test", HealthTest),
            ("timeout", Duration),
            ("start_period", Duration),
            ("start_interval", Duration),
        ])),
    ),
    ("hostname", Text),
    ("image", Text),
    ("init", Bool),
    ("ipc", Text),
    ("isolation", Text),
    ("label_file", OneOrMany(&Path, Same::Value)),
    ("labels", Pairs(Alone::Empty)),
    ("links", TEXTS),
    (
        "logging",
        Fixed(&Object {
            whole_unless_equal: Some("driver"),
            ..object(&[("driver", Text), ("options", Keyed(&Nullable(&Scalar)))])
        }),
    ),
    ("mac_address", Text),
    ("mem_limit", Bytes(0)),
    ("mem_reservation", Bytes(0)),
    ("mem_swappiness", Int(-1, 100)),
    ("memswap_limit", Bytes(-1)),
    (
        "models",
        Names(
            &Nullable(&Fixed(&object(&[("endpoint_var", Text), ("model_var", Text)]))),
            short::null,
        ),
    ),
    ("network_mode", Text),
    ("networks", Names(&Nullable(&Fixed(&NETWORK_ENTRY)), short::null)),
    ("oom_kill_disable", Bool),
    ("oom_score_adj", Int(-1000, 1000)),
    ("pid", Nullable(&Text)),
    ("pids_limit", WHOLE),
    ("platform", Text),
    ("ports", Ports),
    ("post_start", List(&Fixed(&HOOK), Same::Never)),
    ("pre_start", List(&Fixed(&PRE_START), Same::Never)),
    ("pre_stop", List(&Fixed(&HOOK), Same::Never)),
    ("privileged", Bool),
    ("profiles", TEXTS),
    (
        "provider",
        Fixed(&requiring(
            &["type"],
            &[
                ("type", Text),
                ("options", Keyed(&OneOrMany(&Scalar, Same::Never))),
            ],
        )),
    ),
    ("pull_policy", Checked(short::pull_policy)),
    ("pull_refresh_after", Text),
    ("read_only", Bool),
    ("restart", Checked(short::restart)),
    ("runtime", Text),
    ("scale", COUNT),
    ("secrets", GRANTS),
    ("security_opt", TEXTS),
    ("shm_size", Bytes(0)),
    ("stdin_open", Bool),
    ("stop_grace_period", Duration),
    ("stop_signal", Text),
    ("storage_opt", Keyed(&Scalar)),
    ("sysctls", Pairs(Alone::Empty)),
    ("tmpfs", OneOrMany(&Text, Same::Key(path_before_options))),
    ("tty", Bool),
    ("ulimits", ULIMITS),
    ("use_api_socket", Bool),
    ("user", Text),
    ("userns_mode", Text),
    ("uts", Text),
    ("volumes", VOLUMES),
    ("volumes_from", TEXTS),
    ("working_dir", Text),
]);

/// The long form of a published port.
pub(super) static PORT: Object = object(&[
    ("name", Text),
    ("mode", Text),
    ("host_ip", Text),
    ("target", Int(1, 65535)),
    ("published", Scalar),
    ("protocol", Text),
    ("app_protocol", Text),
]);

/// One of `gpus`; its capabilities may be left out.
pub(super) static GPU_REQUEST: Object = object(&GPU);

/// Services by their names.
pub(super) const SERVICES: Shape = Named(&SERVICE_SHAPE);

/// One service.
pub(crate) static SERVICE_SHAPE: Shape = Fixed(&SERVICE);

/// Extensions.
pub(super) static ANY: Shape = Any;
