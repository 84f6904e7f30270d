//! For programs that use the `oci-client` crate too: the same names, in its words.

use crate::error::{Error, Result};
use rdock_image::Reference;

/// A reference as `oci-client` (once `oci-distribution`) has it.
///
/// # Errors
/// [`Error::Malformed`] for one that its stricter grammar does not take.
pub fn oci_reference(reference: &Reference) -> Result<oci_distribution::Reference> {
    reference
        .as_str()
        .parse()
        .map_err(|error: oci_distribution::ParseError| Error::Malformed {
            registry: reference.domain().to_owned(),
            what: "reference",
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_crates_name_the_same_image() {
        for text in [
            "mysql:8",
            "127.0.0.1:5000/a/b",
            "jupyter/minimal-notebook@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ] {
            let ours = Reference::parse(text).expect("reference");
            let theirs = oci_reference(&ours).expect("converts");
            assert_eq!(theirs.registry(), ours.domain());
            assert_eq!(theirs.repository(), ours.path());
            assert_eq!(theirs.digest(), ours.digest().map(|digest| digest.as_str()));
        }
    }
}
