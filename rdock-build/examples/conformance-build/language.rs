//! Suites that need the language alone.
use super::{Outcome, equal, text_of, tree};
use rdock_build::Chmod;
use rdock_build::dockerfile::{
    BuildArgs, Command, Dockerfile, Globals, Heredoc, Instruction, Kind, Lexer, SyntaxTree, exposed_port,
};
use rdock_build::ignore::{Glob, Patterns};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Returns what runs a case of a suite.
pub(crate) fn case(suite: &str) -> Option<fn(&Value, &Value) -> Outcome> {
    Some(match suite {
        "parser" => parser,
        "shell-lex" => shell_lex,
        "dockerignore" => dockerignore,
        "lint" => lint,
        "heredoc" => heredoc,
        "chmod" => chmod,
        "instruction-values" => instruction_values,
        "dockerfiles" => dockerfiles,
        _ => return None,
    })
}

fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().into_iter().flatten();
    values.map(|value| text_of(value).to_owned()).collect()
}

fn fails(expect: &Value) -> bool {
    !expect["error"].is_null()
}

fn parser(input: &Value, expect: &Value) -> Outcome {
    let text = text_of(&input["dockerfile"]);
    if !fails(expect) {
        let tree = SyntaxTree::parse("Dockerfile", text).map_err(|error| error.to_string())?;
        let lines: Vec<_> = tree.statements.iter().map(tree::line).collect();
        return equal("tree", &json!(lines), &expect["tree"]);
    }
    // The rows are refused by one instruction; what stands around it needs no FROM.
    let with_stage = format!("FROM scratch\n{text}");
    let error = match Dockerfile::parse("Dockerfile", text) {
        Err(error) => error,
        Ok(_) => return Err("an error was expected".to_owned()),
    };
    if !text.trim().is_empty() && Dockerfile::parse("Dockerfile", &with_stage).is_ok() {
        return Err(format!("refused only for a missing FROM: {error}"));
    }
    match expect["lines"].as_array() {
        Some(_) => equal("lines", &json!([error.place.line]), &expect["lines"]),
        None => Ok(()),
    }
}

fn shell_lex(input: &Value, expect: &Value) -> Outcome {
    if input["platform"] == json!("windows") {
        // Names that do not depend on case are asked of the variables.
        return case_insensitive(input, expect);
    }
    let mut variables = BTreeMap::new();
    for entry in strings(&input["env"]) {
        let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
        variables.insert(name.to_owned(), value.to_owned());
    }
    let lexer = Lexer::new('\\');
    let word = text_of(&input["word"]);
    let found = match text_of(&input["op"]) {
        "words" => lexer.words(word, &variables).map(|words| json!({"words": words})),
        _ => lexer.word(word, &variables).map(
            |found| json!({"result": found.text, "matched": found.matched, "unmatched": found.unmatched}),
        ),
    };
    compare(found, expect)
}

/// Windows' variables.
struct AnyCase(BTreeMap<String, String>);

impl rdock_build::dockerfile::Variables for AnyCase {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.get(&name.to_uppercase()).map(String::as_str)
    }
}

fn case_insensitive(input: &Value, expect: &Value) -> Outcome {
    let entries = strings(&input["env"]).into_iter().map(|entry| {
        let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
        (name.to_uppercase(), value.to_owned())
    });
    let found = Lexer::new('\\').word(text_of(&input["word"]), &AnyCase(entries.collect()));
    compare(found.map(|found| json!({"result": found.text})), expect)
}

fn compare(found: Result<Value, String>, expect: &Value) -> Outcome {
    match (found, fails(expect)) {
        (Err(_), true) => Ok(()),
        (Err(error), false) => Err(format!("unexpected error: {error}")),
        (Ok(found), true) => Err(format!("an error was expected, found {found}")),
        (Ok(found), false) => (expect.as_object().into_iter().flatten())
            .try_for_each(|(name, value)| equal(name, &found[name], value)),
    }
}

fn dockerignore(input: &Value, expect: &Value) -> Outcome {
    let patterns = strings(&input["patterns"]);
    let path = text_of(&input["path"]);
    let found = match input["single"].as_bool() {
        Some(true) => {
            let glob = Glob::path(&patterns[0]).map_err(str::to_owned);
            glob.map(|glob| glob.matches(path))
        }
        _ => Patterns::new(&patterns)
            .map(|patterns| patterns.excludes(path))
            .map_err(|error| error.to_string()),
    };
    compare(found.map(|found| json!({"match": found})), expect)
}

