//! Bug classes of documents and archives: each test is named after the class it shows absent.
use crate::security::docker_archive;
use crate::support::{Bed, Outcome, Tar};
use crate::{Needs, Test};
use rdock_image::{Digest, Error, ManifestDocument, Progress, Reference};

pub(crate) fn tests() -> Vec<(&'static str, Needs, Test)> {
    vec![
        (
            "a_cut_archive_leaves_nothing",
            Needs::Nothing,
            a_cut_archive_leaves_nothing,
        ),
        ("img_digest_grammar", Needs::Nothing, img_digest_grammar),
        ("img_ambiguous_document", Needs::Nothing, img_ambiguous_document),
        ("img_import_limits", Needs::Nothing, img_import_limits),
        ("img_tag_poison", Needs::Nothing, img_tag_poison),
    ]
}

fn img_digest_grammar() -> Outcome {
    let bed = Bed::new()?;
    let hex = "a".repeat(64);
    for bad in [
        "sha256:../../x",
        "sha256:",
        "sha256",
        "",
        &hex,
        &format!("sha256:{}", &hex[1..]),
        &format!("sha256:{hex}0"),
        &format!("SHA256:{hex}"),
        &format!("md5:{}", &hex[..32]),
        &format!("sha1:{}", &hex[..40]),
        &format!("sha256:{}", hex.to_uppercase()),
    ] {
        assert!(
            matches!(Digest::parse(bad), Err(Error::InvalidDigest { .. })),
            "{bad:?}"
        );
        // In an archive's config, a layout's index and a manifest.
        let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{bad}"]}}}}"#);
        let list = r#"[{"Config":"c","RepoTags":[],"Layers":["l"]}]"#;
        let archive = Tar::new()
            .file("c", config)
            .file("l", "")
            .file("manifest.json", list)
            .end();
        assert!(
            bed.store
                .import_stream(&mut &archive[..], &Progress::default())
                .is_err(),
            "{bad:?}"
        );
        let index =
            format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x/y","digest":"{bad}","size":1}}]}}"#);
        let archive = Tar::new()
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", &index)
            .end();
        assert!(
            bed.store
                .import_stream(&mut &archive[..], &Progress::default())
                .is_err(),
            "{bad:?}"
        );
        assert!(ManifestDocument::parse(index.as_bytes(), None).is_err());
    }
    bed.assert_clean()
}

fn img_ambiguous_document() -> Outcome {
    let digest = Digest::sha256_of(b"");
    let config = format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":0}}"#);
    let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
    let bed = Bed::new()?;
    let lease = bed.store.lease()?;
    bed.store
        .write_blob(&lease, both.as_bytes(), &Digest::sha256_of(both.as_bytes()))?;
    let error = bed.store.commit(
        &lease,
        &Reference::parse("x")?,
        &Digest::sha256_of(both.as_bytes()),
    );
    assert!(matches!(error, Err(Error::MalformedDocument { .. })), "{error:?}");
    assert!(bed.store.images()?.is_empty());
    Ok(())
}

fn img_import_limits() -> Outcome {
    let bed = Bed::new()?;
    let large = vec![b' '; 4 << 20];
    for name in ["manifest.json", "index.json"] {
        let archive = Tar::new().file(name, [&large[..], b"[]"].concat()).end();
        let error = bed.store.import_stream(&mut &archive[..], &Progress::default());
        assert!(matches!(error, Err(Error::Limit { .. })), "{name}: {error:?}");
    }
    let lease = bed.store.lease()?;
    let blob = vec![b' '; (4 << 20) + 1];
    assert!(matches!(
        bed.store.write_blob(&lease, &blob, &Digest::sha256_of(&blob)),
        Err(Error::Limit { .. })
    ));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(ManifestDocument::parse(deep.as_bytes(), None).is_err());
    Ok(())
}

fn img_tag_poison() -> Outcome {
    let bed = Bed::new()?;
    let first = bed.image("victim:1", &[Tar::new().file("a", "1").end()])?;
    let layer = Tar::new().file("a", "2").end();
    let digest = Digest::sha256_of(&layer);
    let archive = docker_archive("l", |archive| archive.file("l", &layer), &digest, "victim:1");
    let path = bed.dir.path().join("archive.tar");
    std::fs::write(&path, archive)?;
    let mut options = rdock_image::ImportOptions::default();
    options.keep_tags = true;
    assert!(matches!(
        bed.store.import_with(&path, &options, &Progress::default()),
        Err(Error::Exists { .. })
    ));
    assert_eq!(bed.store.get("victim:1")?.ok_or("gone")?.id(), first.id());
    let report = bed.store.import_with(
        &path,
        &rdock_image::ImportOptions::default(),
        &Progress::default(),
    )?;
    assert_eq!(
        report.overwritten,
        [(Reference::parse("victim:1")?, first.id().clone())]
    );
    assert!(
        bed.store.get(first.id().as_str())?.is_some(),
        "the image that lost its name is kept"
    );
    Ok(())
}

/// Whatever is missing at its end, an archive comes in whole or not at all.
fn a_cut_archive_leaves_nothing() -> Outcome {
    let bed = Bed::new()?;
    let layer = Tar::new().file("a", vec![1; 3000]).end();
    let digest = Digest::sha256_of(&layer);
    let archive = docker_archive("l", |archive| archive.file("l", &layer), &digest, "cut:1");
    let path = bed.dir.path().join("archive.tar");
    for cut in (0..archive.len() - 1024).step_by(256) {
        std::fs::write(&path, &archive[..cut])?;
        match bed.store.import(&path, &Progress::default()) {
            Err(_) => assert!(bed.store.images()?.is_empty(), "cut at {cut}"),
            // Only padding is missing.
            Ok(images) => {
                assert_eq!(images[0].diff_ids(), std::slice::from_ref(&digest));
                assert!(
                    cut + 512 >= archive.len() - 1024,
                    "cut at {cut} of {}",
                    archive.len()
                );
                bed.store.remove("cut:1", false)?;
            }
        }
        bed.assert_clean()?;
    }
    std::fs::write(&path, &archive)?;
    assert_eq!(
        bed.store.import(&path, &Progress::default())?[0].diff_ids(),
        [digest]
    );
    Ok(())
}
