//! Checks the files that packages and operators install: systemd units, directories, users.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::need::{need_program, need_root};

const PROGRAMS: [(&str, &str); 4] = [
    ("proxylistener", env!("CARGO_BIN_EXE_proxylistener")),
    ("kube2proxy", env!("CARGO_BIN_EXE_kube2proxy")),
    ("webservicemonitor", env!("CARGO_BIN_EXE_webservicemonitor")),
    ("invisible-unicorn", env!("CARGO_BIN_EXE_invisible-unicorn")),
];

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

/// A unit's settings, `(section, key, value)`.
fn unit(daemon: &str) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(packaging(&format!("systemd/{daemon}.service"))).unwrap();
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match (line.strip_prefix('['), line.split_once('=')) {
            (Some(name), _) => section = name.trim_end_matches(']').to_owned(),
            (None, Some((key, value))) => settings.push((section.clone(), key.into(), value.into())),
            (None, None) => panic!("{daemon}: {line}"),
        }
    }
    settings
}

fn values<'a>(unit: &'a [(String, String, String)], wanted: &str) -> Vec<&'a str> {
    unit.iter().filter(|(_, key, _)| key == wanted).map(|(_, _, value)| value.as_str()).collect()
}

/// Lines of a tmpfiles.d or sysusers.d file, split into words.
fn lines(name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(packaging(name)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

#[test]
fn units_restart_without_limit_except_after_usage_errors() {
    for (daemon, _) in PROGRAMS {
        let unit = unit(daemon);
        let has = |section: &str, key: &str, value: &str| {
            let wanted = (section.into(), key.into(), value.into());
            assert!(unit.contains(&wanted), "{daemon}: {wanted:?}");
        };
        has("Unit", "StartLimitIntervalSec", "0");
        has("Service", "Restart", "always");
        has("Service", "RestartPreventExitStatus", "64");
        has("Service", "Type", "notify");
    }
    // Otherwise, the OOM kill of one tool's login would end the monitor and all restarts.
    assert_eq!(values(&unit("webservicemonitor"), "OOMPolicy"), ["continue"]);
}

#[test]
fn units_do_not_share_directories() {
    let shared: BTreeSet<_> = lines("tmpfiles.d/urlproxy.conf").into_iter().map(|line| line[1].clone()).collect();
    let mut own = BTreeSet::new();
    for (daemon, _) in PROGRAMS {
        let unit = unit(daemon);
        for (key, base) in [
            ("StateDirectory", "/var/lib"),
            ("RuntimeDirectory", "/run"),
            ("CacheDirectory", "/var/cache"),
            ("LogsDirectory", "/var/log"),
            ("ConfigurationDirectory", "/etc"),
        ] {
            for name in values(&unit, key).into_iter().flat_map(str::split_whitespace) {
                let path = format!("{base}/{name}");
                let top = format!("{base}/{}", name.split('/').next().unwrap());
                assert!(!shared.contains(&top), "{daemon}: {path} is in {top}, which is shared");
                assert!(own.insert(top), "{daemon}: {path} belongs to another unit");
            }
        }
    }
}

#[test]
fn directories_in_documents_and_defaults_are_created() {
    let mut made: Vec<_> = lines("tmpfiles.d/urlproxy.conf").into_iter().map(|line| line[1].clone()).collect();
    for (daemon, _) in PROGRAMS {
        made.extend(values(&unit(daemon), "StateDirectory").into_iter().map(|name| format!("/var/lib/{name}")));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [
        "src/withdrawal_guard/settings.rs",
        "src/monitor/options.rs",
        "src/domains/options.rs",
        "src/directive/table.rs",
    ];
    let pages = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let documents: Vec<_> = pages.chain([root.join("README.md")]).collect();
    // Of Debian's packages, and of the images.
    let others =
        ["/run/nginx", "/run/nginx.pid", "/run/nginx.pid.oldbin", "/run/redis", "/run/secrets", "/var/lib/nginx"];
    made.extend(others.map(str::to_owned));
    let (mut named, mut missing) = (0, Vec::new());
    for file in sources.map(|file| root.join(file)).iter().chain(&documents) {
        let text = fs::read_to_string(file).unwrap();
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c))) {
            let path = word.trim_end_matches(['.', '/']);
            let is_ours = ["/run/", "/var/lib/", "/etc/urlproxy/"].iter().any(|base| path.starts_with(base));
            // systemd creates the directories of dynamic users there.
            if is_ours && !path.starts_with("/var/lib/private") {
                named += 1;
                if !made.iter().any(|made| path == made || path.starts_with(&format!("{made}/"))) {
                    missing.push(format!("{}: {path}", file.display()));
                }
            }
        }
    }
    assert!(named > 20, "only {named} found");
    assert_eq!(missing, [""; 0]);
}

#[test]
fn systemd_accepts_the_units() {
    if !need_program("systemd-analyze", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (daemon, program) in PROGRAMS {
        let text = fs::read_to_string(packaging(&format!("systemd/{daemon}.service"))).unwrap();
        let installed = format!("/usr/bin/{daemon}");
        assert!(text.contains(&installed), "{daemon}");
        let file = dir.path().join(format!("{daemon}.service"));
        fs::write(&file, text.replace(&installed, program)).unwrap();
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Ignores other units of the machine.
        let ours: Vec<_> = stderr.lines().filter(|line| line.contains(daemon)).collect();
        assert!(output.status.success() && ours.is_empty(), "{stderr}");
    }
}

#[test]
fn systemd_accepts_users_and_directories() {
    if !need_root() || !need_program("systemd-sysusers", "--version") || !need_program("systemd-tmpfiles", "--version")
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = format!("--root={}", dir.path().display());
    fs::create_dir(dir.path().join("etc")).unwrap();
    let run = |program: &str, args: &[&str], file: &str| {
        let output = Command::new(program).arg(&root).args(args).arg(packaging(file)).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && !stderr.contains("not a valid") && !stderr.contains("Failed"),
            "{program}: {stderr}"
        );
    };
    run("systemd-sysusers", &[], "sysusers.d/urlproxy.conf");
    let passwd = fs::read_to_string(dir.path().join("etc/passwd")).unwrap();
    for (daemon, _) in PROGRAMS {
        // webservicemonitor runs as root.
        let user = values(&unit(daemon), "User").first().map(|user| (*user).to_owned());
        assert_eq!(user.is_none(), daemon == "webservicemonitor", "{daemon}");
        if let Some(user) = user {
            assert!(passwd.lines().any(|line| line.starts_with(&format!("{user}:"))), "{user}: {passwd}");
        }
    }
    fs::write(dir.path().join("etc/passwd"), format!("{passwd}www-data:x:33:33::/var/www:/usr/sbin/nologin\n"))
        .unwrap();
    let group = fs::read_to_string(dir.path().join("etc/group")).unwrap();
    fs::write(dir.path().join("etc/group"), format!("{group}www-data:x:33:\n")).unwrap();
    // Exists already, owned by root, after an earlier unit of the monitor.
    fs::create_dir_all(dir.path().join("var/lib/urlproxy")).unwrap();
    run("systemd-tmpfiles", &["--create"], "tmpfiles.d/urlproxy.conf");
    for (path, uid, mode) in [("etc/urlproxy", 0, 0o755), ("run/urlproxy", 0, 0o755), ("var/lib/urlproxy", 33, 0o750)] {
        let metadata = fs::metadata(dir.path().join(path)).unwrap();
        assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o7777), (uid, mode), "{path}");
    }
}
