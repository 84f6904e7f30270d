//! Manifests and indexes: the JSON documents that say what an image is made of (OCI image specification 1.1 and
//! Docker's schema 2). Unknown fields are kept; the bytes that were hashed are never written anew.
use crate::{Digest, Error, Platform, Result};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Media types this crate tells apart.
pub mod media_type {
    /// OCI manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, uncompressed; `+gzip` and `+zstd` are appended for the compressed ones.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// A pointer to some content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// As written; [`Descriptor::digest`] checks it.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// Further places to fetch it from; never used with credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub urls: Vec<String>,
    /// Free texts.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Of a manifest inside an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Fields this library does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    /// Makes a descriptor of three fields.
    pub fn new(media_type: impl Into<String>, digest: &Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest: digest.to_string(),
            size,
            ..Self::default()
        }
    }

    /// Checks what the specification says of every descriptor: the grammar of its media types (RFC 6838) and of its
    /// digest.
    ///
    /// # Errors
    /// [`Error::InvalidDigest`], [`Error::MalformedDocument`].
    pub fn check(&self) -> Result<()> {
        let artifact = self.other.get("artifactType").and_then(|value| value.as_str());
        for text in std::iter::once(self.media_type.as_str()).chain(artifact) {
            if !is_media_type(text) {
                let text: String = text.chars().take(200).collect();
                return Err(Error::document(
                    "a descriptor",
                    format!("{text:?} is no media type"),
                ));
            }
        }
        self.digest().map(drop)
    }

    /// Returns the checked digest.
    pub fn digest(&self) -> Result<Digest> {
        Digest::parse(&self.digest)
    }
}

/// What one image is made of: its config and its layers, the base first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own; optional in OCI documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Of an artifact that is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The base first.
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
    /// What this document refers to (OCI 1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free texts.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields this library does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// A list of manifests, usually one per platform. Docker calls it a manifest list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own; optional in OCI documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Of an artifact that is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// In the document's order.
    #[serde(deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    /// What this document refers to (OCI 1.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free texts.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Fields this library does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Index {
    /// Makes an OCI index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests,
            ..Self::default()
        }
    }

    /// Returns the manifest that suits `platform` best; the first of equals. Attestations (platform `unknown`)
    /// and entries that are not manifests are passed over; an entry without a platform is taken only when it is
    /// the only one.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let is_image = |descriptor: &&Descriptor| {
            !matches!(
                descriptor
                    .annotations
                    .get("vnd.docker.reference.type")
                    .map(String::as_str),
                Some("attestation-manifest")
            )
        };
        let best = self
            .manifests
            .iter()
            .filter(is_image)
            .filter_map(|d| Some((platform.rank(d.platform.as_ref()?)?, d)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, descriptor)| descriptor);
        best.or_else(|| {
            let mut images = self.manifests.iter().filter(is_image);
            match (images.next(), images.next()) {
                (Some(only), None) if only.platform.is_none() => Some(only),
                _ => None,
            }
        })
    }
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "documents are few, and matching on a box is no friend of readers"
)]
pub enum ManifestDocument {
    /// One image.
    Manifest(Manifest),
    /// A list of images.
    Index(Index),
}

