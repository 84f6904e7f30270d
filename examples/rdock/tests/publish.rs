//! Sharing an image: log in, tag, push, pull, with names that have no host.

use crate::fixtures::{self, Cache, Skopeo};
use crate::program::{Cannot, Tested, success};
use crate::pty::Terminal;
use crate::tiny::{Done, Tiny, trial};
use libtest_mimic::Trial;
use rdock_registry::server::{Access, RegistryServer, ServerOptions};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// The tests of this file.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("an_image_is_shared_by_a_name_without_a_host", share),
        trial("what_is_damaged_is_fetched_again", fsck),
        trial("login_asks_without_showing_the_password", login_asks),
        trial("login_says_what_is_wrong", login_errors),
        trial("login_uses_credential_helpers", login_helpers),
        trial("push_takes_all_tags_of_a_repository", push_all),
        trial("push_says_what_is_wrong", push_errors),
        trial("a_registry_is_served_until_it_is_told_to_end", serve),
        trial("skopeo_reads_what_is_pushed_and_the_other_way_round", skopeo),
    ]
}

const SOON: Duration = Duration::from_secs(30);

/// A registry for `me` with the password `secret`, which registries.conf calls docker.io.
fn hub(tiny: &Tiny) -> Result<RegistryServer, Box<dyn std::error::Error>> {
    let mut options = ServerOptions::new(tiny.file("served"));
    options.access = Access::Basic(BTreeMap::from([("me".to_owned(), "secret".to_owned())]));
    let server = RegistryServer::start(options)?;
    let conf = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"{}\"\n",
        server.host()
    );
    std::fs::write(tiny.file("registries.conf"), conf)?;
    Ok(server)
}

/// `login` with the password on its input.
fn login(tiny: &Tiny, words: &[&str], password: &str) -> Result<Done, Box<dyn std::error::Error>> {
    let mut command = tiny.command(&[&["login", "-u", "me", "--password-stdin"], words].concat())?;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    stdin.write_all(password.as_bytes())?;
    drop(stdin);
    Ok(child.wait_with_output()?.into())
}

fn ok(done: &Done) {
    assert_eq!(done.code, Some(0), "{done:?}");
}

fn share(tiny: &Tiny) -> Tested {
    let server = hub(tiny)?;
    let refused = login(tiny, &[], "wrong\n")?;
    refused.failed(1, &["denies access to a login"], None);
    assert!(!tiny.file("config.json").exists(), "nothing is stored");
    let done = login(tiny, &[], "secret\n")?;
    ok(&done);
    assert_eq!(done.stdout, "Login Succeeded\n");
    assert!(done.stderr.contains("stored unencrypted"), "{done:?}");
    let config = std::fs::read_to_string(tiny.file("config.json"))?;
    assert!(config.contains("https://index.docker.io/v1/"), "{config}");
    // The file shows that the password is known.
    let done = tiny.run(&["login"])?;
    assert!(done.stdout.ends_with("Login Succeeded\n"), "{done:?}");
    ok(&tiny.run(&["tag", "tiny:latest", "me/myapp:latest"])?);
    let done = tiny.run(&["push", "me/myapp:latest"])?;
    ok(&done);
    let digest = server.tag("me/myapp", "latest").ok_or("it is not there")?;
    assert!(
        done.stdout
            .starts_with("The push refers to repository [docker.io/me/myapp]\n")
            && done.stdout.contains(&format!("latest: digest: {digest} size: ")),
        "{done:?}"
    );
    assert!(done.stdout.contains(": Pushed\n"), "{done:?}");
    let done = tiny.run(&["push", "-q", "me/myapp"])?;
    assert_eq!(done.stdout, "docker.io/me/myapp:latest\n");
    ok(&tiny.run(&["rmi", "-f", "tiny:latest", "me/myapp:latest"])?);
    let done = tiny.run(&["pull", "me/myapp:latest"])?;
    ok(&done);
    assert!(done.stdout.contains(&format!("Digest: {digest}\n")), "{done:?}");
    let done = tiny.start(&[
        "run",
        "--rm",
        "--network",
        "none",
        "me/myapp:latest",
        "echo",
        "out",
    ])?;
    assert_eq!((done.code, &*done.stdout), (Some(0), "out\n"), "{done:?}");
    let done = tiny.run(&["logout"])?;
    assert_eq!(done.stdout, "Removing login credentials for docker.io\n");
    let done = tiny.run(&["logout"])?;
    assert_eq!(done.stdout, "Not logged in to docker.io\n");
    let done = tiny.run(&["pull", "me/myapp:latest"])?;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("denies access"), "{done:?}");
    Ok(())
}

