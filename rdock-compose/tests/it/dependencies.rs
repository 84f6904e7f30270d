//! Rules for what is linked, checked against cargo's own resolution. `.deny.toml` has the same for cargo-deny.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Each crate of the workspace, and those it may use. Tests are free in this.
const ARROWS: [(&str, &[&str]); 5] = [
    ("rdock-image", &[]),
    ("rdock-registry", &["rdock-image"]),
    ("rdock-runtime", &["rdock-image", "rdock-registry"]),
    ("rdock-build", &["rdock-image", "rdock-registry", "rdock-runtime"]),
    ("rdock-compose", &["rdock-image", "rdock-runtime", "rdock-build"]),
];

/// Licences that ask for no more than a notice.
const LICENCES: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Crates that bring a C library, a C build system, or a licence that reaches the user's program.
const BANNED: [&str; 12] = [
    "aws-lc-fips-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "bindgen",
    "cmake",
    "libseccomp",
    "libz-sys",
    "native-tls",
    "nftnl",
    "openssl",
    "openssl-sys",
    "rustables",
];

/// The only C and assembly in the workspace.
const FOREIGN_SOURCES: [&str; 2] = ["ring", "zstd-sys"];

fn cargo(arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The packages that are built for this platform, by name (several versions of one may be there).
fn packages() -> Vec<Value> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let text = cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
        "--filter-platform",
        &platform,
    ]);
    let mut metadata: Value = serde_json::from_str(&text).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let used: BTreeSet<String> = nodes
        .iter()
        .map(|node| node["id"].as_str().unwrap().to_owned())
        .collect();
    let Value::Array(mut packages) = metadata["packages"].take() else {
        panic!("no packages")
    };
    packages.retain(|package| used.contains(package["id"].as_str().unwrap()));
    assert!(packages.len() > 50, "only {} packages", packages.len());
    packages
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let packages = packages();
    let mut seen = 0;
    for package in &packages {
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name(package)) else {
            continue;
        };
        seen += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = name(dependency);
            if dependency["kind"].is_null() && used.starts_with("rdock") {
                assert!(allowed.contains(&used), "{} uses {used}", name(package));
            }
        }
    }
    assert_eq!(seen, ARROWS.len());
}

#[test]
fn licences_ask_for_no_more_than_a_notice() {
    let mut wrong = BTreeMap::new();
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or("none given").to_owned();
        if !acceptable(&licence) {
            wrong.insert(name(&package).to_owned(), licence);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// An SPDX expression that can be met with [`LICENCES`] alone; `/` is the old way to write OR.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let spaces = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    // AND binds closer than OR, except in brackets; demanding every part of each AND is the stricter reading.
    let all = |part: &str| {
        part.split(" AND ")
            .all(|licence| LICENCES.contains(&spaces(licence).as_str()))
    };
    expression.split(" OR ").any(all)
}

#[test]
fn acceptable_licences_are_told_from_others() {
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "MIT/Apache-2.0",
        "Apache-2.0 AND ISC",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ] {
        assert!(acceptable(good), "{good}");
    }
    for bad in [
        "GPL-3.0",
        "LGPL-2.1-only",
        "MIT AND GPL-2.0-only",
        "AGPL-3.0 OR SSPL-1.0",
        "none given",
    ] {
        assert!(!acceptable(bad), "{bad}");
    }
}

#[test]
fn no_c_library_is_wanted_and_little_c_is_compiled() {
    for package in packages() {
        let name = name(&package);
        assert!(!BANNED.contains(&name), "{name} is in the tree");
        let builds_c = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .any(|dependency| {
                dependency["kind"] == "build" && dependency["name"] == "cc" && dependency["optional"] == false
            });
        if !package["links"].is_null() || builds_c {
            assert!(
                FOREIGN_SOURCES.contains(&name),
                "{name} brings sources that are not Rust"
            );
        }
    }
}

#[test]
fn runtime_without_registry_has_no_network_client() {
    let tree = |features: &[&str]| -> BTreeSet<String> {
        let fixed = [
            "tree",
            "--locked",
            "--offline",
            "-p",
            "rdock-runtime",
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ];
        let text = cargo(&[&fixed, features].concat());
        text.lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect()
    };
    let clients = [
        "reqwest",
        "hyper",
        "hyper-util",
        "rustls",
        "ring",
        "h2",
        "oci-client",
        "rdock-registry",
    ];
    let without = tree(&["--no-default-features"]);
    let found: Vec<_> = clients.iter().filter(|name| without.contains(**name)).collect();
    assert!(found.is_empty(), "{found:?}");
    // The names are right: with the feature they are there.
    let with = tree(&[]);
    assert!(
        with.contains("rdock-registry") && with.contains("reqwest") && with.contains("rustls"),
        "{with:?}"
    );
}
