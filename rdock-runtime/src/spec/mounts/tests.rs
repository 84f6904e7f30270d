//! The grammars of `-v`, `--mount` and `--tmpfs`.

use super::*;
use proptest::prelude::*;

fn bind(path: &str, target: &str, create: bool) -> Mount {
    let source = MountSource::Bind {
        path: path.into(),
        create,
        propagation: None,
    };
    Mount::new(source, target)
}

fn with_propagation(mut mount: Mount, word: &str) -> Mount {
    if let MountSource::Bind { propagation, .. } = &mut mount.source {
        *propagation = Some(word.into());
    }
    mount
}

fn no_copy(mut mount: Mount) -> Mount {
    if let MountSource::Volume { no_copy, .. } = &mut mount.source {
        *no_copy = true;
    }
    mount
}

#[test]
fn volume_flags_as_docker_takes_them() {
    let table = [
        ("/data", Mount::anonymous("/data")),
        ("/src:/dst", bind("/src", "/dst", true)),
        ("/src:/dst:ro", bind("/src", "/dst", true).read_only()),
        ("/src:/dst:rw", bind("/src", "/dst", true)),
        ("/src:/dst:ro,z", bind("/src", "/dst", true).read_only()),
        (
            "/src:/dst:rslave,ro",
            with_propagation(bind("/src", "/dst", true), "rslave").read_only(),
        ),
        ("./src:/dst", bind("./src", "/dst", true)),
        (".:/dst", bind(".", "/dst", true)),
        ("../src:/dst:cached", bind("../src", "/dst", true)),
        ("name:/dst", Mount::volume("name", "/dst")),
        ("name:/dst:nocopy", no_copy(Mount::volume("name", "/dst"))),
        (
            "name:/dst:ro,nocopy",
            no_copy(Mount::volume("name", "/dst")).read_only(),
        ),
        ("a.b-c_1:/dst", Mount::volume("a.b-c_1", "/dst")),
    ];
    for (text, expected) in table {
        assert_eq!(Mount::parse_volume_flag(text), Ok(expected), "{text:?}");
    }
}

#[test]
fn what_is_no_volume_flag_is_refused() {
    for text in [
        "",
        ":",
        "::",
        "dst",
        "name",
        ":/dst",
        "/src:",
        "/src:dst",
        "name:rw",
        "/dst:ro",
        "/src:/dst:",
        "/src:/dst:x",
        "/src:/dst:ro:rw",
        "/src:/dst:ro,rw",
        "/src:/dst:ro,ro",
        "/src:/dst:nocopy",
        "name:/dst:rslave",
        "a/b:/dst",
        "-a:/dst",
        "~/src:/dst",
        "x:/dst",
        "/src:/dst:rslave,rshared",
        "/src:/dst:ro,",
        "/src:/dst:U",
    ] {
        assert!(
            Mount::parse_volume_flag(text).is_err(),
            "{text:?}: {:?}",
            Mount::parse_volume_flag(text)
        );
    }
}

