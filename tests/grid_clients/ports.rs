//! Which ports are given, and to how many.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::job::{GRABBER, RUNNER, file_of, is_claimed, number_after, output};
use crate::listener::Daemon;
use crate::port::free_port;

#[test]
fn fifty_at_once_have_fifty_ports_below_the_kernels() {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let low: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let nobody = file_of("");
    let script = "echo $PORT; read -r _";
    let jobs: Vec<Child> = (0..50)
        .map(|number| {
            let mut command = Command::new(if number % 2 == 0 { RUNNER } else { GRABBER });
            if number % 2 == 1 {
                command.arg("--active-proxy-file").arg(nobody.path()).arg("hello");
            }
            command.args(["sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    let mut ports = HashSet::new();
    let mut ended = Vec::new();
    for mut job in jobs {
        let mut line = String::new();
        BufReader::new(job.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        assert!((10_000..low).contains(&port), "{port}");
        assert!(is_claimed(port), "{port}");
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        assert!(ports.insert(port), "{port} was given twice");
        ended.push(job);
    }
    for mut job in ended {
        drop(job.stdin.take());
        job.wait().unwrap();
    }
    assert!(!ports.into_iter().any(is_claimed), "those who claimed them are gone");
}

#[test]
fn a_port_that_is_asked_for_must_be_free() {
    let port = free_port();
    let number = port.to_string();
    let mut job = Daemon::start(&[RUNNER, "--port", &number, "sh", "-c", "echo port $PORT; sleep 1000"], &[]);
    assert_eq!(number_after(&job, "port "), u32::from(port));
    let (status, out, error) = output(&[RUNNER, "--port", &number, "echo", "begun"]);
    assert_eq!((status, &*out), (Some(69), ""), "{error}");
    assert!(error.contains(&format!("port {port} is claimed by another job")), "{error}");
    job.signal("TERM");
    job.wait_for_end();
    let _server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (status, out, error) = output(&[RUNNER, "--port", &number, "echo", "begun"]);
    assert_eq!((status, &*out), (Some(69), ""), "{error}");
    assert!(error.contains(&format!("port {port} is already listened on by uid ")), "{error}");
}
