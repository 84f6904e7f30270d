//! The reader against tars of another writer, and against damage.
use super::*;
use proptest::prelude::*;

/// Names, sizes and contents of all entries.
fn read_all(tar: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(tar);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        loop {
            let chunk = reader.data()?;
            if chunk.is_empty() {
                break;
            }
            // In uneven steps, as buffers end anywhere.
            let count = chunk.len().min(300);
            content.extend_from_slice(&chunk[..count]);
            reader.consume(count);
        }
        found.push((entry, content));
    }
    Ok(found)
}

fn written(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_uid(1000);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn long_names_and_links_of_gnu_tars_are_read() {
    let name = format!("{}/{}", "d".repeat(150), "f".repeat(150));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, &name, "t".repeat(200)).unwrap();
    let found = read_all(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(found[0].0.name, name.as_bytes());
    assert_eq!(found[0].0.link, "t".repeat(200).as_bytes());
    assert_eq!(found[0].0.kind, Kind::Symlink);
}

#[test]
fn a_tar_cut_anywhere_but_between_entries_is_an_error() {
    let tar = written(&[("a".to_owned(), vec![1; 700]), ("b".to_owned(), vec![2; 10])]);
    // Header, two blocks, header, one block, end mark.
    for cut in 0..tar.len() {
        // The end mark may be missing, or half of it.
        let between = [0, 1536, 2560, 3072].contains(&cut);
        assert_eq!(read_all(&tar[..cut]).is_ok(), between, "cut at {cut}");
    }
}

#[test]
fn global_records_hold_until_they_are_taken_back() {
    let record = |flag: u8, body: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_size(body.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let file = |name: &str| written(&[(name.to_owned(), Vec::new())])[..512].to_vec();
    let tar = [
        record(b'g', b"11 uid=777\n"),
        file("a"),
        record(b'x', b"9 uid=5\n\n"),
        file("b"),
    ]
    .concat();
    assert!(read_all(&tar).is_err(), "the local header's length is wrong");
    let tar = [
        record(b'g', b"11 uid=777\n"),
        file("a"),
        record(b'x', b"9 uid=55\n"),
        file("b"),
        file("c"),
    ]
    .concat();
    let ids: Vec<u32> = read_all(&tar)
        .unwrap()
        .iter()
        .map(|(entry, _)| entry.uid)
        .collect();
    assert_eq!(ids, [777, 55, 777]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_another_writer_wrote_is_read(
        files in prop::collection::vec(("[a-z]{1,20}(/[a-z]{1,120}){0,3}", prop::collection::vec(any::<u8>(), 0..2000)), 0..6)
    ) {
        let found = read_all(&written(&files)).unwrap();
        prop_assert_eq!(found.len(), files.len());
        for ((entry, content), (name, expected)) in found.iter().zip(&files) {
            prop_assert_eq!(&entry.name[..], name.as_bytes());
            prop_assert_eq!(content, expected);
            prop_assert_eq!((entry.mode, entry.uid, entry.mtime), (0o640, 1000, (1_700_000_000, 0)));
        }
    }

    #[test]
    fn damage_never_panics_and_never_yields_more_than_the_tar_holds(
        changes in prop::collection::vec((0_usize..8192, any::<u8>()), 1..20),
        name in "[a-z]{1,200}",
        fix in any::<bool>(),
    ) {
        let mut tar = written(&[(name, vec![b'7'; 900]), ("x".to_owned(), b"30 GNU.sparse.major=1\n".to_vec())]);
        let length = tar.len();
        for (at, byte) in changes {
            tar[at % length] = byte;
        }
        if fix {
            // Checksums made right again, so that the damage is seen by what comes after them.
            for block in tar.chunks_exact_mut(512) {
                if block.iter().any(|&b| b != 0) {
                    block[148..156].copy_from_slice(b"        ");
                    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
        }
        if let Ok(found) = read_all(&tar) {
            prop_assert!(found.iter().map(|(_, content)| content.len()).sum::<usize>() <= length);
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read_all(&noise);
    }
}

#[test]
fn records_of_many_headers_are_bounded_together() {
    let header = |flag: u8, number: usize| {
        let body = format!("comment.{number}={}\n", "x".repeat(60_000));
        let length = body.len() + 6;
        let body = format!("{length} {body}");
        assert_eq!(body.len(), length);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_size(body.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(body.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    for flag in [b'g', b'x'] {
        let entry = written(&[("a".to_owned(), Vec::new())]);
        let tar = |count: usize| {
            let headers = (100..100 + count).flat_map(|number| header(flag, number));
            headers.chain(entry.iter().copied()).collect::<Vec<u8>>()
        };
        assert!(read_all(&tar(10)).is_ok());
        let error = read_all(&tar(40)).unwrap_err();
        assert!(
            matches!(&error, TarError::Malformed(reason) if reason.contains("together")),
            "{error:?}"
        );
    }
    // The same record again takes no more room.
    let again: Vec<u8> = (0..40)
        .flat_map(|_| header(b'g', 100))
        .chain(written(&[("a".to_owned(), Vec::new())]))
        .collect();
    assert!(read_all(&again).is_ok());
}
