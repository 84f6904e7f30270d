//! The documents of the image specification, each read as the library reads it.

use super::{Outcome, equal, store, text_of};
use rdock_image::{Descriptor, Digest, ImageConfig, ManifestDocument};
use serde_json::{Value, json};

pub(crate) fn document(input: &Value, expect: &Value) -> Outcome {
    let text = text_of(&input["document"]);
    let read = match text_of(&input["kind"]) {
        kind @ ("manifest" | "index") => ManifestDocument::parse(text.as_bytes(), None)
            .map_err(|error| error.to_string())
            .and_then(|found| match (kind, found) {
                ("manifest", ManifestDocument::Manifest(_)) | ("index", ManifestDocument::Index(_)) => Ok(()),
                (_, found) => Err(format!("read as {}", found.media_type())),
            }),
        "config" => ImageConfig::parse(text.as_bytes())
            .map(drop)
            .map_err(|error| error.to_string()),
        "descriptor" => serde_json::from_str::<Descriptor>(text)
            .map_err(|error| error.to_string())
            .and_then(|found| found.check().map_err(|error| error.to_string())),
        "layout" => layout(text)?,
        "empty" => serde_json::from_str::<Value>(text)
            .map(drop)
            .map_err(|error| error.to_string()),
        "media-type-match" => {
            let own = text_of(&input["document_media_type"]);
            let document = match own.contains("index") || own.contains("list") {
                true => json!({"schemaVersion": 2, "mediaType": own, "manifests": []}),
                false => json!({"schemaVersion": 2, "mediaType": own, "layers": [], "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": Digest::sha256_of(b"").to_string(),
                    "size": 0,
                }}),
            };
            ManifestDocument::parse(
                document.to_string().as_bytes(),
                Some(text_of(&input["descriptor"])),
            )
            .map(drop)
            .map_err(|error| error.to_string())
        }
        other => return Err(format!("unknown kind {other}")),
    };
    let valid = json!(read.is_ok());
    equal("valid", &valid, &expect["valid"])
        .map_err(|reason| format!("{reason} {}", read.err().unwrap_or_default()))?;
    match &expect["digest"] {
        Value::Null => Ok(()),
        digest => equal(
            "digest",
            &json!(Digest::sha256_of(text.as_bytes()).to_string()),
            digest,
        ),
    }
}

/// A layout with this file `oci-layout` and nothing wrong else.
fn layout(text: &str) -> Result<Result<(), String>, String> {
    let (dir, store) = store()?;
    let root = dir.path().join("layout");
    let examined = |text: &str| {
        std::fs::create_dir_all(&root).map_err(|error| error.to_string())?;
        let index = r#"{"schemaVersion": 2, "manifests": []}"#;
        for (name, text) in [("oci-layout", text), ("index.json", index)] {
            std::fs::write(root.join(name), text).map_err(|error| error.to_string())?;
        }
        Ok(store
            .examine_archive(&root)
            .map(drop)
            .map_err(|error| error.to_string()))
    };
    examined(r#"{"imageLayoutVersion": "1.0.0"}"#)?
        .map_err(|error: String| format!("a good layout: {error}"))?;
    examined(text)
}
