//! The language on the files in `tests/data`: adding a case is adding a file.
//!
//! `RDOCK_BLESS=1` writes what was found as what is expected; read the difference before it is kept.
use crate::{Tested, trial};
use libtest_mimic::Trial;
use rdock_build::dockerfile::{BuildArgs, Dockerfile, Globals, Kind, Lexer, Scope};
use rdock_build::ignore::Patterns;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (folder, run) in [
        ("parsed", parsed as fn(&Path) -> Tested<String>),
        ("refused", refused),
        ("scopes", scopes),
        ("checks", checks),
    ] {
        for file in files(folder, "Dockerfile") {
            let name = file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            trials.push(trial(title(folder, &name), move || expect(&file, &run(&file)?)));
        }
    }
    for file in files("ignore", "dockerignore") {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        trials.push(trial(format!("ignore_{name}"), move || ignore(&file)));
    }
    trials.push(trial("words_are_expanded_as_in_the_table", words));
    trials
}

/// A case's name; those of a row of the security table carry its name.
fn title(folder: &str, name: &str) -> String {
    match (folder, name.split_once('_')) {
        ("refused", Some(("mount", rest))) => format!("bld_mount_option_grammar_{rest}"),
        ("refused", Some(("unsupported", "insecure"))) => {
            "bld_insecure_entitlement_before_anything_runs".to_owned()
        }
        _ => format!("{folder}_{name}"),
    }
}

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(folder)
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data(folder)).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// Compares with the file's `.expected` sibling.
fn expect(file: &Path, found: &str) -> Tested {
    let path = file.with_extension("expected");
    if std::env::var_os("RDOCK_BLESS").is_some() {
        return Ok(std::fs::write(path, found)?);
    }
    let expected = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    match found == expected {
        true => Ok(()),
        false => Err(format!("{}\nexpected:\n{expected}\nfound:\n{found}", path.display()).into()),
    }
}

fn read(file: &Path) -> Tested<Result<Dockerfile, rdock_build::dockerfile::ParseError>> {
    Ok(Dockerfile::parse_bytes("Dockerfile", &std::fs::read(file)?))
}

/// Every instruction with its lines.
fn parsed(file: &Path) -> Tested<String> {
    let dockerfile = read(file)??;
    let mut text = format!("{:?}\n", dockerfile.directives);
    for one in &dockerfile.global_args {
        writeln!(
            text,
            "{}-{} {:?}",
            one.span.first_line, one.span.last_line, one.kind
        )?;
    }
    for stage in &dockerfile.stages {
        let from = &stage.from;
        writeln!(
            text,
            "{}-{} FROM {:?} platform {:?} as {:?}",
            from.span.first_line,
            from.span.last_line,
            from.image,
            from.platform,
            stage.name()
        )?;
        for one in &stage.instructions {
            writeln!(
                text,
                "  {}-{} {:?}",
                one.span.first_line, one.span.last_line, one.kind
            )?;
            if let Kind::Run(run) = &one.kind {
                writeln!(text, "    script {:?}", run.script())?;
            }
        }
    }
    Ok(text)
}

/// The error, in full. What is not refused by reading is refused by evaluating or as not supported.
fn refused(file: &Path) -> Tested<String> {
    let error = match read(file)? {
        Err(error) => error,
        Ok(dockerfile) => match evaluate(&dockerfile, &args(file)?, &mut String::new()) {
            Err(error) => error,
            Ok(()) => dockerfile
                .supported(&dockerfile.stages)
                .err()
                .ok_or("the file is accepted")?,
        },
    };
    Ok(format!("{error}\n"))
}

/// Build arguments of a case: lines `NAME=value` in its `.args` sibling.
fn args(file: &Path) -> Tested<BuildArgs> {
    let text = std::fs::read_to_string(file.with_extension("args")).unwrap_or_default();
    let values = (text.lines().filter_map(|line| line.split_once('=')))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Ok(BuildArgs {
        values,
        build: "linux/amd64".parse_platform()?,
        target: "linux/amd64".parse_platform()?,
        target_stage: None,
    })
}

trait ParsePlatform {
    fn parse_platform(&self) -> Tested<rdock_image::Platform>;
}

impl ParsePlatform for str {
    fn parse_platform(&self) -> Tested<rdock_image::Platform> {
        Ok(rdock_image::Platform::parse(self)?)
    }
}

/// Every instruction expanded, with the environment at each stage's end.
fn scopes(file: &Path) -> Tested<String> {
    let dockerfile = read(file)??;
    let mut text = String::new();
    evaluate(&dockerfile, &args(file)?, &mut text)?;
    Ok(text)
}

