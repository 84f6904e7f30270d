//! Templates of `--format`: what people write gives what docker prints, and anything else is an error.

use libtest_mimic::{Failed, Trial};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

#[path = "../template.rs"]
mod language;

use language::Template;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("templates_fill_in_what_docker_does", table),
        Trial::test("templates_that_are_wrong_are_errors", wrong),
        Trial::test("templates_of_any_text_are_filled_in_or_errors", anything),
    ]
}

fn data() -> Value {
    json!({
        "Name": "web", "Count": 3, "Empty": "", "None": null, "On": true, "List": ["a", "b"],
        "State": {"Status": "running", "Pid": 42},
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null},
        "Labels": {"com.example.tier": "front"},
    })
}

fn fill(text: &str) -> Result<String, String> {
    Template::parse(text)?.render(&data())
}

fn table() -> Result<(), Failed> {
    for (text, expected) in [
        ("{{.Name}}", "web"),
        ("{{ .State.Status }} {{.State.Pid}}", "running 42"),
        ("{{json .State}}", r#"{"Pid":42,"Status":"running"}"#),
        ("{{json .Name}}", "\"web\""),
        ("{{.List}} {{.State}}", "[a b] map[Pid:42 Status:running]"),
        ("{{.None}}", "<no value>"),
        (r#"{{join .List ", "}}"#, "a, b"),
        (r#"{{(index (index .Ports "80/tcp") 0).HostPort}}"#, "8080"),
        (r#"{{index .Labels "com.example.tier"}}"#, "front"),
        ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $x := .List}}{{$i}}={{$x}};{{end}}", "0=a;1=b;"),
        (
            "{{range $p, $c := .Ports}}{{$p}}{{if $c}} -> {{(index $c 0).HostPort}}{{end}} {{end}}",
            "80/tcp -> 8080 81/tcp ",
        ),
        ("{{range .None}}x{{else}}nothing{{end}}", "nothing"),
        ("{{if .Empty}}a{{else if .On}}b{{else}}c{{end}}", "b"),
        (
            "{{with .State}}{{.Pid}}{{end}}{{with .Empty}}x{{else}}y{{end}}",
            "42y",
        ),
        ("{{if and .On (eq .Name \"web\")}}yes{{end}}", "yes"),
        ("{{if or .Empty (gt .Count 5)}}yes{{else}}no{{end}}", "no"),
        ("{{if not .Empty}}{{len .List}}{{end}}", "2"),
        ("{{.Name | upper | printf \"%-5s|\"}}", "WEB  |"),
        (
            "{{printf \"%s %05d %q %.2f\" .Name .Count .Name 1.5}}",
            "web 00003 \"web\" 1.50",
        ),
        (
            "{{title .Name}} {{lower \"AB\"}} {{truncate .Name 2}}",
            "Web ab we",
        ),
        ("{{range split \"a,b\" \",\"}}{{.}} {{end}}", "a b "),
        ("{{$x := .Count}}{{$x}} {{$.Name}}", "3 web"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* a comment */}}x{{- /* one more */ -}} y", "xy"),
        (r"{{.Name}}\t{{.Count}}\n", "web\t3\n"),
        ("{{`raw {{`}}", "raw {{"),
        ("{{println .Name}}", "web\n"),
        ("plain", "plain"),
        ("", ""),
    ] {
        match fill(text) {
            Ok(found) if found == expected => {}
            other => return Err(format!("{text}: {other:?} instead of {expected:?}").into()),
        }
    }
    Ok(())
}

fn wrong() -> Result<(), Failed> {
    for text in [
        "{{",
        "{{.Name",
        "{{.Missing}}",
        "{{.Name.Deep}}",
        "{{nothing .}}",
        "{{if .Name}}",
        "{{end}}",
        "{{else}}",
        "{{range .Count}}{{end}}",
        "{{index .List 7}}",
        "{{\"open}}",
        "{{$x}}",
        "{{(.Name}}",
        "{{.Name)}}",
        "{{|}}",
        "{{printf \"%d\" .Name}}",
        "{{printf \"%s\"}}",
        "{{template \"x\"}}",
        "{{}}",
        "{{.Name .Count}}",
        "{{join .Name}}",
        "{{upper .Count}}",
        "{{if .Name}}{{else}}{{else}}{{end}}",
    ] {
        if let Ok(found) = fill(text) {
            return Err(format!("{text}: {found:?} instead of an error").into());
        }
    }
    let deep = "{{if .On}}".repeat(10_000);
    let parenthesis = format!("{{{{{}.On{}}}}}", "(".repeat(10_000), ")".repeat(10_000));
    for text in [deep, parenthesis] {
        if fill(&text).is_ok() {
            return Err("nesting without a limit".into());
        }
    }
    Ok(())
}

fn anything() -> Result<(), Failed> {
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    let texts = r#"(\{\{|\}\}|[.$|():= -]|"|`|if|else|end|range|with|json|index|printf|Name|List|State|%[0-9]*[sdq]|[0-9]{1,9}|a){0,24}"#;
    let tried = runner.run(&texts, |text| {
        let _ = fill(&text);
        Ok(())
    });
    tried.map_err(|error| error.to_string().into())
}
