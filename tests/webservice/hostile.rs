//! Hostile homes: each has its clear error, and nothing is submitted or changed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, mknodat};

use crate::site::{Ended, Site};

/// What may be in the place of a file.
const ODDITIES: [&str; 6] = ["fifo", "directory", "link", "dangling", "socket", "sparse"];

fn put(site: &Site, what: &str, path: &Path) {
    remove(path);
    match what {
        "fifo" => mknodat(CWD, path, FileType::Fifo, 0o666.into(), 0).unwrap(),
        "directory" => fs::create_dir(path).unwrap(),
        "link" => {
            fs::write(site.path("target"), "type: lighttpd\n").unwrap();
            site.own(&site.path("target"));
            symlink(site.path("target"), path).unwrap();
        }
        "dangling" => symlink(site.path("nowhere"), path).unwrap(),
        "socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        "sparse" => File::create(path).unwrap().set_len(1 << 30).unwrap(),
        _ => unreachable!("{what}"),
    }
    site.own(path);
}

/// Nothing was written through a link.
fn assert_targets_unchanged(site: &Site) {
    assert_eq!(fs::read_to_string(site.path("target")).unwrap(), "type: lighttpd\n");
    assert!(!site.path("nowhere").exists());
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
}

#[test]
fn odd_files_are_refused_and_named() {
    let Some(site) = Site::new() else { return };
    let regular = "not a regular file";
    let link = "symbolic link";
    for (file, words) in [
        ("service.manifest", [regular, regular, link, link, regular, "more than 65536 bytes"]),
        ("service.template", [regular, regular, "", "", regular, "more than 65536 bytes"]),
        (".webservice.lock", [regular, regular, regular, regular, regular, ""]),
        ("error.log", [regular, regular, "", "Permission denied", regular, ""]),
    ] {
        let path = site.home(file);
        for (what, words) in ODDITIES.iter().zip(words) {
            put(&site, what, &path);
            for action in ["start", "restart"] {
                let ended = site.run(&[action]);
                if words.is_empty() {
                    ended.succeeds();
                    site.run(&["stop"]).succeeds();
                } else {
                    let ended = ended.fails(words);
                    assert!(ended.messages.contains(path.to_str().unwrap()), "{file} {what}: {ended:?}");
                    assert_eq!(site.grid_log(), [""; 0], "{file} {what} {action}");
                }
                site.forget_grid_log();
            }
            remove(&path);
            remove(&site.home("service.manifest"));
        }
    }
    assert_targets_unchanged(&site);
}

#[test]
fn linked_log_may_be_dev_null() {
    let Some(site) = Site::new() else { return };
    symlink("/dev/null", site.home("error.log")).unwrap();
    site.run(&["start"]).succeeds();
    site.run(&["stop"]).succeeds();
    fs::remove_file(site.home("error.log")).unwrap();
    symlink("/dev/zero", site.home("error.log")).unwrap();
    site.run(&["start"]).fails("not a regular file");
}

#[test]
fn leftover_in_any_form_is_replaced() {
    let Some(site) = Site::new() else { return };
    let path = site.home("service.manifest~");
    for what in ODDITIES {
        put(&site, what, &path);
        let ended = site.run(&["start"]);
        if what == "directory" {
            ended.fails("remove this directory");
            remove(&path);
            continue;
        }
        ended.succeeds();
        assert!(path.symlink_metadata().is_err(), "{what}");
        assert!(site.manifest().contains(&"web: lighttpd".to_owned()));
        site.run(&["stop"]).succeeds();
    }
    assert_targets_unchanged(&site);
}