#[test]
fn mount_flags_as_docker_takes_them() {
    let tmpfs = |size, mode| Mount {
        source: MountSource::Tmpfs {
            size,
            mode,
            options: Vec::new(),
        },
        ..Mount::tmpfs("/dst")
    };
    let subpath = Mount {
        source: MountSource::Volume {
            name: Some("name".into()),
            no_copy: false,
            subpath: Some("a/b".into()),
        },
        ..Mount::volume("name", "/dst")
    };
    let table = [
        ("type=bind,source=/src,target=/dst", bind("/src", "/dst", false)),
        (
            "type=bind,src=/src,dst=/dst,readonly",
            bind("/src", "/dst", false).read_only(),
        ),
        (
            "TYPE=bind,Source=/src,destination=/dst,ro=true",
            bind("/src", "/dst", false).read_only(),
        ),
        (
            "type=bind,src=/src,dst=/dst,ro=false",
            bind("/src", "/dst", false),
        ),
        (
            "type=bind,src=/src,dst=/dst,bind-recursive=disabled",
            bind("/src", "/dst", false).recursion(BindRecursion::Disabled),
        ),
        (
            "type=bind,src=/src,dst=/dst,bind-nonrecursive",
            bind("/src", "/dst", false).recursion(BindRecursion::Disabled),
        ),
        (
            "type=bind,src=/src,dst=/dst,ro,bind-recursive=writable",
            bind("/src", "/dst", false)
                .read_only()
                .recursion(BindRecursion::Writable),
        ),
        (
            "type=bind,src=/src,dst=/dst,ro,bind-recursive=readonly,bind-propagation=rprivate",
            with_propagation(bind("/src", "/dst", false), "rprivate")
                .read_only()
                .recursion(BindRecursion::ReadOnly),
        ),
        (
            "dst=/dst,volume-label=a=b,volume-label=c",
            Mount::anonymous("/dst")
                .volume_label("a", "b")
                .volume_label("c", ""),
        ),
        (
            "type=bind,src=rel,dst=/dst,bind-create-src",
            bind("rel", "/dst", true),
        ),
        (
            "type=bind,src=/src,dst=/dst,bind-propagation=shared",
            with_propagation(bind("/src", "/dst", false), "shared"),
        ),
        ("type=bind,\"src=/a,b\",dst=/dst", bind("/a,b", "/dst", false)),
        (
            "type=bind,\"src=/a\"\"b\",dst=/dst,consistency=cached",
            bind("/a\"b", "/dst", false),
        ),
        (
            "type=volume,source=name,target=/dst",
            Mount::volume("name", "/dst"),
        ),
        (
            "source=name,target=/dst,volume-nocopy",
            no_copy(Mount::volume("name", "/dst")),
        ),
        (
            "source=name,target=/dst,volume-subpath=a/b,volume-driver=local",
            subpath,
        ),
        ("target=/dst", Mount::anonymous("/dst")),
        ("type=tmpfs,target=/dst", tmpfs(None, None)),
        (
            "type=tmpfs,target=/dst,tmpfs-size=64m,tmpfs-mode=0700",
            tmpfs(Some(64 << 20), Some(0o700)),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(Mount::parse_mount_flag(text), Ok(expected), "{text:?}");
    }
}

#[test]
fn bld_mount_option_grammar_what_is_no_mount_flag_is_refused() {
    for text in [
        "",
        "type=bind",
        "type=bind,target=/dst",
        "type=bind,source=/src",
        "type=bind,source=,target=/dst",
        "type=bind,source=/src,target=dst",
        "type=nfs,source=/src,target=/dst",
        "type=tmpfs,source=/src,target=/dst",
        "type=bind,source=/src,target=/dst,readonly=maybe",
        "type=bind,source=/src,target=/dst,unknown=1",
        "type=bind,source=/src,target=/dst,bare",
        "type=bind,source=/src,target=/dst,bind-propagation=rw",
        "type=bind,source=/src,target=/dst,bind-recursive=yes",
        "type=bind,source=/src,target=/dst,bind-recursive=writable",
        "type=bind,source=/src,target=/dst,ro,bind-recursive=readonly",
        "type=volume,source=name,target=/dst,bind-recursive=disabled",
        "type=bind,source=/src,target=/dst,volume-label=a=b",
        "type=volume,target=/dst,volume-label=",
        "type=bind,source=/src,target=/dst,volume-nocopy",
        "type=bind,source=/src,target=/dst,tmpfs-size=1m",
        "type=volume,source=name,target=/dst,bind-propagation=shared",
        "type=volume,source=/src,target=/dst",
        "type=volume,target=/dst,volume-subpath=a",
        "source=name,target=/dst,volume-driver=nfs",
        "type=tmpfs,target=/dst,tmpfs-size=x",
        "type=tmpfs,target=/dst,tmpfs-mode=9",
        "type=tmpfs,target=/dst,tmpfs-mode=17777",
        "type=bind,\"src=/a,dst=/dst",
        "type=bind,\"src=/a\"b,dst=/dst",
        "type=bind,src=/a\"b,dst=/dst",
        "type=bind,,src=/a,dst=/dst",
        "target=/dst,",
    ] {
        assert!(
            Mount::parse_mount_flag(text).is_err(),
            "{text:?}: {:?}",
            Mount::parse_mount_flag(text)
        );
    }
}

#[test]
fn tmpfs_flags_as_docker_takes_them() {
    let options = |text: &str| match Mount::parse_tmpfs_flag(text).expect("parse").source {
        MountSource::Tmpfs { options, .. } => options,
        other => panic!("{other:?}"),
    };
    assert_eq!(Mount::parse_tmpfs_flag("/run"), Ok(Mount::tmpfs("/run")));
    assert_eq!(options("/run:"), [""; 0]);
    assert_eq!(options("/run:rw,noexec,size=64k"), ["rw", "noexec", "size=64k"]);
    assert!(Mount::parse_tmpfs_flag("run").is_err() && Mount::parse_tmpfs_flag("").is_err());
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,40}", close in "[a-z/:,=\"-]{0,40}") {
        for text in [text, close] {
            let _ = Mount::parse_volume_flag(&text);
            let _ = Mount::parse_mount_flag(&text);
            let _ = Mount::parse_tmpfs_flag(&text);
        }
    }

    #[test]
    fn quoted_fields_keep_every_character(source in "/[^\\x00]{1,20}") {
        let text = format!("type=bind,\"src={}\",dst=/dst", source.replace('"', "\"\""));
        prop_assert_eq!(Mount::parse_mount_flag(&text), Ok(bind(&source, "/dst", false)));
    }
}
