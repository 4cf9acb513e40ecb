//! The types uwsgi-python and uwsgi-plain.

use std::fs;
use std::process::Command;

use crate::support::wait::wait_for;
use crate::tool::Tool;

const APP: &str = r#"
import os, sys
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    print("request of", environ["PATH_INFO"], file=sys.stderr, flush=True)
    values = [environ.get("SCRIPT_NAME", ""), environ["PATH_INFO"], os.environ["PORT"], os.getcwd(), sys.prefix]
    return ["|".join(values).encode()]
"#;

/// Waits until uwsgi waits for requests: 2.0.21 hangs if it gets SIGTERM while it starts, and is then killed after the grace time.
fn wait_for_workers(tool: &Tool) {
    let waits = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|place| place.contains("epoll"));
    wait_for("a master and four workers", || {
        let all = tool.processes_named("uwsgi");
        all.len() == 5 && all.iter().all(waits)
    });
}

#[test]
fn application_is_mounted_at_the_tool_or_at_the_root() {
    let Some(tool) = Tool::with_programs(&["uwsgi"]) else { return };
    tool.write("www/python/src/app.py", APP);
    let directory = tool.home().join("www/python/src");
    for (options, rows) in [
        (
            &["--type", "uwsgi-python"][..],
            &[("/hello/x", "/hello", "/x"), ("/hello", "/hello", ""), ("/x", "", "/x")][..],
        ),
        (&["--type", "python", "--canonical"], &[("/x", "", "/x"), ("/hello/x", "", "/hello/x"), ("/", "", "/")]),
    ] {
        let mut server = tool.start(options);
        for (path, script, info) in rows {
            let (status, body) = server.get(path);
            let port = server.address().port();
            let want = format!("{script}|{info}|{port}|{}|/usr", directory.display());
            assert_eq!((status, body), (200, want), "{options:?} {path}");
        }
        wait_for_workers(&tool);
        server.signal("TERM");
        assert_eq!(server.wait_for_end(), 0, "{}", tool.log(&server));
        tool.wait_for_nothing_left();
    }
    assert!(tool.read("uwsgi.log").contains("request of /x"), "{}", tool.read("uwsgi.log"));
}

#[test]
fn own_settings_and_environment_are_used() {
    let Some(tool) = Tool::with_programs(&["uwsgi"]) else { return };
    tool.write("www/python/src/app.py", APP.replace("sys.prefix", "os.environ['COLOUR'], sys.prefix"));
    tool.write("www/python/uwsgi.ini", "[uwsgi]\nenv = COLOUR=red\n");
    let venv = tool.at("www/python/venv");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&venv).status().unwrap();
    assert!(made.success());
    let server = tool.start(&["--type", "uwsgi-python"]);
    let (_, body) = server.get("/hello/x");
    assert!(body.ends_with(&format!("|red|{}", venv.display())), "{body}");
}

#[test]
fn plain_type_takes_everything_from_the_tools_file() {
    let Some(tool) = Tool::with_programs(&["uwsgi"]) else { return };
    tool.write("app.py", APP);
    let ini = format!("[uwsgi]\nplugin = python3\nchdir = {}\nmodule = app:app\n", tool.home().display());
    tool.write("uwsgi.ini", ini);
    let mut server = tool.start(&["--type", "uwsgi-plain"]);
    let (status, body) = server.get("/hello/x");
    assert!(status == 200 && body.starts_with("|/hello/x|"), "{status} {body}");
    wait_for_workers(&tool);
    server.signal("TERM");
    assert_eq!(server.wait_for_end(), 0);
    tool.wait_for_nothing_left();
}
