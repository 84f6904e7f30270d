//! Documents that are nearly right, and bytes that are nothing.
use super::*;

/// Every value of a document, replaced by everything that it may not be.
fn replaced(document: &Value) -> Vec<Value> {
    fn paths(value: &Value, at: String, all: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    paths(
                        value,
                        format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                        all,
                    );
                }
            }
            Value::Array(items) => {
                for (number, value) in items.iter().enumerate() {
                    paths(value, format!("{at}/{number}"), all);
                }
            }
            _ => {}
        }
        all.push(at);
    }
    let mut all = Vec::new();
    paths(document, String::new(), &mut all);
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let others = [
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!("\u{0}"),
        json!("../../../etc/passwd"),
        json!("a".repeat(10_000)),
        json!([]),
        json!({}),
        json!([null]),
        json!({"": null}),
        json!([[[]]]),
        deep,
    ];
    let mut documents = Vec::new();
    for path in &all {
        for other in &others {
            let mut document = document.clone();
            if let Some(place) = document.pointer_mut(path) {
                *place = other.clone();
            }
            documents.push(document);
        }
        // And without it.
        let mut document = document.clone();
        if let Some((above, name)) = path.rsplit_once('/') {
            match document.pointer_mut(above) {
                Some(Value::Object(fields)) => {
                    drop(fields.remove(&name.replace("~1", "/").replace("~0", "~")))
                }
                Some(Value::Array(items)) => items.clear(),
                _ => {}
            }
        }
        documents.push(document);
    }
    documents
}

pub(super) fn img_malformed_manifest() -> Outcome {
    let bed = Bed::with(unsynced())?;
    let image = add_image(&bed.store, "good:1", &[Tar::new().file("a", "1").end()])?;
    let before = bed.names("refs")?;
    let manifest: Value = serde_json::from_slice(&bed.store.read_blob(image.manifest_digest())?)?;
    let mut config: Value = serde_json::from_slice(&bed.store.read_blob(image.id())?)?;
    config["config"] = json!({"Env": ["A=1"], "Cmd": ["x"], "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1}, "Labels": {"a": "b"}, "StopTimeout": 1});
    config["history"] = json!([{"created": "2026-01-01T00:00:00Z", "empty_layer": true}]);
    let mut index =
        json!({"schemaVersion": 2, "manifests": [image.descriptor()?], "annotations": {"a": "b"}});
    index["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64", "os.features": ["x"]});
    let documents = |of: &Value| {
        replaced(of)
            .into_iter()
            .map(|value| value.to_string().into_bytes())
    };
    let mut refused = 0;
    for bytes in documents(&manifest)
        .chain(documents(&index))
        .chain(documents(&config))
    {
        let lease = bed.store.lease()?;
        let digest = Digest::sha256_of(&bytes);
        bed.store.write_blob(&lease, &bytes, &digest)?;
        // As a manifest, as a config, as an index of an archive, with anything else in its place.
        let parsed = ManifestDocument::parse(&bytes, None);
        if let Ok(ManifestDocument::Index(index)) = &parsed {
            index.select(&Platform::host());
        }
        if let Ok(config) = ImageConfig::parse(&bytes) {
            config.platform();
        }
        let committed = bed.store.commit(&lease, &Reference::parse("bad:1")?, &digest);
        match committed {
            Ok(image) => {
                assert!(parsed.is_ok());
                bed.store.view(&image)?;
                bed.store.remove("bad:1", true)?;
            }
            Err(
                Error::MalformedDocument { .. }
                | Error::InvalidDigest { .. }
                | Error::MissingBlob { .. }
                | Error::Unsupported { .. }
                | Error::Limit { .. },
            ) => refused += 1,
            Err(error) => return Err(format!("{error:?} of {}", String::from_utf8_lossy(&bytes)).into()),
        }
        ResolvedImage::new(&Reference::parse("x")?, bytes.clone(), bytes)
            .map_err(drop)
            .ok();
        drop(lease);
        bed.store.prune_layers()?;
    }
    assert!(refused > 500, "{refused}");
    // In an archive.
    for bytes in documents(&index).step_by(7) {
        let archive = Tar::new()
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", &bytes)
            .end();
        // None of them has its blobs.
        let result = bed.store.import_stream(&mut &archive[..], &Progress::default());
        assert!(result.is_err());
    }
    assert_eq!(bed.names("refs")?, before);
    assert!(bed.store.fsck()?.findings.is_empty());
    bed.assert_clean()
}

pub(super) fn img_malformed_manifest_of_random_bytes() -> Outcome {
    let mut runner = TestRunner::new(Config::with_cases(500));
    let words = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "null",
        "1",
        "-1",
        "1e9",
        "\"schemaVersion\":2,",
        "\"config\":{",
        "\"layers\":[",
        "\"manifests\":[",
        "\"digest\":\"sha256:",
        "\"mediaType\":",
        "\"size\":",
        "\"rootfs\":{\"diff_ids\":[",
        "\"platform\":{",
        "\\u0000",
        "\\ud800",
        " ",
    ]);
    let text = prop::collection::vec(words, 0..40).prop_map(|words| words.concat().into_bytes());
    let bytes = prop_oneof![text, prop::collection::vec(any::<u8>(), 0..200)];
    runner.run(&bytes, |bytes| {
        if let Ok(ManifestDocument::Manifest(manifest)) = ManifestDocument::parse(&bytes, None) {
            // What is read can be written, and is the same then.
            let again = serde_json::to_vec(&manifest).expect("written");
            let again: Manifest = serde_json::from_slice(&again).expect("read");
            prop_assert_eq!(again, manifest);
        }
        ImageConfig::parse(&bytes).map_err(drop).ok();
        Ok(())
    })?;
    Ok(())
}
