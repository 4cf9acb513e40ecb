//! When and how a service is unregistered.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::job::{SERVER, UNKNOWN, UNREGISTER, active, port_of, runner, server};
use crate::proxy::Proxy;

/// Whether it is `unregister` or `unregisterUrl`.
fn is_unregister(command: &str) -> bool {
    command.starts_with("unregister")
}

#[test]
fn runner_unregisters_before_it_forwards_the_signal() {
    for signal in ["TERM", "INT", "HUP"] {
        let (proxy, resume) = Proxy::slow(|command, _| is_unregister(command));
        let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
        let port = port_of(&job);
        let (register, unregister) = (proxy.registration(port), proxy.unregistration(port));
        job.wait_for_line(&["INFO registered"]);
        job.signal(signal);
        proxy.wait_for(&[&*register, &unregister]);
        assert!(!job.log().contains("got "), "{signal}");
        resume.send(()).unwrap();
        job.wait_for_line(&[&format!("got {signal}")]);
        if signal != "TERM" {
            job.signal("TERM");
        }
        assert_eq!(job.wait_for_end(), 5, "{signal}");
        assert_eq!(proxy.received(), [&*register, &unregister], "{signal}: sent once");
    }
}

#[test]
fn second_signal_is_forwarded_at_once() {
    // After 2 s the command gets the first signal anyway: a machine that is busy for so long proves nothing.
    let mut is_shown = false;
    for _ in 0..10 {
        let (proxy, mute) = Proxy::slow(|command, _| is_unregister(command));
        let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
        let port = port_of(&job);
        let (register, unregister) = (proxy.registration(port), proxy.unregistration(port));
        job.wait_for_line(&["INFO registered"]);
        let start = Instant::now();
        job.signal("INT");
        proxy.wait_for(&[&*register, &unregister]);
        job.signal("HUP");
        job.wait_for_line(&["got HUP"]);
        is_shown = start.elapsed() < Duration::from_secs(2);
        assert!(!is_shown || !job.log().contains("got INT"), "the second instead of the first");
        job.signal("TERM");
        assert_eq!(job.wait_for_end(), 5);
        drop(mute);
        if is_shown {
            break;
        }
    }
    assert!(is_shown, "the second signal waits, or this machine is too busy");

    // A single signal is forwarded after 2 s, and the proxy is tried again after the command's end.
    let (proxy, mute) = Proxy::slow(|_, number| number == 1);
    let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
    let port = port_of(&job);
    let (register, unregister) = (proxy.registration(port), proxy.unregistration(port));
    job.wait_for_line(&["INFO registered"]);
    let start = Instant::now();
    job.signal("TERM");
    job.wait_for_line(&["got TERM"]);
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    assert_eq!(job.wait_for_end(), 5);
    assert_eq!(proxy.received(), [&*register, &unregister, &unregister]);
    job.wait_for_line(&["INFO unregistered"]);
    drop(mute);
}

#[test]
fn every_end_of_the_command_unregisters() {
    for (ending, want) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -SEGV $$", 139)] {
        let proxy = Proxy::agreeing();
        let script = format!("trap '{ending}' USR1; perl -e \"$0\" 0.0.0.0 & while :; do wait; done");
        let mut job = runner(active(&[proxy.address]), &[], &["sh", "-c", &script, SERVER]);
        let port = port_of(&job);
        let (register, unregister) = (proxy.registration(port), proxy.unregistration(port));
        job.wait_for_line(&["INFO registered"]);
        job.signal("USR1");
        assert_eq!(job.wait_for_end(), want, "{ending}");
        assert_eq!(proxy.received(), [&*register, &unregister], "{ending}");
        job.wait_for_line(&["INFO unregistered http://127.0.0.1:", &proxy.address.to_string()]);
    }
}

#[test]
fn registration_without_a_reply_is_unregistered() {
    // The answer does not come.
    let (proxy, mute) = Proxy::slow(|command, _| !is_unregister(command));
    let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
    let port = port_of(&job);
    let (register, unregister) = (proxy.registration(port), proxy.unregistration(port));
    proxy.wait_for(&[&register]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    assert_eq!(proxy.received(), [&*register, &unregister]);
    drop(mute);

    // The answer is lost.
    let proxy = Proxy::start(|command| if is_unregister(command) { "ok".into() } else { String::new() });
    let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
    job.wait_for_line(&["WARN reply \"\", expected ok while registering"]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    assert!(proxy.received().last().is_some_and(|last| is_unregister(last)), "{:?}", proxy.received());
}

#[test]
fn unregistration_waits_for_the_pending_reply() {
    let (resume, resumed) = channel::<()>();
    let (resumed, is_known) = (Mutex::new(resumed), AtomicBool::new(false));
    let proxy = Proxy::start(move |command| {
        if is_unregister(command) {
            return if is_known.load(Relaxed) { "ok".into() } else { "too early".into() };
        }
        resumed.lock().unwrap().recv().unwrap();
        // An identd takes its time.
        thread::sleep(Duration::from_millis(100));
        is_known.store(true, Relaxed);
        "ok".into()
    });
    let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
    let port = port_of(&job);
    let (register, unregister) = (proxy.registration(port), proxy.unregistration(port));
    proxy.wait_for(&[&register]);
    job.signal("TERM");
    resume.send(()).unwrap();
    assert_eq!(job.wait_for_end(), 5);
    assert_eq!(proxy.received(), [&*register, &unregister]);
}

#[test]
fn failed_unregistration_is_retried_then_given_up() {
    let proxy = Proxy::start(|command| if is_unregister(command) { "fail".into() } else { "ok".into() });
    let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
    let url = format!("http://127.0.0.1:{}", port_of(&job));
    job.wait_for_line(&["INFO registered"]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    job.wait_for_line(&["WARN reply \"fail\", expected ok while unregistering", &url, "from"]);
    assert!(proxy.count(UNKNOWN) > 1, "{:?}", proxy.received());
    // It knows the command: `unregister` could take another job's route.
    assert_eq!(proxy.count(UNREGISTER), 0, "{:?}", proxy.received());
}

#[test]
fn old_proxy_is_unregistered_from_with_the_old_command() {
    let failed = AtomicBool::new(false);
    let proxy =
        Proxy::old(
            move |command| {
                if command == UNREGISTER && !failed.swap(true, Relaxed) { "fail".into() } else { "ok".into() }
            },
        );
    let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
    let register = proxy.registration(port_of(&job));
    job.wait_for_line(&["INFO registered"]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    assert_eq!(proxy.received_once(), [&register, UNKNOWN, UNREGISTER, UNKNOWN, UNREGISTER]);
    job.wait_for_line(&["INFO unregistered"]);
}