fn fsck(tiny: &Tiny) -> Tested {
    let server = RegistryServer::start(ServerOptions::new(tiny.file("served")))?;
    let name = format!("{}/tiny:1", server.host());
    ok(&tiny.run(&["tag", "tiny:latest", &name])?);
    ok(&tiny.run(&["push", "-q", &name])?);
    // From there, and not as it was loaded.
    ok(&tiny.run(&["rmi", "-f", "tiny:latest", &name])?);
    ok(&tiny.run(&["pull", "-q", &name])?);
    let done = tiny.run(&["system", "fsck"])?;
    assert_eq!(
        (done.code, &*done.stdout),
        (Some(0), "2 blobs and 1 layers read\n"),
        "{done:?}"
    );
    let id = tiny.run(&["images", "-q", "--no-trunc"])?.stdout;
    let layers = tiny.file("root").join("image/layers");
    let layer = std::fs::read_dir(&layers)?.next().ok_or("no layer")??.path();
    let payload = layer.join("fs/payload");
    let length = std::fs::metadata(&payload)?.len();
    std::fs::File::options()
        .write(true)
        .open(&payload)?
        .set_len(length - 1)?;
    let done = tiny.run(&["system", "fsck"])?;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stdout
            .contains("is damaged at \"payload\": the file is shorter"),
        "{done:?}"
    );
    let done = tiny.run(&["system", "fsck", "--repair"])?;
    assert_eq!(
        (done.code, done.stdout.starts_with(&format!("{name}: repaired\n"))),
        (Some(0), true),
        "{done:?}"
    );
    assert_eq!(std::fs::metadata(&payload)?.len(), length);
    assert_eq!(tiny.run(&["images", "-q", "--no-trunc"])?.stdout, id);
    Ok(())
}

fn login_asks(tiny: &Tiny) -> Tested {
    let server = hub(tiny)?;
    let host = server.host();
    let mut terminal = Terminal::start(&tiny.command(&["login", &host])?, 24, 80)?;
    terminal.expect("Username: ", SOON)?;
    terminal.send("me\r")?;
    terminal.expect("Password: ", SOON)?;
    // Ctrl-U takes back what was typed, backspace one letter.
    terminal.send("nonsense\u{15}secreT\u{7f}t\r")?;
    terminal.expect("Login Succeeded", SOON)?;
    let seen = terminal.until(SOON, |seen| Some(seen.to_owned()))?;
    assert!(!seen.contains("secre") && !seen.contains("nonsense"), "{seen}");
    assert!(terminal.wait(SOON)?.success());
    // An interrupt leaves nothing, and the terminal as it was.
    ok(&tiny.run(&["logout", &host])?);
    let mut terminal = Terminal::start(&tiny.command(&["login", "-u", "me", &host])?, 24, 80)?;
    terminal.expect("Password: ", SOON)?;
    terminal.send("sec\u{3}")?;
    assert_eq!(terminal.wait(SOON)?.code(), Some(130));
    let config = std::fs::read_to_string(tiny.file("config.json"))?;
    assert!(!config.contains(&host), "{config}");
    Ok(())
}

fn login_errors(tiny: &Tiny) -> Tested {
    let server = hub(tiny)?;
    let host = server.host();
    let done = tiny.run(&["login", "-u", "me", "-p", "secret", &host])?;
    ok(&done);
    assert!(
        done.stderr.contains("--password via the CLI is insecure"),
        "{done:?}"
    );
    let done = tiny.run(&["login", "-u", "me", "-p", "wrong", &host])?;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        !done.stderr.contains("wrong,") && done.stderr.contains("wrong user or password"),
        "{done:?}"
    );
    let done = tiny.run(&["login", "--password-stdin", &host])?;
    done.failed(1, &["--username"], None);
    ok(&tiny.run(&["logout", &host])?);
    let done = tiny.run(&["login", &host])?;
    done.failed(1, &["no terminal", "--password-stdin"], None);
    std::fs::write(tiny.file("config.json"), "{")?;
    let done = tiny.run(&["login", "-u", "me", "-p", "secret", &host])?;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("config.json"), "{done:?}");
    assert_eq!(std::fs::read_to_string(tiny.file("config.json"))?, "{");
    Ok(())
}