#[test]
fn tricks_of_yaml_are_errors_with_the_files_name() {
    let Some(site) = Site::new() else { return };
    let deep = "[".repeat(2000);
    let bomb = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nweb: lighttpd\n";
    for text in [
        bomb,
        &deep,
        "web: a\n---\nweb: b\n",
        "web: a\nweb: b\n",
        "web: [a]\ntype: [a]\n",
        "- a\n",
        "web: {a: b}\ntype: {a: b}\n",
        "replicas: many\n",
        "web: &x lighttpd\n",
        "\u{1}",
        "{",
    ] {
        for file in ["service.manifest", "service.template"] {
            site.write(file, text);
            let ended = site.run(&["start"]);
            assert_eq!(ended.status, 1, "{file} {text:.40}: {ended:?}");
            assert!(ended.messages.contains(site.home(file).to_str().unwrap()), "{file} {text:.40}: {ended:?}");
            assert!(ended.messages.len() < 1500, "{ended:?}");
            remove(&site.home(file));
        }
    }
    site.write("service.manifest", b"web: \xff\n");
    site.run(&["start"]).fails("it is not UTF-8");
    remove(&site.home("service.manifest"));
    for (manifest, words) in [
        ("web: '../x'\n", "unknown type \"../x\""),
        ("web: \"a\\e[31m\\nb\"\n", "unknown type"),
        ("web: lighttpd\nrelease: 'a,h_vmem=1T'\n", "invalid release \"a,h_vmem=1T\""),
        ("web: lighttpd\nbackend: \"x\\e[31m\"\n", "unknown backend"),
    ] {
        site.write("service.manifest", manifest);
        let ended = site.run(&["start"]).fails(words);
        assert!(!ended.messages.contains('\x1b'), "{ended:?}");
    }
    assert_eq!(site.grid_log(), [""; 0]);
}

#[test]
fn arguments_arrive_or_are_refused() {
    let Some(site) = Site::new() else { return };
    let long = "x".repeat(70_000);
    let many = vec!["x"; 11_000];
    let cases: [(&[&str], &str); 4] = [
        (&["a\nb"], "argument \"a\\nb\" has a line break"),
        (&[&long], "has 70000 bytes, expected at most 65536"),
        (&["x", &long[..60_000], &long[..60_000]], "expected at most 65536; put them into a file of yours"),
        (&many, "too many"),
    ];
    for (extra, words) in cases {
        site.run(&[&["generic", "start", "--"], extra].concat()).fails(words);
    }
    let mut command = site.command(&["generic", "start", "--", "x"]);
    command.arg(OsStr::from_bytes(b"\xff"));
    Ended::of(command.output().unwrap()).fails("argument \"\\xFF\" is not UTF-8");
    assert_eq!(site.grid_log(), [""; 0]);
    assert!(!site.home("service.manifest").exists() && !site.home("service.manifest~").exists());
}

#[test]
fn unwritable_homes_and_full_disks_submit_nothing() {
    let Some(site) = Site::new() else { return };
    let home = site.path("home");
    // A home of root's.
    std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
    site.run(&["start"]).fails("Permission denied (os error 13) while opening the lock");
    for file in [".webservice.lock", "error.log"] {
        site.write(file, "");
    }
    site.run(&["start"]).fails("the home must be writable for the tool's account");
    site.own(&home);
    site.mounts(r#"mount --bind "$1/home" "$1/home" && mount -o remount,bind,ro "$1/home""#);
    site.run(&["start"]).fails("Read-only file system");
    // A disk with two pages, one of them for the log.
    site.mounts(
        r#"mount -t tmpfs -o size=8k,mode=755,uid=50001,gid=50001 none "$1/home" && mkdir "$1/home/public_html" \
           && chown 50001:50001 "$1/home/public_html" && head -c 8192 /dev/zero > "$1/home/fill""#,
    );
    site.run(&["start"]).fails("remove files that you do not need");
    assert_eq!(site.grid_log(), [""; 0]);
    // The manifest fills a page of its own, and the lock needs none.
    site.mounts(
        r#"mount -t tmpfs -o size=8k,mode=755,uid=50001,gid=50001 none "$1/home" \
           && printf 'web: lighttpd\nother: kept\nrelease: bookworm\nweb::extra_args: [%0200d]\n' 0 > "$1/home/service.manifest" \
           && chown 50001:50001 "$1/home/service.manifest" && { head -c 8192 /dev/zero > "$1/home/fill" 2>/dev/null || :; }"#,
    );
    let stopped = site.run_and_print(&["stop"], "service.manifest").succeeds();
    let lines: Vec<_> = stopped.answer.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["Your webservice is not running", "other: \"kept\"", "version: 4"]);
}
