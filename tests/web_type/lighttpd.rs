//! The type lighttpd-plain.

use std::net::{Ipv6Addr, TcpStream};
use std::os::unix::fs::symlink;

use crate::tool::Tool;

#[test]
fn static_files_are_served_in_path_mode_and_on_the_own_host() {
    let Some(tool) = Tool::with_programs(&["lighttpd"]) else { return };
    tool.write("public_html/index.html", "front");
    tool.write("public_html/style.css", "style");
    tool.write("public_html/sub/index.htm", "sub");
    tool.write("elsewhere.txt", "elsewhere");
    symlink("../elsewhere.txt", tool.at("public_html/link.txt")).unwrap();
    let both = [("/", "front"), ("/style.css", "style"), ("/sub/", "sub"), ("/link.txt", "elsewhere")];
    let server = tool.start(&["--type", "lighttpd-plain"]);
    for (path, want) in both {
        assert_eq!(server.get(path), (200, want.into()), "{path}");
        assert_eq!(server.get(&format!("/hello{path}")), (200, want.into()), "/hello{path}");
    }
    let (head, _) = server.get_with("/hello/style.css", "");
    assert!(head.contains("Content-Type: text/css"), "{head}");
    assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, server.address().port())).is_ok(), "IPv6");
    drop(server);
    tool.wait_for_nothing_left();

    let server = tool.start(&["--type", "lighttpd-plain", "--canonical"]);
    for (path, want) in both {
        assert_eq!(server.get(path), (200, want.into()), "{path}");
        assert_eq!(server.get(&format!("/hello{path}")).0, 404, "/hello{path}");
    }
}

#[test]
fn sources_and_backups_are_not_shown() {
    let Some(tool) = Tool::with_programs(&["lighttpd"]) else { return };
    for name in ["page.php~", "db.inc", "page.php", "module.fcgi"] {
        tool.write(&format!("public_html/{name}"), "secret");
    }
    let server = tool.start(&["--type", "lighttpd-plain"]);
    for name in ["page.php~", "db.inc", "page.php", "module.fcgi", "", "../.lighttpd.conf"] {
        let (status, body) = server.get(&format!("/hello/{name}"));
        assert!([403, 404].contains(&status) && !body.contains("secret"), "{name}: {status} {body}");
    }
}

#[test]
fn cgi_programs_run() {
    let Some(tool) = Tool::with_programs(&["lighttpd"]) else { return };
    let head = "Content-Type: text/plain\\r\\n\\r\\n";
    tool.write("public_html/a.pl", format!("print \"{head}perl $ENV{{SCRIPT_NAME}}\";"));
    tool.write("public_html/a.py", format!("import os; print('{head}python', os.environ['SCRIPT_NAME'], end='')"));
    tool.write("public_html/a.sh", format!("printf '{head}'; printf 'sh %s' \"$SCRIPT_NAME\"; echo complaint >&2"));
    let server = tool.start(&["--type", "lighttpd-plain"]);
    for (path, want) in [("a.pl", "perl"), ("a.py", "python"), ("a.sh", "sh")] {
        assert_eq!(server.get(&format!("/hello/{path}")), (200, format!("{want} /hello/{path}")));
    }
    assert!(tool.read("error.log").contains("complaint"), "{}", tool.read("error.log"));
}

#[test]
fn own_configuration_suffices_without_public_html() {
    let Some(tool) = Tool::with_programs(&["lighttpd"]) else { return };
    tool.write(".lighttpd.conf", "url.redirect += ( \"^/(.*)$\" => \"https://example.org/$1\" )");
    let server = tool.start(&["--type", "lighttpd-plain"]);
    let (head, _) = server.get_with("/x", "");
    assert!(head.contains(" 301 ") && head.contains("Location: https://example.org/x"), "{head}");
}

#[test]
fn signal_ends_the_server() {
    let Some(tool) = Tool::with_programs(&["lighttpd"]) else { return };
    tool.write("public_html/index.html", "front");
    for signal in ["TERM", "INT"] {
        let mut server = tool.start(&["--type", "lighttpd-plain"]);
        assert_eq!(server.get("/"), (200, "front".into()));
        server.signal(signal);
        // lighttpd's own status depends on what it does when the signal arrives: 0 or 1.
        let status = server.wait_for_end();
        assert!([0, 1].contains(&status), "{signal}: {status}");
        let log = tool.log(&server);
        assert!(log.contains(&format!("command ended, exit status: {status}")), "{signal}: {status}\n{log}");
        tool.wait_for_nothing_left();
    }
}
