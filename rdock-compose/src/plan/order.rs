//! The order of services.

use crate::model::Project;
use std::collections::{BTreeMap, BTreeSet};

/// Services, each after those it depends on. The loader has refused cycles; should there be one, its members come in
/// the order of their names.
pub(crate) fn services(project: &Project) -> Vec<&str> {
    let needs: BTreeMap<&str, Vec<&str>> = project
        .services
        .iter()
        .map(|(name, service)| {
            (
                name.as_str(),
                service.depends_on.keys().map(String::as_str).collect(),
            )
        })
        .collect();
    sorted(&needs)
}

/// Names, each after those it needs; what is needed and has no entry is passed over.
pub(super) fn sorted<'a>(needs: &BTreeMap<&'a str, Vec<&'a str>>) -> Vec<&'a str> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut order = Vec::with_capacity(needs.len());
    while order.len() < needs.len() {
        let ready: Vec<&str> = needs
            .iter()
            .filter(|(name, needed)| {
                !done.contains(*name)
                    && needed
                        .iter()
                        .all(|need| done.contains(need) || !needs.contains_key(need))
            })
            .map(|(name, _)| *name)
            .collect();
        let next = match ready.is_empty() {
            false => ready,
            true => needs
                .keys()
                .copied()
                .filter(|name| !done.contains(name))
                .take(1)
                .collect(),
        };
        done.extend(next.iter().copied());
        order.extend(next);
    }
    order
}
