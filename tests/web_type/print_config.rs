//! `--print-config`.

use std::fs;
use std::process::Command;

use crate::tool::Tool;

#[test]
fn printed_configuration_is_one_for_lighttpd() {
    let Some(tool) = Tool::with_programs(&["lighttpd"]) else { return };
    tool.mkdir("public_html");
    tool.write(".lighttpd.conf", "setenv.add-response-header += ( \"X\" => \"y\" )");
    for name in ["lighttpd", "lighttpd-plain"] {
        let ended = tool.run(&["--type", name, "--print-config", "--port", "12345"]);
        assert_eq!((ended.status, &*ended.error), (Some(0), ""), "{name}");
        assert!(ended.out.contains("server.port = 12345\n") && ended.out.contains("\"X\" => \"y\""), "{}", ended.out);
        assert_eq!(ended.out.contains("php-cgi"), name == "lighttpd", "{}", ended.out);
        assert!(ended.out.lines().last().unwrap().starts_with("# /usr/sbin/lighttpd -D -f "), "{}", ended.out);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), ended.out).unwrap();
        let check = Command::new("lighttpd").arg("-tt").arg("-f").arg(file.path()).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }
    assert!(!tool.home().join("error.log").exists());
    tool.wait_for_nothing_left();
}

#[test]
fn other_types_print_a_line_for_a_shell() {
    let Some(tool) = Tool::with_home("my home") else { return };
    tool.mkdir("www");
    tool.mkdir("www/python");
    tool.mkdir("www/python/src");
    tool.write("uwsgi.ini", "");
    tool.write("www/js/package.json", r#"{"scripts": {"start": "node ."}}"#);
    let home = tool.home().display();
    for (args, want) in [
        (&["--type", "generic", "--", "./a b", "it's"][..], "'./a b' 'it'\\''s'\n".to_owned()),
        (&["--type", "js"], "npm start\n".into()),
        (
            &["--type", "uwsgi-plain", "--port", "9"],
            format!(
                "uwsgi --http-socket :9 --ini '{home}/uwsgi.ini' --workers 4 --die-on-term --strict --master --logto '{home}/uwsgi.log'\n"
            ),
        ),
        (
            &["--type", "python"],
            format!(
                "uwsgi --plugin python3 --http-socket :8000 --chdir '{home}/www/python/src' --callable app --manage-script-name \
                 --mount '/hello={home}/www/python/src/app.py' --workers 4 --die-on-term --strict --master --logto '{home}/uwsgi.log'\n"
            ),
        ),
    ] {
        let mut all = vec!["--print-config"];
        all.extend(args);
        let ended = tool.run(&all);
        assert_eq!((ended.status, &*ended.out, &*ended.error), (Some(0), &*want, ""), "{args:?}");
    }
}