impl ManifestDocument {
    /// Reads a document of either kind.
    ///
    /// `content_type` is what the document was announced as (a descriptor's media type, a Content-Type header);
    /// it must agree with the document's own `mediaType`. A document that could be read as both kinds is refused
    /// (CVE-2021-41190), and so is Docker's schema 1.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self> {
        let malformed = |reason: String| Error::document("the manifest", reason);
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        let object = value
            .as_object()
            .ok_or_else(|| malformed("not a JSON object".to_owned()))?;
        if object.contains_key("fsLayers") || object.get("schemaVersion").and_then(|v| v.as_u64()) == Some(1)
        {
            return Err(Error::Unsupported {
                what: "Docker's manifest schema 1".to_owned(),
                on: "push the image again with a current tool".to_owned(),
            });
        }
        let announced = content_type.and_then(Kind::of);
        let own_text = object.get("mediaType").and_then(|v| v.as_str());
        let own = own_text.and_then(Kind::of);
        if let (Some(announced), Some(own)) = (content_type.filter(|_| announced.is_some()), own_text)
            && announced != own
        {
            return Err(malformed(format!(
                "announced as {announced}, but it calls itself {own}"
            )));
        }
        if own_text.is_some() && own.is_none() && announced.is_none() {
            return Err(Error::Unsupported {
                what: format!("the manifest type {}", own_text.unwrap_or_default()),
                on: String::new(),
            });
        }
        let looks_like_index = object.contains_key("manifests");
        let looks_like_manifest = object.contains_key("layers") || object.contains_key("config");
        let kind = match (own.or(announced), looks_like_manifest, looks_like_index) {
            (_, true, true) => {
                return Err(malformed(
                    "it has the fields of a manifest and of an index".to_owned(),
                ));
            }
            (Some(Kind::Manifest), _, true) | (Some(Kind::Index), true, _) => {
                return Err(malformed("its fields are not those of its media type".to_owned()));
            }
            (Some(kind), ..) => kind,
            (None, true, false) => Kind::Manifest,
            (None, false, true) => Kind::Index,
            (None, false, false) => return Err(malformed("neither a manifest nor an index".to_owned())),
        };
        let document = match kind {
            Kind::Manifest => {
                Self::Manifest(serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?)
            }
            Kind::Index => {
                Self::Index(serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?)
            }
        };
        let (version, descriptors): (u32, Vec<&Descriptor>) = match &document {
            Self::Manifest(m) => (
                m.schema_version,
                std::iter::once(&m.config).chain(&m.layers).collect(),
            ),
            Self::Index(index) => (index.schema_version, index.manifests.iter().collect()),
        };
        if version != 2 {
            return Err(malformed(format!("schemaVersion is {version}, not 2")));
        }
        for descriptor in descriptors {
            descriptor.check()?;
        }
        Ok(document)
    }

    /// Returns the document's media type; the OCI one of its kind where it names none.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => manifest.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST),
            Self::Index(index) => index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Index,
}

impl Kind {
    fn of(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => Some(Self::Manifest),
            media_type::OCI_INDEX | media_type::DOCKER_LIST => Some(Self::Index),
            _ => None,
        }
    }
}

