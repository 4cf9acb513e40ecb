//! webservicemonitor and hostile files in a tool's directory: each costs that tool its service, and other tools nothing.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::site::Site;

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {args:?}");
}

/// Replaces a manifest by something else that the tool owns.
fn replace(site: &mut Site, tool: &str, make: impl FnOnce(&Path)) {
    site.add(tool, b"");
    let manifest = site.home(tool).join("service.manifest");
    fs::remove_file(&manifest).unwrap();
    make(&manifest);
    if fs::symlink_metadata(&manifest).is_ok() {
        site.own(tool, &manifest);
    }
}

#[test]
fn hostile_manifests_are_skipped_with_a_reason() {
    let Some(mut site) = Site::with(&["hello"]) else { return };
    let theirs = site.home("hello").join("service.manifest");
    replace(&mut site, "fifo", |path| run("mkfifo", &[path.to_str().unwrap()]));
    replace(&mut site, "device", |path| run("mknod", &[path.to_str().unwrap(), "c", "1", "5"]));
    replace(&mut site, "socket", |path| drop(UnixListener::bind(path).unwrap()));
    replace(&mut site, "folder", |path| fs::create_dir(path).unwrap());
    replace(&mut site, "link", |path| symlink(&theirs, path).unwrap());
    replace(&mut site, "dangling", |path| symlink("/nowhere", path).unwrap());
    replace(&mut site, "none", |_| {});
    replace(&mut site, "hardlink", |path| fs::hard_link(&theirs, path).unwrap());
    site.own("hello", &theirs);
    replace(&mut site, "huge", |path| File::create(path).unwrap().set_len(1 << 30).unwrap());
    site.add("roots", b"web: lighttpd\n");
    site.give(0, &site.home("roots").join("service.manifest"));
    site.add("others", b"web: lighttpd\n");
    site.give(site.uid("hello"), &site.home("others").join("service.manifest"));
    site.add("binary", b"web: \xff\xfe\n");
    site.add("nul", b"web: a\0b\n");
    let bomb: String = ('b'..='i').zip('a'..).fold("a: &a [x,x,x,x,x,x,x,x]\n".into(), |text, (new, old)| {
        format!("{text}{new}: &{new} [{}]\n", vec![format!("*{old}"); 9].join(","))
    });
    site.add("bomb", format!("{bomb}web: lighttpd\n").as_bytes());
    site.add("anchor", b"a: &a lighttpd\nweb: *a\n");
    site.add("nested", format!("web: {}", "[".repeat(60_000)).as_bytes());
    site.add("tag", b"web: !!python/object/apply:os.system [reboot]\n");
    site.add("include", b"web: !include /etc/passwd\nrelease: bookworm\n");
    site.add("option", b"web: --help\nrelease: bookworm\n");
    site.add("shell", b"web: 'a; reboot'\nrelease: bookworm\n");
    site.add("lines", b"web: \"a\\nb\"\nrelease: bookworm\n");
    site.add("release", b"web: lighttpd\nrelease: ../../x\n");
    site.add("kube", b"web: python3.9\nbackend: kubernetes\n");
    fs::create_dir(site.path("project/-rf")).unwrap();
    fs::write(site.path("project/-rf/service.manifest"), "web: lighttpd\n").unwrap();
    fs::create_dir(site.path("project/stranger")).unwrap();
    fs::write(site.path("project/stranger/service.manifest"), "web: lighttpd\n").unwrap();
    site.give(60_000, &site.path("project/stranger/service.manifest"));
    symlink(site.home("hello"), site.path("project/linked")).unwrap();
    fs::write(site.path("project/file"), "").unwrap();

    let ended = site.once(&["--dry-run"]);
    assert_eq!(ended.status, 0, "{}", ended.log);
    for (tool, why) in [
        ("fifo", "the manifest is not a regular file"),
        ("device", "the manifest is not a regular file"),
        ("socket", "the manifest is not a regular file"),
        ("folder", "the manifest is not a regular file"),
        ("link", "the manifest is a symbolic link"),
        ("dangling", "the manifest is a symbolic link"),
        ("linked", "the directory is a symbolic link"),
        ("hardlink", "the manifest belongs to uid 50001, expected \"tools.hardlink\""),
        ("huge", "the manifest has more than 65536 bytes"),
        ("roots", "the manifest belongs to uid 0, expected at least 50000"),
        ("others", "the manifest belongs to uid 50001, expected \"tools.others\""),
        ("stranger", "there is no account \"tools.stranger\""),
        ("binary", "the manifest is not UTF-8"),
        ("nul", "unsupported or invalid YAML in the manifest"),
        ("bomb", "unsupported or invalid YAML in the manifest"),
        ("anchor", "unsupported or invalid YAML in the manifest"),
        ("nested", "unsupported or invalid YAML in the manifest"),
        ("tag", "unsupported or invalid YAML in the manifest"),
        ("include", "invalid web: \"/etc/passwd\""),
        ("option", "invalid web: \"--help\""),
        ("shell", "invalid web: \"a; reboot\""),
        ("lines", "invalid web: \"a\""),
        ("release", "the release is \"../../x\""),
        ("kube", "the backend is \"kubernetes\""),
        ("-rf", "the directory's name is not a tool name"),
    ] {
        let line = ended.line(tool);
        assert_eq!(line[5], "skipped", "{line:?}");
        assert!(line[6].starts_with(why), "{line:?}");
    }
    assert_eq!(ended.line("hello")[5], "restart");
    for tool in ["none", "file"] {
        assert!(!ended.printed.contains(&format!("\n{tool} ")), "{tool} has no manifest");
    }

    for _ in 0..2 {
        assert_eq!(site.once(&[]).status, 0);
    }
    assert_eq!(site.starts(), ["hello tools.hello bookworm lighttpd"; 2]);
    for (tool, lines) in
        [("huge", 1), ("binary", 1), ("bomb", 1), ("option", 1), ("kube", 0), ("roots", 0), ("fifo", 0)]
    {
        let log = site.service_log(tool);
        assert_eq!(log.lines().count(), lines, "{tool}: {log}");
        assert!(lines == 0 || log.contains("is not monitored: "), "{log}");
    }
}

