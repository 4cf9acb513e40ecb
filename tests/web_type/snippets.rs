//! Settings that tools really have in their ~/.lighttpd.conf.

use crate::tool::Tool;

/// Snippet, path, and what the response has.
const SNIPPETS: [(&str, &str, &str); 16] = [
    (r#"url.rewrite-once += ( "^/hello/a/(.*)$" => "/hello/page.html?x=$1" )"#, "/hello/a/1", "page"),
    (r#"url.rewrite-if-not-file = ( "^/hello/(.*)$" => "/hello/page.html" )"#, "/hello/nothing", "page"),
    (r#"url.redirect = ( "^/hello/old$" => "/hello/new" )"#, "/hello/old", "Location: /hello/new"),
    (r#"$HTTP["url"] =~ "^/hello/files" { dir-listing.activate = "enable" }"#, "/hello/files/", "listed.md"),
    (r#"dir-listing.activate = "enable""#, "/hello/files/", "listed.md"),
    (
        r#"setenv.add-response-header += ( "Access-Control-Allow-Origin" => "*" )"#,
        "/hello/page.html",
        "Access-Control-Allow-Origin: *",
    ),
    (
        r#"mimetype.assign += ( ".md" => "text/markdown; charset=utf-8" )"#,
        "/hello/files/listed.md",
        "Content-Type: text/markdown",
    ),
    (
        r#"mimetype.assign += ( ".odd" => "text/x-odd", "" => "text/x-other" )"#,
        "/hello/a.odd",
        "Content-Type: text/x-odd",
    ),
    (r#"cgi.assign += ( ".sh" => "/bin/bash", ".foo" => "/bin/sh" )"#, "/hello/a.foo", "foo"),
    (r#"$HTTP["url"] =~ "^/hello/cgi-bin" { cgi.assign = ( "" => "/bin/sh" ) }"#, "/hello/cgi-bin/a", "plain cgi"),
    (r#"alias.url += ( "/hello/static" => "HOME/static" )"#, "/hello/static/s.txt", "from static"),
    (r#"alias.url = ( "/other" => "HOME/static" )"#, "/hello/page.html", "page"),
    (
        r#"fastcgi.server += ( "/hello/fcgi" => (( "socket" => "HOME/fcgi.socket", "bin-path" => "/usr/bin/php-cgi", "check-local" => "disable", "max-procs" => 1, "fix-root-scriptname" => "enable" )) )"#,
        "/hello/fcgi",
        "No input file specified",
    ),
    (
        "auth.backend = \"plain\"\nauth.backend.plain.userfile = \"HOME/users\"\nauth.require = ( \"/hello/\" => ( \"method\" => \"basic\", \"realm\" => \"x\", \"require\" => \"valid-user\" ) )",
        "/hello/page.html",
        "WWW-Authenticate: Basic",
    ),
    (
        "server.modules += ( \"mod_rewrite\", \"mod_accesslog\", \"mod_status\" )\naccesslog.filename = \"HOME/access.log\"\nstatus.status-url = \"/hello/status\"",
        "/hello/status?auto",
        "Total Accesses",
    ),
    (
        "server.error-handler-404 = \"/hello/page.html\"\nserver.document-root := \"HOME/static\"\ndebug.log-request-handling = \"enable\"",
        "/hello/nothing",
        "page",
    ),
];

#[test]
fn own_settings_take_effect() {
    let Some(tool) = Tool::with_programs(&["lighttpd", "php-cgi"]) else { return };
    tool.write("public_html/page.html", "page");
    tool.write("public_html/a.odd", "odd");
    tool.write("public_html/a.foo", "printf 'Content-Type: text/plain\\r\\n\\r\\nfoo'");
    tool.write("public_html/cgi-bin/a", "printf 'Content-Type: text/plain\\r\\n\\r\\nplain cgi'");
    tool.write("public_html/files/listed.md", "md");
    tool.write("static/s.txt", "from static");
    tool.write("users", "alice:secret");
    for (snippet, path, want) in SNIPPETS {
        tool.write(".lighttpd.conf", snippet.replace("HOME", tool.home().to_str().unwrap()));
        let server = tool.start(&["--type", "lighttpd-plain"]);
        let (head, body) = server.get_with(path, "");
        let whole = format!("{head}\n\n{body}");
        assert!(whole.contains(want), "{snippet}\n{whole}\n{}", tool.read("error.log"));
        drop(server);
        tool.wait_for_nothing_left();
    }
}

#[test]
fn invalid_settings_are_reported_with_their_line() {
    let Some(tool) = Tool::with_programs(&["lighttpd", "php-cgi"]) else { return };
    tool.write(".lighttpd.conf", "url.redirect = (\n\"^/a\" => \"/b\" )\n\"b\" \"c\" =>\n");
    let ended = tool.run(&["--type", "lighttpd", "--no-error-log"]);
    assert!(![Some(0), None].contains(&ended.status), "{ended:?}");
    let printed = tool.run(&["--type", "lighttpd", "--print-config"]).out;
    let marker = printed.lines().position(|line| line.starts_with("# ~/.lighttpd.conf")).unwrap();
    let line = format!("line: {}", marker + 4);
    assert!(ended.error.contains(&line), "no {line:?} in {}", ended.error);
    assert!(printed.contains(&format!("line 1 is line {} of this file", marker + 2)), "{printed}");
}