/// A program that is written by another process: a file that a child forked meanwhile still has open for writing cannot
/// be run.
fn script(tiny: &Tiny, name: &str, text: &str) -> Tested {
    let mut writer = std::process::Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(tiny.file(name))
        .stdin(Stdio::piped())
        .spawn()?;
    writer
        .stdin
        .take()
        .ok_or("no stdin")?
        .write_all(text.as_bytes())?;
    assert!(writer.wait()?.success());
    Ok(())
}

fn login_helpers(tiny: &Tiny) -> Tested {
    // One that answers with a password, and one as those of the cloud registries do.
    let basic = "#!/bin/sh\necho '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"secret\"}'\n";
    script(tiny, "docker-credential-basic", basic)?;
    let mut options = ServerOptions::new(tiny.file("tokens"));
    options.access = Access::Token {
        users: BTreeMap::from([("me".to_owned(), "secret".to_owned())]),
        lifetime: Duration::from_secs(60),
        anonymous: false,
    };
    let tokens = RegistryServer::start(options)?;
    let passwords = hub(tiny)?;
    let path = format!(
        "{}:{}",
        tiny.file("").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let with_path = |words: &[&str]| -> Result<Done, Box<dyn std::error::Error>> {
        Ok(tiny.command(words)?.env("PATH", &path).output()?.into())
    };
    // A login at a token server leaves a refresh token, which the helper then hands out.
    ok(&login(tiny, &[&tokens.host()], "secret")?);
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(tiny.file("config.json"))?)?;
    let token = config["auths"][tokens.host()]["identitytoken"]
        .as_str()
        .ok_or("no refresh token")?;
    let answer = format!("#!/bin/sh\necho '{{\"Username\":\"<token>\",\"Secret\":\"{token}\"}}'\n");
    script(tiny, "docker-credential-cloud", &answer)?;
    let helpers = serde_json::json!({"credHelpers": {tokens.host(): "cloud", passwords.host(): "basic"}});
    std::fs::write(tiny.file("config.json"), helpers.to_string())?;
    for host in [tokens.host(), passwords.host()] {
        let name = format!("{host}/me/app:1");
        ok(&tiny.run(&["tag", "tiny:latest", &name])?);
        let done = with_path(&["push", &name])?;
        ok(&done);
        ok(&with_path(&["pull", &name])?);
        let done = tiny.run(&["push", &name])?;
        assert_eq!(done.code, Some(1), "without the helper: {done:?}");
    }
    Ok(())
}

fn push_all(tiny: &Tiny) -> Tested {
    let server = hub(tiny)?;
    ok(&login(tiny, &[], "secret")?);
    for tag in ["1", "2"] {
        ok(&tiny.run(&["tag", "tiny:latest", &format!("me/app:{tag}")])?);
    }
    let done = tiny.run(&["push", "-a", "me/app"])?;
    ok(&done);
    for tag in ["1", "2"] {
        assert!(server.tag("me/app", tag).is_some(), "{done:?}");
    }
    let done = tiny.run(&["push", "-a", "me/app:1"])?;
    done.failed(1, &["--all-tags"], None);
    let done = tiny.run(&["push", "-a", "me/none"])?;
    done.failed(1, &["me/none"], None);
    Ok(())
}

fn push_errors(tiny: &Tiny) -> Tested {
    let server = hub(tiny)?;
    let done = tiny.run(&["push", "me/none:1"])?;
    done.failed(1, &["image me/none:1 is not in the store"], None);
    ok(&tiny.run(&["tag", "tiny:latest", "me/app:1"])?);
    let done = tiny.run(&["push", "me/app:1"])?;
    done.failed(1, &["denies access"], Some("log in to"));
    assert!(server.tag("me/app", "1").is_none());
    drop(server);
    let done = tiny.run(&["push", "127.0.0.1:1/app:1"])?;
    done.failed(1, &["127.0.0.1:1/app:1"], None);
    Ok(())
}