fn evaluate(
    dockerfile: &Dockerfile,
    args: &BuildArgs,
    text: &mut String,
) -> Result<(), rdock_build::dockerfile::ParseError> {
    let globals = Arc::new(Globals::new(dockerfile, args)?);
    let mut ends: BTreeMap<String, Scope> = BTreeMap::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for stage in &dockerfile.stages {
        let from = globals.from(&dockerfile.source, stage)?;
        line(format!(
            "FROM {} {:?}",
            from.image,
            from.platform.map(|platform| platform.to_string())
        ));
        let mut scope = match ends.get(&from.image.to_lowercase()) {
            Some(scope) => scope.clone(),
            None => Scope::new(globals.clone(), &["BASE=base".to_owned()]),
        };
        for one in &stage.instructions {
            let kind = scope.expand(&dockerfile.source, one)?;
            if let Kind::Run(run) = &kind {
                line(format!("  mounts {:?}", scope.mounts(&dockerfile.source, run)?));
            }
            line(format!("  {kind:?}"));
        }
        line(format!("  image environment {:?}", scope.image_env()));
        let all: Vec<_> = scope
            .environment()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        line(format!("  environment of RUN {all:?}"));
        line(format!("  arguments {:?}", scope.history_args()));
        for warning in scope.undefined() {
            line(format!("  {} {}", warning.span.first_line, warning.detail));
        }
        if let Some(name) = stage.name() {
            ends.insert(name, scope);
        }
    }
    line(format!(
        "undeclared {:?}",
        dockerfile.undeclared(args.values.keys())
    ));
    line(format!("proxies {:?}", globals.proxies()));
    Ok(())
}

/// The findings of the build checks.
fn checks(file: &Path) -> Tested<String> {
    let dockerfile = read(file)??;
    let ignore = match std::fs::read_to_string(file.with_extension("dockerignore")) {
        Ok(text) => Some(Patterns::parse(".dockerignore", &text)?),
        Err(_) => None,
    };
    let report = dockerfile.check(&args(file)?, ignore.as_ref())?;
    let mut text = String::new();
    for warning in &report.warnings {
        writeln!(
            text,
            "{} {}: {}",
            warning.span.first_line, warning.rule, warning.detail
        )?;
    }
    if let Err(error) = report.result(&dockerfile) {
        writeln!(text, "{error}")?;
    }
    Ok(text)
}

/// Patterns, and in the `.paths` sibling paths: `-` is left out, `+` is seen; `-/` is a directory that no walk enters.
fn ignore(file: &Path) -> Tested {
    let patterns = Patterns::parse(".dockerignore", &std::fs::read_to_string(file)?)?;
    let table = std::fs::read_to_string(file.with_extension("paths"))?;
    if table.lines().count() == 0 {
        return Err("no paths".into());
    }
    for line in table.lines() {
        let (sign, path) = line
            .split_once(' ')
            .ok_or_else(|| format!("no path in {line:?}"))?;
        let found = match (patterns.excludes(path), patterns.may_include_below(path)) {
            (false, _) => "+",
            (true, false) if sign == "-/" => "-/",
            (true, _) => "-",
        };
        if sign != found {
            return Err(format!("{path}: expected {sign}, found {found}").into());
        }
    }
    Ok(())
}

/// Lines `text => result`, `text =>[] word|word`, `text =>!` for an error.
fn words() -> Tested {
    let variables: BTreeMap<String, String> = [
        ("NAME", "value"),
        ("EMPTY", ""),
        ("PATH_", "/usr/lib/x.tar.gz"),
        ("SPACED", "a  b"),
        ("GLOB", "a*b"),
        ("LINES", "one\ntwo"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let lexer = Lexer::new('\\');
    let table = std::fs::read_to_string(data("").join("expansion.txt"))?;
    for line in table
        .lines()
        .filter(|line| !line.starts_with("# ") && !line.is_empty())
    {
        let (text, expected) = line
            .split_once(" =>")
            .ok_or_else(|| format!("no arrow in {line:?}"))?;
        let (found, expected) = match expected.strip_prefix("[]") {
            Some(words) => (lexer.words(text, &variables).map(|words| words.join("|")), words),
            None => (lexer.word(text, &variables).map(|word| word.text), expected),
        };
        match (found, expected.strip_prefix(' ').unwrap_or(expected)) {
            (Err(_), "!") => {}
            (Ok(found), expected) if found == expected => {}
            (found, expected) => return Err(format!("{text}: expected {expected:?}, found {found:?}").into()),
        }
    }
    Ok(())
}
