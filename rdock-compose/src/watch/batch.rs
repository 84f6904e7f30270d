//! Changes that belong together.

use super::rules::Rule;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A file of the host, and its place in the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    pub(super) from: PathBuf,
    pub(super) to: String,
}

/// What is to be done for them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch<'a> {
    pub(super) rebuild: BTreeSet<&'a str>,
    pub(super) sync: BTreeMap<&'a str, Vec<Change>>,
    pub(super) restart: BTreeSet<&'a str>,
    /// Rules whose command runs once.
    pub(super) exec: BTreeSet<usize>,
}

impl<'a> Batch<'a> {
    pub(super) fn of(rules: &'a [Rule], paths: &BTreeSet<PathBuf>) -> Self {
        let mut batch = Self::default();
        for path in paths {
            for (index, rule) in rules.iter().enumerate() {
                let Some(change) = rule.change(path) else {
                    continue;
                };
                let service = rule.service();
                if rule.action.rebuild {
                    batch.rebuild.insert(service);
                }
                if rule.action.sync {
                    batch.sync.entry(service).or_default().push(change);
                }
                if rule.action.restart {
                    batch.restart.insert(service);
                }
                if rule.action.exec {
                    batch.exec.insert(index);
                }
            }
        }
        // Containers that are made anew have the files of their image.
        for service in &batch.rebuild {
            batch.restart.remove(service);
        }
        for changes in batch.sync.values_mut() {
            changes.sort();
            changes.dedup();
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::super::{WatchOptions, rules};
    use super::*;
    use crate::{LoadOptions, Project};
    use std::path::Path;

    fn project(dir: &Path, text: &str) -> Project {
        Project::load(&LoadOptions::new(dir).text(text)).unwrap()
    }

    #[test]
    fn each_change_goes_where_its_rules_say() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for folder in ["src/node_modules", "src/deep", "src/.git", "conf"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join(".dockerignore"), "**/*.log\n!src/keep.log\n").unwrap();
        let text = "
name: p
services:
  web:
    image: x
    build: .
    volumes: ['./conf:/conf']
    develop:
      watch:
        - {path: src, action: sync, target: /app, ignore: [node_modules/]}
        - {path: src, action: sync+restart, target: /etc/app/, include: ['*.conf']}
        - {path: package.json, action: rebuild}
        - {path: src/run, action: sync+exec, target: /run, exec: {command: [reload]}}
        - {path: conf, action: sync, target: /conf}
  other:
    image: y
    develop: {watch: [{path: src, action: restart}]}
";
        for file in ["package.json", "src/run"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        let project = project(&root, text);
        let mut mounted = Vec::new();
        let rules = rules(&project, &WatchOptions::default(), &mut |path| {
            mounted.push(path.to_owned())
        })
        .unwrap();
        assert_eq!(mounted, [root.join("conf")]);
        let batch = |paths: &[&str]| {
            let paths = paths.iter().map(|path| root.join(path)).collect();
            Batch::of(&rules, &paths)
        };
        let places = |batch: &Batch<'_>| -> Vec<String> {
            let changes = batch.sync.values().flatten();
            changes.map(|change| change.to.clone()).collect()
        };
        let found = batch(&["src/deep/a.py"]);
        assert_eq!(places(&found), ["/app/deep/a.py"]);
        assert_eq!(found.restart, BTreeSet::from(["other"]));
        assert!(found.rebuild.is_empty() && found.exec.is_empty());
        let found = batch(&["src/a.conf"]);
        assert_eq!(places(&found), ["/app/a.conf", "/etc/app/a.conf"]);
        assert_eq!(found.restart, BTreeSet::from(["other", "web"]));
        let found = batch(&["src/run"]);
        assert_eq!(places(&found), ["/app/run", "/run"]);
        assert_eq!(found.exec.len(), 1);
        assert_eq!(batch(&["package.json"]).rebuild, BTreeSet::from(["web"]));
        // The rebuilt one is not restarted too.
        let found = batch(&["package.json", "src/b.conf"]);
        assert_eq!(found.restart, BTreeSet::from(["other"]));
        for ignored in [
            "src/node_modules/x.js",
            "src/a.log",
            "src/.a.swp",
            "src/.git/HEAD",
            "elsewhere",
        ] {
            let found = batch(&[ignored]);
            assert!(found.sync.is_empty(), "{ignored}: {found:?}");
        }
        assert_eq!(places(&batch(&["src/keep.log"])), ["/app/keep.log"]);
    }

    #[test]
    fn what_cannot_be_watched_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |watch: &str, options: &WatchOptions| {
            let text = format!("name: p\nservices: {{web: {{image: x, {watch}}}}}");
            let found = rules(&project(dir.path(), &text), options, &mut |_| {});
            found.map(|rules| rules.len()).map_err(|error| error.to_string())
        };
        let usual = WatchOptions::default();
        assert_eq!(refused("command: x", &usual), Ok(0));
        let missing = refused("develop: {watch: [{path: gone, action: restart}]}", &usual);
        assert!(missing.unwrap_err().contains("cannot watch"));
        let pattern = "build: ., develop: {watch: [{path: ., action: sync, target: /a, ignore: ['[']}]}";
        assert!(
            refused(pattern, &usual)
                .unwrap_err()
                .contains("services.web.develop.watch")
        );
        let rebuild = "build: ., develop: {watch: [{path: ., action: rebuild}]}";
        assert_eq!(refused(rebuild, &usual), Ok(1));
        let forbidden = WatchOptions {
            build: false,
            ..WatchOptions::default()
        };
        assert!(refused(rebuild, &forbidden).unwrap_err().contains("--no-build"));
    }
}