/// `type/subtype`, as RFC 6838 (section 4.2) restricts them.
fn is_media_type(text: &str) -> bool {
    let name = |name: &str| {
        (1..=127).contains(&name.len())
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    text.split_once('/')
        .is_some_and(|(kind, sub)| name(kind) && name(sub))
}

/// Go programs write `null` for empty lists and maps.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The bridge to oci-spec's types, which other programs hold.
macro_rules! bridge {
    ($ours:ty, $theirs:ty, $what:literal) => {
        impl TryFrom<&$ours> for $theirs {
            type Error = Error;

            fn try_from(ours: &$ours) -> Result<Self> {
                let value = serde_json::to_value(ours).map_err(|error| Error::document($what, error))?;
                serde_json::from_value(value).map_err(|error| Error::document($what, error))
            }
        }

        impl TryFrom<&$theirs> for $ours {
            type Error = Error;

            fn try_from(theirs: &$theirs) -> Result<Self> {
                let value = serde_json::to_value(theirs).map_err(|error| Error::document($what, error))?;
                serde_json::from_value(value).map_err(|error| Error::document($what, error))
            }
        }
    };
}
pub(crate) use bridge;

bridge!(Manifest, oci_spec::image::ImageManifest, "the manifest");
bridge!(Index, oci_spec::image::ImageIndex, "the index");
bridge!(Descriptor, oci_spec::image::Descriptor, "the descriptor");

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,{extra}"config":{{"mediaType":"x/y","digest":"{DIGEST}","size":1}},"layers":[]}}"#
        )
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        assert!(ManifestDocument::parse(manifest("").as_bytes(), None).is_ok());
        assert!(ManifestDocument::parse(manifest(r#""manifests":[],"#).as_bytes(), None).is_err());
        let index = format!(r#""mediaType":"{}","#, media_type::OCI_INDEX);
        assert!(ManifestDocument::parse(manifest(&index).as_bytes(), None).is_err());
        let docker = format!(r#""mediaType":"{}","#, media_type::DOCKER_MANIFEST);
        assert!(
            ManifestDocument::parse(manifest(&docker).as_bytes(), Some(media_type::OCI_MANIFEST)).is_err()
        );
        assert!(
            ManifestDocument::parse(manifest(&docker).as_bytes(), Some(media_type::DOCKER_MANIFEST)).is_ok()
        );
    }

    #[test]
    fn schema_1_is_named_in_the_error() {
        let error = ManifestDocument::parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, None).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }

    #[test]
    fn a_digest_that_is_a_path_is_refused() {
        let text = manifest("").replace(DIGEST, "sha256:../../etc/passwd");
        assert!(ManifestDocument::parse(text.as_bytes(), None).is_err());
    }

    #[test]
    fn an_entry_without_a_processor_is_for_none() {
        let entry = |platform: &str| {
            format!(
                r#"{{"mediaType":"x/y","digest":"{DIGEST}","size":1,"platform":{{"os":"linux"{platform}}}}}"#
            )
        };
        let other = entry(r#","architecture":"amd64""#);
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{},{other}]}}"#, entry(""));
        let Ok(ManifestDocument::Index(index)) = ManifestDocument::parse(text.as_bytes(), None) else {
            panic!("an index is expected")
        };
        let select = |platform: &str| index.select(&Platform::parse(platform).unwrap());
        assert_eq!(select("linux/amd64"), Some(&index.manifests[1]));
        assert_eq!(select("linux/ppc64le"), None);
    }

    #[test]
    fn what_is_no_media_type_is_refused() {
        for bad in ["", "x", ".x/y", "x/", "x/y z", &format!("x/{}", "y".repeat(128))] {
            let text = manifest("").replace("x/y", bad);
            assert!(ManifestDocument::parse(text.as_bytes(), None).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unknown_fields_survive() {
        let text = manifest(r#""org.example":{"a":1},"#);
        let Ok(ManifestDocument::Manifest(manifest)) = ManifestDocument::parse(text.as_bytes(), None) else {
            panic!("a manifest is expected")
        };
        assert!(manifest.other.contains_key("org.example"));
        let oci = oci_spec::image::ImageManifest::try_from(&Manifest {
            config: Descriptor::new(media_type::OCI_CONFIG, &Digest::sha256_of(b""), 0),
            schema_version: 2,
            ..Manifest::default()
        })
        .unwrap();
        assert_eq!(Manifest::try_from(&oci).unwrap().config.digest, DIGEST);
    }

    #[test]
    fn attestations_are_never_selected() {
        let entry = |os: &str, arch: &str, kind: Option<&str>| Descriptor {
            digest: format!("{os}/{arch}"),
            platform: Some(Platform {
                os: os.into(),
                architecture: arch.into(),
                ..Platform::default()
            }),
            annotations: kind
                .map(|k| ("vnd.docker.reference.type".to_owned(), k.to_owned()))
                .into_iter()
                .collect(),
            ..Descriptor::default()
        };
        let index = Index {
            manifests: vec![
                entry("unknown", "unknown", Some("attestation-manifest")),
                entry("linux", "arm64", None),
                entry("linux", "amd64", None),
            ],
            ..Index::default()
        };
        let chosen = index.select(&Platform::parse("linux/amd64").unwrap()).unwrap();
        assert_eq!(chosen.digest, "linux/amd64");
        assert!(index.select(&Platform::parse("linux/s390x").unwrap()).is_none());
    }

    mod properties {
        use super::*;
        use proptest::prelude::*;

        /// Documents as a registry might send them: near to right, and damaged somewhere.
        fn document() -> impl Strategy<Value = Vec<u8>> {
            let entry = format!(
                r#"{{"mediaType":"{}","digest":"{DIGEST}","size":-1,"urls":["x:"],"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}"#,
                media_type::OCI_MANIFEST
            );
            let whole = vec![
                manifest(r#""subject":null,"annotations":{"a":"b"},"#),
                format!(r#"{{"schemaVersion":2,"manifests":[{entry},{entry}]}}"#),
                r#"{"architecture":"amd64","os":"linux","config":{"Env":["A"],"Healthcheck":{"Interval":1}},"rootfs":{"type":"layers","diff_ids":["x"]},"history":[{"created":"0"}]}"#.to_owned(),
            ];
            let piece = prop::sample::select(vec![
                "",
                "null",
                "[]",
                "{}",
                "\"",
                "-1",
                "1e999",
                "18446744073709551616",
                "{\"",
                "]",
                "\u{0}",
                "sha256:",
                "sha512:",
            ]);
            let damage = (any::<prop::sample::Index>(), 0..40usize, piece);
            (prop::sample::select(whole), prop::collection::vec(damage, 0..4)).prop_map(|(text, damages)| {
                let mut bytes = text.into_bytes();
                for (at, length, piece) in damages {
                    let from = at.index(bytes.len() + 1);
                    let to = (from + length).min(bytes.len());
                    bytes.splice(from..to, piece.bytes());
                }
                bytes
            })
        }

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(2000))]

            #[test]
            fn no_document_panics(bytes in document(), kind in prop::sample::select(vec![
                None, Some(media_type::OCI_MANIFEST), Some(media_type::OCI_INDEX), Some(media_type::DOCKER_MANIFEST), Some("x"),
            ])) {
                if let Ok(ManifestDocument::Index(index)) = ManifestDocument::parse(&bytes, kind) {
                    let _ = index.select(&Platform::host());
                }
                let _ = crate::ImageConfig::parse(&bytes);
            }
        }
    }
}