fn lint(input: &Value, expect: &Value) -> Outcome {
    let values = (input["attrs"].as_object().into_iter().flatten())
        .filter_map(|(name, value)| {
            let name = name.strip_prefix("build-arg:")?;
            Some((name.to_owned(), text_of(value).to_owned()))
        })
        .collect();
    let args = BuildArgs {
        values,
        ..BuildArgs::default()
    };
    let text = text_of(&input["dockerfile"]);
    let dockerfile = Dockerfile::parse("Dockerfile", text).map_err(|error| error.to_string())?;
    let report = dockerfile.check(&args, None).map_err(|error| error.to_string())?;
    let mut found: Vec<_> = (report.warnings.iter())
        .map(|warning| {
            json!({"rule": warning.rule.name(), "line": warning.span.first_line, "detail": warning.detail})
        })
        .collect();
    // Rows are in order of line; findings of one line have no order.
    let mut expected: Vec<Value> = expect["warnings"].as_array().cloned().unwrap_or_default();
    for list in [&mut found, &mut expected] {
        list.sort_by_key(|warning| (warning["line"].as_u64(), text_of(&warning["detail"]).to_owned()));
    }
    equal("warnings", &json!(found), &json!(expected))?;
    let built = Globals::new(&dockerfile, &args)
        .and_then(|globals| {
            let mut stages = dockerfile.stages.iter();
            stages.try_for_each(|stage| globals.from(&dockerfile.source, stage).map(drop))
        })
        .and_then(|()| report.result(&dockerfile));
    match (built, fails(expect)) {
        (Ok(()), false) => Ok(()),
        (Err(error), true) => equal("error_line", &json!(error.place.line), &expect["error_line"]),
        (found, _) => Err(format!("error: expected {}, found {found:?}", expect["error"])),
    }
}

fn heredoc(input: &Value, expect: &Value) -> Outcome {
    if text_of(&input["op"]) == "names" {
        let found = Heredoc::in_line(text_of(&input["line"]));
        let names: Vec<_> = found.into_iter().map(|heredoc| heredoc.name).collect();
        return equal("names", &json!(names), &expect["names"]);
    }
    let text = text_of(&input["dockerfile"]);
    let instruction = Instruction::parse("Dockerfile", text).map_err(|error| error.to_string())?;
    match instruction.kind {
        Kind::Copy(copy) => {
            let files = copy.files;
            equal("dest", &json!(files.destination), &expect["dest"])?;
            equal("sources", &json!(files.sources), &expect["sources"])?;
            let inline: Vec<_> = (files.inline.iter())
                .map(|file| json!({"path": file.name, "data": file.data, "expand": file.expand}))
                .collect();
            equal("contents", &json!(inline), &expect["contents"])
        }
        Kind::Run(run) => {
            let (shell, command) = match run.command {
                Command::Shell(text) => (true, vec![text]),
                Command::Exec(words) => (false, words),
            };
            equal("shell", &json!(shell), &expect["shell"])?;
            equal("command", &json!(command), &expect["command"])?;
            let files: Vec<_> = (run.heredocs.iter())
                .map(|one| json!({"name": one.name, "data": one.content, "chomp": one.strip_tabs}))
                .collect();
            equal("files", &json!(files), &expect["files"])
        }
        other => Err(format!("another instruction: {}", other.name())),
    }
}

fn chmod(input: &Value, expect: &Value) -> Outcome {
    let chmod = Chmod::parse(text_of(&input["mode"]))?;
    let base = u32::from_str_radix(text_of(&input["base"]), 8).map_err(|error| error.to_string())?;
    let mode = chmod.apply(base, input["dir"] == json!(true));
    equal("mode", &json!(format!("{mode:04o}")), &expect["mode"])
}

fn instruction_values(input: &Value, expect: &Value) -> Outcome {
    let value = text_of(&input["value"]);
    let found = match text_of(&input["op"]) {
        "expose" => exposed_port(value).map(|port| json!(port.entries().collect::<Vec<_>>())),
        _ => match Instruction::parse("Dockerfile", &format!("RUN --device={value} true")) {
            Ok(Instruction {
                kind: Kind::Run(run), ..
            }) => Ok(json!({"name": run.devices[0].name, "required": run.devices[0].required})),
            Ok(other) => Err(format!("another instruction: {}", other.keyword)),
            Err(error) => Err(error.to_string()),
        },
    };
    compare(found, expect)
}

fn dockerfiles(input: &Value, expect: &Value) -> Outcome {
    let text = text_of(&input["dockerfile"]);
    let dockerfile = Dockerfile::parse("Dockerfile", text).map_err(|error| error.to_string())?;
    match expect["stages"].is_null() {
        true => Ok(()),
        false => equal("stages", &json!(dockerfile.stages.len()), &expect["stages"]),
    }
}
