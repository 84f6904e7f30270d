//! `compose config` with the digests that a registry has.

use crate::program::Tested;
use crate::tiny::{Tiny, trial};
use libtest_mimic::Trial;
use rdock_registry::server::{RegistryServer, ServerOptions};

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("compose_config_pins_images_to_digests", pins)]
}

fn pins(tiny: &Tiny) -> Tested {
    let server = RegistryServer::start(ServerOptions::new(tiny.file("served")))?;
    let image = format!("{}/app", server.host());
    for tag in ["1", "2"] {
        let name = format!("{image}:{tag}");
        for words in [["tag", "tiny", &name], ["push", "-q", &name]] {
            let done = tiny.run(&words)?;
            assert_eq!(done.code, Some(0), "{done:?}");
        }
    }
    let digest = server.tag("app", "1").ok_or("it is not there")?;
    let known = format!("sha256:{}", "0".repeat(64));
    let file = tiny.file("compose.yaml").display().to_string();
    let text = format!(
        "name: pins\nservices:\n  a: {{image: '{image}:1'}}\n  b: {{image: '{image}:2@{known}'}}\n  c: {{build: .}}\n  d: {{image: '{image}:1', profiles: [p]}}\n"
    );
    std::fs::write(&file, text)?;
    let config = |flag: &str| tiny.run(&["compose", "-f", &file, "config", "--format", "json", flag]);
    let done = config("--resolve-image-digests")?;
    let project: serde_json::Value = serde_json::from_str(&done.stdout).map_err(|_| format!("{done:?}"))?;
    let services = &project["services"];
    assert_eq!(services["a"]["image"], format!("{image}:1@{digest}"));
    assert_eq!(
        services["b"]["image"],
        format!("{image}@{known}"),
        "its digest stays"
    );
    assert_eq!(services["c"]["image"], serde_json::Value::Null, "it has none");
    assert_eq!(project["name"], "pins");

    let done = config("--lock-image-digests")?;
    let lock: serde_json::Value = serde_json::from_str(&done.stdout).map_err(|_| format!("{done:?}"))?;
    let expected = serde_json::json!({"services": {
        "a": {"image": format!("{image}:1@{digest}")},
        "b": {"image": format!("{image}@{known}")},
    }});
    assert_eq!(lock, expected);
    // As a second file it holds the project to what was there.
    let lock = tiny.file("lock.yaml").display().to_string();
    let done = tiny.run(&[
        "compose",
        "-f",
        &file,
        "config",
        "--lock-image-digests",
        "-o",
        &lock,
    ])?;
    assert_eq!((done.code, &*done.stdout), (Some(0), ""), "{done:?}");
    let done = tiny.run(&["compose", "-f", &file, "-f", &lock, "config", "--images"])?;
    let images = format!("{image}:1@{digest}\n{image}@{known}\npins-c\n");
    assert_eq!(done.stdout, images);

    std::fs::write(&file, format!("services: {{a: {{image: '{image}:gone'}}}}\n"))?;
    let done = config("--resolve-image-digests")?;
    let place = format!("services.a.image: the digest of \"{image}:gone\"");
    done.failed(1, &[&place, "not found"], None);
    Ok(())
}
