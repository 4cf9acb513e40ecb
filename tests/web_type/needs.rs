//! What a type needs, and how its absence is reported.

use std::net::TcpListener;

use crate::tool::Tool;

#[test]
fn missing_need_is_named_before_anything_is_registered() {
    let Some(tool) = Tool::create() else { return };
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    tool.write("proxies", proxy.local_addr().unwrap().to_string());
    let file = tool.home().join("proxies");
    let file = file.to_str().unwrap();
    for (name, words) in [
        ("lighttpd", &["public_html\" or the file", ".lighttpd.conf"][..]),
        ("lighttpd-plain", &["public_html\" or the file", ".lighttpd.conf"]),
        ("uwsgi-python", &["the directory", "www/python/src"]),
        ("uwsgi-plain", &["the file", "uwsgi.ini"]),
        ("nodejs", &["www/js/package.json", "npm init", "start"]),
    ] {
        let ended = tool.run(&["--register-proxy", "--active-proxy-file", file, "--type", name]);
        assert_eq!((ended.status, &*ended.out), (Some(78), ""), "{name}: {ended:?}");
        for word in words {
            assert!(ended.error.contains(word), "{name}: {}", ended.error);
        }
        assert!(
            ended.error.contains(&format!("type \"{}\" needs", name)) && ended.error.lines().count() == 1,
            "{}",
            ended.error
        );
    }
    assert!(proxy.accept().is_err(), "a connection");
    assert!(!tool.home().join("error.log").exists(), "the error stays where the user sees it");
}

#[test]
fn wrong_arguments_exit_64() {
    let Some(tool) = Tool::create() else { return };
    tool.mkdir("public_html");
    for (args, want) in [
        (&[][..], "runs a command of your own, and none was given"),
        (&["--type", "generic"], "none was given"),
        (&["--type", "lighttpd", "--", "--x"], "takes no arguments, but \"--x\" was given"),
        (&["--type", "tomcat"], "unknown type \"tomcat\", expected one of generic, lighttpd"),
        (&["--type", ""], "unknown type \"\""),
    ] {
        let ended = tool.run(args);
        assert_eq!((ended.status, &*ended.out), (Some(64), ""), "{args:?}: {ended:?}");
        assert!(ended.error.starts_with("error: ") && ended.error.contains(want), "{args:?}: {}", ended.error);
    }
}

#[test]
fn package_without_a_usable_start_script_is_refused() {
    let Some(tool) = Tool::create() else { return };
    for (content, want) in [
        ("{}", "has no script \"start\""),
        ("{\"scripts\": {\"start\": [1]}}", "has no script \"start\""),
        ("not JSON", "is not a valid package.json: expected ident at line 1"),
        ("", "is not a valid package.json: EOF"),
    ] {
        tool.write("www/js/package.json", content);
        let ended = tool.run(&["--type", "js"]);
        assert!(ended.status == Some(78) && ended.error.contains(want), "{content}: {ended:?}");
    }
}