#[test]
fn hostile_service_logs_harm_no_other_user() {
    let tools = ["link", "own-link", "fifo", "folder", "device", "roots", "full", "closed", "hello"];
    let Some(site) = Site::with(&tools) else { return };
    let victim = site.path("victim");
    fs::write(&victim, "untouched").unwrap();
    // File permissions alone would allow the write.
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o666)).unwrap();
    let log = |tool: &str| site.home(tool).join("service.log");
    symlink(&victim, log("link")).unwrap();
    symlink("service.manifest", log("own-link")).unwrap();
    run("mkfifo", &[log("fifo").to_str().unwrap()]);
    fs::create_dir(log("folder")).unwrap();
    run("mknod", &[log("device").to_str().unwrap(), "c", "1", "3"]);
    for tool in ["link", "fifo", "folder", "device"] {
        site.own(tool, &log(tool));
    }
    fs::write(log("roots"), "untouched").unwrap();
    File::create(log("full")).unwrap().set_len(1 << 20).unwrap();
    site.own("full", &log("full"));
    site.give(0, &site.home("closed"));

    let ended = site.once(&["--parallel", "8"]);
    assert_eq!(ended.status, 0, "{}", ended.log);
    assert_eq!(site.starts().len(), tools.len(), "the restart does not depend on the log");
    for tool in ["link", "own-link", "fifo", "folder", "device", "roots", "closed"] {
        let line = format!("service.log not written; the maintainer does not see the reason account=\"tools.{tool}\"");
        assert!(ended.log.contains(&line), "{tool}: {}", ended.log);
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(log("roots")).unwrap(), "untouched");
    assert!(!log("closed").exists(), "not as root");
    assert_eq!(site.service_log("full").lines().count(), 1);
    assert_eq!(fs::metadata(site.home("full").join("service.log.1")).unwrap().len(), 1 << 20);
    let metadata = fs::metadata(log("hello")).unwrap();
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777),
        (site.uid("hello"), site.uid("hello"), 0o644)
    );
}

#[test]
fn log_appender_refuses_to_run_as_root() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let home = site.home("hello").display().to_string();
    let program = env!("CARGO_BIN_EXE_webservicemonitor");
    let output = Command::new(program).args(["append-service-log", &home]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "not a tool's user while writing service.log\n");
    assert!(!site.home("hello").join("service.log").exists());
}
