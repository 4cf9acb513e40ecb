//! webservicemonitor and what a tool can put into its own directory: each costs that tool its service, and others nothing.

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

/// Puts something else in a manifest's place, which belongs to the tool.
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
fn each_hostile_manifest_has_its_outcome() {
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
        ("fifo", "its manifest is no regular file"),
        ("device", "its manifest is no regular file"),
        ("socket", "its manifest is no regular file"),
        ("folder", "its manifest is no regular file"),
        ("link", "its manifest is a link"),
        ("dangling", "its manifest is a link"),
        ("linked", "its directory is a link"),
        ("hardlink", "its manifest belongs to uid 50001, expected \"tools.hardlink\""),
        ("huge", "its manifest has more than 65536 bytes"),
        ("roots", "its manifest belongs to uid 0, expected at least 50000"),
        ("others", "its manifest belongs to uid 50001, expected \"tools.others\""),
        ("stranger", "there is no account \"tools.stranger\""),
        ("binary", "its manifest is not UTF-8"),
        ("nul", "its manifest is no YAML"),
        ("bomb", "its manifest is no YAML"),
        ("anchor", "its manifest is no YAML"),
        ("nested", "its manifest is no YAML"),
        ("tag", "its manifest is no YAML"),
        ("include", "web: \"/etc/passwd\" is no type"),
        ("option", "web: \"--help\" is no type"),
        ("shell", "web: \"a; reboot\" is no type"),
        ("lines", "web: \"a\" is no type"),
        ("release", "its release is \"../../x\""),
        ("kube", "its backend is \"kubernetes\""),
        ("-rf", "its directory's name is no tool's name"),
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
        assert!(lines == 0 || log.contains("is not looked after: "), "{log}");
    }
}

#[test]
fn what_a_tool_puts_in_place_of_its_log_harms_nobody() {
    let tools = ["link", "own-link", "fifo", "folder", "device", "roots", "full", "closed", "hello"];
    let Some(site) = Site::with(&tools) else { return };
    let victim = site.path("victim");
    fs::write(&victim, "untouched").unwrap();
    // The system's permissions alone would let it be written.
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
    assert_eq!(site.starts().len(), tools.len(), "the service comes first");
    for tool in ["link", "own-link", "fifo", "folder", "device", "roots", "closed"] {
        let told = format!("its service.log is not written tool=\"tools.{tool}\"");
        assert!(ended.log.contains(&told), "{tool}: {}", ended.log);
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

/// Not even by its own command line.
#[test]
fn nothing_is_written_as_root() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let home = site.home("hello").display().to_string();
    let program = env!("CARGO_BIN_EXE_webservicemonitor");
    let output = Command::new(program).args(["append-service-log", &home]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "not a tool's user while writing service.log\n");
    assert!(!site.home("hello").join("service.log").exists());
}