fn serve(tiny: &Tiny) -> Tested {
    std::fs::write(tiny.file("users"), "me:secret\n")?;
    let (users, dir) = (tiny.file("users"), tiny.file("served"));
    let mut command = tiny.command(&[
        "registry",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--fault",
        "503,method=PATCH,times=1",
    ])?;
    command.arg("--users").arg(&users).arg("--dir").arg(&dir);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().ok_or("no output")?);
    std::io::BufRead::read_line(&mut out, &mut line)?;
    let served = || -> Tested {
        let host = line
            .trim()
            .strip_prefix("Listening on ")
            .ok_or_else(|| format!("{line:?}"))?;
        ok(&login(tiny, &[host], "secret")?);
        let name = format!("{host}/app:1");
        ok(&tiny.run(&["tag", "tiny:latest", &name])?);
        let done = tiny.run(&["push", &name])?;
        ok(&done);
        assert!(done.stdout.contains("attempt 1 failed"), "{done:?}");
        ok(&tiny.run(&["pull", &name])?);
        Ok(())
    };
    let tested = served();
    // Its own word ends it; a test that failed ends it too.
    let ended = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status();
    if !ended.is_ok_and(|status| status.success()) {
        child.kill()?;
    }
    let status = child.wait()?;
    tested?;
    assert_eq!(status.code(), Some(0));
    Ok(())
}

fn skopeo(tiny: &Tiny) -> Tested {
    let cannot = |error: fixtures::Error| -> Box<dyn std::error::Error> {
        match error {
            fixtures::Error::Unavailable(why) => Cannot(format!("no skopeo: {why}")).into(),
            other => other.into(),
        }
    };
    let cache = Cache::open().map_err(cannot)?;
    let skopeo = Skopeo::open(&cache).map_err(cannot)?;
    let server = hub(tiny)?;
    let host = server.host();
    std::fs::write(tiny.file("skopeo-registries.conf"), "")?;
    let home = tiny.file("");
    let run = |words: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let mut command = skopeo.command(&home, words);
        let output = command.output()?;
        Ok(success(&command, &output)?)
    };
    ok(&login(tiny, &[&host], "secret")?);
    let ours = format!("{host}/me/ours:1");
    ok(&tiny.run(&["tag", "tiny:latest", &ours])?);
    ok(&tiny.run(&["push", &ours])?);
    let creds = ["--creds", "me:secret", "--tls-verify=false"];
    let shown = run(&[&["inspect"], &creds[..], &[&format!("docker://{ours}")]].concat())?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let digest = server.tag("me/ours", "1").ok_or("it is not there")?;
    assert_eq!(shown["Digest"], digest.as_str());
    // It checks every layer on the way to a directory, and pushes that.
    let dir = format!("dir:{}", tiny.file("copied").display());
    run(&[
        "copy",
        "--src-creds",
        "me:secret",
        "--src-tls-verify=false",
        &format!("docker://{ours}"),
        &dir,
    ])?;
    let theirs = format!("{host}/me/theirs:1");
    run(&[
        "copy",
        "--dest-creds",
        "me:secret",
        "--dest-tls-verify=false",
        &dir,
        &format!("docker://{theirs}"),
    ])?;
    let manifest = server.blob("me/ours", &digest).ok_or("it is not there")?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
    ok(&tiny.run(&["rmi", "-f", "tiny:latest", &ours])?);
    ok(&tiny.run(&["pull", &theirs])?);
    let after = tiny.run(&["images", "-q", "--no-trunc"])?;
    assert_eq!(
        after.stdout.trim(),
        manifest["config"]["digest"],
        "the image that was pushed"
    );
    let done = tiny.start(&["run", "--rm", "--network", "none", &theirs, "echo", "out"])?;
    assert_eq!((done.code, &*done.stdout), (Some(0), "out\n"), "{done:?}");
    Ok(())
}
