//! The type nodejs.

use crate::support::wait::wait_for;
use crate::tool::Tool;

const SERVER: &str = r#"
const http = require("http");
const server = http.createServer((request, response) => response.end(`node ${request.url} ${process.cwd()}`));
process.on("SIGTERM", () => { console.error("node got SIGTERM"); process.exit(0); });
server.listen(process.env.PORT, () => console.error("node listens"));
"#;

#[test]
fn start_script_runs_and_gets_the_signal() {
    let Some(tool) = Tool::with_programs(&["npm"]) else { return };
    tool.write("www/js/server.js", SERVER);
    tool.write(
        "www/js/package.json",
        r#"{"name": "hello", "version": "1.0.0", "scripts": {"start": "node server.js"}}"#,
    );
    for name in ["nodejs", "js"] {
        let mut server = tool.start(&["--type", name]);
        let want = format!("node /hello/x {}", tool.home().join("www/js").display());
        assert_eq!(server.get("/hello/x"), (200, want));
        server.signal("TERM");
        server.wait_for_end();
        wait_for("the signal", || tool.read("error.log").contains("node got SIGTERM"));
        tool.wait_for_nothing_left();
    }
}
