//! Command lines and active-proxy files of all three programs.

use super::job::{GRABBER, RELEASER, RUNNER, file_of, output};

#[test]
fn invalid_file_is_named_and_nothing_starts() {
    let wrong = file_of("good:1\n# fine\nnot good\n");
    let path = wrong.path().to_str().unwrap();
    let run = |program: &[&str], path: &str, command: &[&str]| {
        output(&[program, &["--active-proxy-file", path], command].concat())
    };
    let command = ["sh", "-c", "echo begun"];
    let programs: [(&[&str], &[&str]); 3] = [
        (&[RUNNER, "--register-proxy"], &command),
        (&[GRABBER], &["hello", "sh", "-c", "echo begun"]),
        (&[RELEASER, "--strict"], &[]),
    ];
    for (program, command) in programs {
        let (status, out, error) = run(program, path, command);
        assert_eq!((status, &*out), (Some(78), ""), "{program:?}: {error}");
        for word in [path, "line 3", "\"not good\"", "expected host, host:port"] {
            assert!(error.contains(word), "{program:?}: {error}");
        }
        let (status, out, error) = run(program, "/nowhere/active-proxy", command);
        assert_eq!((status, &*out), (Some(66), ""), "{program:?}: {error}");
        assert!(error.contains("/nowhere/active-proxy") && error.contains("No such file"), "{program:?}: {error}");
    }
    for path in [path, "/nowhere/active-proxy"] {
        let (status, _, error) = run(&[RELEASER], path, &[]);
        assert!(status == Some(0) && error.contains(path), "{error}");
    }
}

#[test]
fn invalid_command_lines_exit_64() {
    for (program, name) in [(RUNNER, "webservice-runner"), (GRABBER, "portgrabber"), (RELEASER, "portreleaser")] {
        let (status, version, _) = output(&[program, "--version"]);
        assert_eq!((status, version), (Some(0), format!("{name} {}\n", env!("CARGO_PKG_VERSION"))));
    }
    for command in [
        &[RUNNER][..],
        &[RUNNER, "--no-such-option", "true"],
        &[RUNNER, "--type", "lighttpd", "true"],
        &[RUNNER, "--port", "0", "true"],
        &[RUNNER, "--grace", "10 s", "true"],
        &[GRABBER],
        &[GRABBER, "hello"],
        &[GRABBER, "", "true"],
        &[GRABBER, "a/b", "true"],
        &[GRABBER, "--companion", "watch", "hello", "true"],
        &[RELEASER, "more"],
        &[RELEASER, "--no-such-option"],
    ] {
        let (status, out, error) = output(command);
        assert_eq!((status, &*out), (Some(64), ""), "{command:?}: {error}");
        assert!(error.contains("error: "), "{command:?}: {error}");
    }
    let (_, _, error) = output(&[RUNNER, "--type", "lighttpd", "true"]);
    assert!(error.contains("type \"lighttpd\" takes no arguments, but \"true\" was given"), "{error}");
}
