//! How a service's image is built.

use super::Shape::{Bool, Bytes, Hosts, List, OneOrMany, Pairs, PathOrUrl, Scalar, Text};
use super::service::{GRANTS, ULIMITS};
use super::{Alone, Object, Same, Shape, object};

const TEXTS: Shape = List(&Text, Same::Value);

pub(super) static BUILD: Object = object(&[
    ("context", PathOrUrl),
    ("dockerfile", Text),
    ("dockerfile_inline", Text),
    ("entitlements", TEXTS),
    ("args", Pairs(Alone::Null)),
    // Paths in the values, which the resolver knows.
    ("ssh", Pairs(Alone::Empty)),
    ("labels", Pairs(Alone::Empty)),
    ("cache_from", TEXTS),
    ("cache_to", TEXTS),
    ("no_cache", Bool),
    ("no_cache_filter", OneOrMany(&Text, Same::Value)),
    ("additional_contexts", Pairs(Alone::Empty)),
    ("network", Text),
    ("provenance", Scalar),
    ("sbom", Scalar),
    ("pull", Bool),
    ("target", Text),
    ("shm_size", Bytes(0)),
    ("extra_hosts", Hosts),
    ("isolation", Text),
    ("privileged", Bool),
    ("secrets", GRANTS),
    ("tags", TEXTS),
    ("ulimits", ULIMITS),
    ("platforms", TEXTS),
]);
