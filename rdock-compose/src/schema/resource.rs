//! The top level: networks, volumes, configs, secrets, models, includes.

use super::Shape::{
    Bool, External, Int, Keyed, List, Named, Nullable, Object as Fixed, OneOrMany, Pairs, Path, Scalar,
    Short, Text,
};
use super::service::SERVICES;
use super::short;
use super::{Alone, Object, Same, by_keys, closed, object, requiring};

const NETWORK: Object = object(&[
    ("name", Text),
    ("driver", Text),
    ("driver_opts", Keyed(&Scalar)),
    (
        "ipam",
        Fixed(&object(&[
            ("driver", Text),
            (
                "config",
                List(
                    &Fixed(&object(&[
                        ("subnet", Text),
                        ("ip_range", Text),
                        ("gateway", Text),
                        ("aux_addresses", Keyed(&Text)),
                    ])),
                    Same::Merge(|node| by_keys(node, &["subnet"])),
                ),
            ),
            ("options", Keyed(&Text)),
        ])),
    ),
    ("external", External),
    ("internal", Bool),
    ("enable_ipv4", Bool),
    ("enable_ipv6", Bool),
    ("attachable", Bool),
    ("labels", Pairs(Alone::Empty)),
]);

const VOLUME: Object = object(&[
    ("name", Text),
    ("driver", Text),
    // `device` is a path when the type is a bind; the resolver looks.
    ("driver_opts", Keyed(&Scalar)),
    ("external", External),
    ("labels", Pairs(Alone::Empty)),
]);

const SECRET: Object = object(&[
    ("name", Text),
    ("environment", Text),
    ("file", Path),
    ("external", External),
    ("labels", Pairs(Alone::Empty)),
    ("driver", Text),
    ("driver_opts", Keyed(&Scalar)),
    ("template_driver", Text),
]);

const CONFIG: Object = object(&[
    ("name", Text),
    ("content", Text),
    ("environment", Text),
    ("file", Path),
    ("external", External),
    ("labels", Pairs(Alone::Empty)),
    ("template_driver", Text),
]);

const MODEL: Object = requiring(
    &["model"],
    &[
        ("name", Text),
        ("model", Text),
        ("context_size", Int(0, i64::MAX)),
        ("runtime_flags", List(&Text, Same::Never)),
    ],
);

/// A whole document.
pub(crate) static TOP: Object = object(&[
    ("version", Scalar),
    ("name", Text),
    (
        "include",
        List(
            &Short(
                short::include,
                &closed(object(&[
                    ("path", OneOrMany(&Text, Same::Never)),
                    ("env_file", OneOrMany(&Text, Same::Never)),
                    ("project_directory", Text),
                ])),
            ),
            Same::Never,
        ),
    ),
    ("services", SERVICES),
    ("models", Named(&Nullable(&Fixed(&MODEL)))),
    ("networks", Named(&Nullable(&Fixed(&NETWORK)))),
    ("volumes", Named(&Nullable(&Fixed(&VOLUME)))),
    ("secrets", Named(&Fixed(&SECRET))),
    ("configs", Named(&Fixed(&CONFIG))),
]);
