//! The bytes that clients send.

use super::*;

#[test]
fn unknown_commands_are_refused() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let megabyte = "a".repeat(1 << 20);
    for (bytes, shown) in [
        (megabyte.as_bytes(), "a megabyte without a line end"),
        (format!("register\n{megabyte}").as_bytes(), "a megabyte as pattern"),
        (format!("register\n.*\n{megabyte}").as_bytes(), "a megabyte as URL"),
        (b"\0\n", "NUL bytes"),
        (b"register\n.\0*\nhttp://127.0.0.1:8000\n", "a NUL byte in the pattern"),
        (b"register\n.*\nhttp://127.0.0.1:8000\0\n", "a NUL byte in the URL"),
        (b"register\n\xff\nhttp://127.0.0.1:8000\n", "no UTF-8"),
        (b"list\n", "another command"),
        (b"\n\n\n", "empty lines"),
    ] {
        assert_eq!(listener.ask(bytes), "fail", "{shown}");
    }
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    assert_eq!(listener.ask(format!("register\n.*\n{URL}\n{megabyte}")), "ok", "what follows a command is not read");
}

#[test]
fn incomplete_command_gets_no_reply() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &["--idle-timeout", "300ms"]);
    for bytes in ["unregister\n.*", &format!("register\n.*\n{URL}")] {
        assert_eq!(listener.ask(bytes), "", "{bytes:?} and silence");
    }
    for bytes in ["", "register", "register\n", "register\n.*\n", "register\n.*", "unregister\n", "unregisterUrl\n.*\n"]
    {
        let start = Instant::now();
        assert_eq!(listener.ask(bytes), "", "{bytes:?} and silence");
        assert!(start.elapsed() >= Duration::from_millis(300), "{bytes:?}");
        let client = listener.connect();
        (&client).write_all(bytes.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_reply(client), "", "{bytes:?} and the end");
    }
    // A client that trickles bytes gets no more time than a silent one.
    let mut client = listener.connect();
    wait_for("the end of a trickle", || client.write_all(b"r").is_err() || closed(&mut client));
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    listener.daemon.wait_for_line(&["closed without a reply", "command incomplete at --idle-timeout"]);
    listener.daemon.wait_for_line(&["closed without a reply", "client closed within the command"]);
}

#[test]
fn split_commands_and_half_closed_clients_are_served() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let client = listener.connect();
    client.set_nodelay(true).unwrap();
    for byte in format!("register\r\n.*\r\n{URL}\r\n").bytes() {
        (&client).write_all(&[byte]).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!((read_reply(client), route(&redis, ".*")), ("ok".into(), URL.into()));
}

#[test]
fn hostile_text_stays_within_its_log_line() {
    let redis = RedisServer::start(&[]);
    for (format, escaped) in [("text", r"\u{1b}J"), ("json", r"\u001bJ")] {
        let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &["--log-format", format]);
        assert_eq!(listener.ask("register\n\u{1b}J\r\u{85} (\nhttp://127.0.0.1:80/x\n"), "fail");
        assert_eq!(listener.ask("\u{1b}[2J\n"), "fail");
        assert_eq!(listener.register("\u{1b}J", URL), "fail");
        listener.daemon.wait_for_line(&["refused", escaped, "more than a host and a port"]);
        listener.daemon.wait_for_line(&["refused", "control character"]);
        listener.daemon.wait_for_line(&["refused", "unknown command", r"\u{1b}[2J"]);
        let log = listener.daemon.log();
        assert!(!log.contains(|c: char| c.is_control() && c != '\n' && c != '\u{85}'), "{log:?}");
        for line in log.lines().filter(|_| format == "json") {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
        }
    }
}

#[test]
fn end_of_connection_ends_the_last_line() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let ended = |bytes: &str| {
        let client = listener.connect();
        (&client).write_all(bytes.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        read_reply(client)
    };
    // As `printf 'register\n.*\n%s' "$url" | nc -N` sends it.
    assert_eq!((ended(&format!("register\n.*\n{URL}")), route(&redis, ".*")), ("ok".into(), URL.into()));
    assert_eq!((ended("unregister\n.*"), route(&redis, ".*")), ("ok".into(), String::new()));
    assert_eq!(ended("list"), "fail");
}
