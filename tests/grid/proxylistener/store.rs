//! A Redis that is down, hangs, refuses, or gives few rights.

use super::*;

#[test]
fn commands_fail_without_redis_and_recover_with_it() {
    let mut redis = RedisServer::start(&[]);
    let listener = start(&redis);
    assert_eq!(listener.register(".*", URL), "ok");
    redis.stop();
    assert_eq!(listener.register(".*", URL), "fail");
    assert_eq!(listener.ask("unregister\n.*\n"), "fail");
    redis.start_again();
    assert_eq!(listener.register(".*", URL), "ok");
    // proxylistener's connection is dead, and the next client does not notice.
    redis.stop();
    redis.start_again();
    assert_eq!(listener.register(".*", URL), "ok");
    redis.stop();
    redis.start_again();
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
}

#[test]
fn hanging_redis_fails_after_two_seconds() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    assert_eq!(listener.register("/warm", URL), "ok");
    redis.signal("STOP");
    for command in ["unregister\n/warm\n", "unregister\n/cold\n"] {
        let start = Instant::now();
        assert_eq!(listener.ask(command), "fail");
        assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    }
    redis.signal("CONT");
    assert_eq!(listener.register(".*", URL), "ok");
}

#[test]
fn redis_that_refuses_writes_fails_the_command() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let register = || (listener.register(".*", URL), listener.ask("unregister\n.*\n"));
    let (good, bad) = (("ok".to_owned(), "ok".to_owned()), ("fail".to_owned(), "fail".to_owned()));
    assert_eq!(register(), good);
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(register(), bad, "read-only");
    listener.daemon.wait_for_line(&["WARN", "refused", "read only replica"]);
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(register(), good);
    redis.cli(&["SADD", "prefix:hello", URL]);
    assert_eq!(register(), bad, "of the wrong type");
    listener.daemon.wait_for_line(&["WARN", "refused", "wrong kind of value"]);
    redis.cli(&["DEL", "prefix:hello"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(listener.register(".*", URL), "fail", "out of memory");
}

#[test]
fn documented_redis_rights_suffice() {
    let manual = include_str!("../../../docs/proxylistener.md");
    let line =
        manual.lines().find(|line| line.starts_with("ACL SETUSER proxylistener ")).expect("a line in the manual");
    let redis = RedisServer::start(&[]);
    redis.create_user(line);
    let url = redis.url().replace("//", "//proxylistener:password@");
    let (_server, port) = server();
    let is_lost = Arc::new(AtomicBool::new(false));
    let lost = Arc::clone(&is_lost);
    let ident_port =
        identd_by(move |about| if about == port && lost.load(SeqCst) { "tools.other" } else { "tools.hello" });
    let listener = Listener::start(&url, ident_port, &["--audit-interval", "50ms"]);
    assert_eq!(listener.register("/lost", &url_of(port)), "ok");
    assert_eq!(listener.ask(format!("renew\n/lost\n{}\n", url_of(port))), "ok");
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{URL}\n")), "ok");
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    // A route of another host has to be read.
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!(ask(listener.connect_from(ELSEWHERE), "unregister\n.*\n"), "ok");
    assert_eq!(listener.ask(format!("unregisterUrl\n.*\n{URL}\n")), "ok");
    assert_eq!(redis.cli(&["HGETALL", "addresses"]), format!("127.0.0.1:{port}\nhello"), "the index is written");
    is_lost.store(true, SeqCst);
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"hello\"", "owner=\"tools.other\""]);
    let log = listener.daemon.log();
    assert!(!log.contains("password") && !log.contains("NOPERM"), "{log}");
}
