//! Kills invisible-unicorn at every step of a change: acknowledged changes are kept, and Redis matches the database afterwards.
//!
//! strace kills it before the N-th system call of one kind, for N from 1 on; each thread counts separately.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::site::{Answer, PROGRAM, Site, Unicorn, frontends, wanted};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// Kills amid changes; `URLPROXY_KILLS` sets another number.
const KILLS: usize = 200;
/// Kills during the start.
const START_KILLS: usize = 40;
/// The system calls that persist or send something, and the number of steps of each at which it is killed in turn.
const STEPS: [(&str, usize); 4] =
    [("pwrite64", 60), ("fdatasync,fsync,ftruncate,unlink", 4), ("sendto,writev", 10), ("write", 10)];
/// All these calls.
const CALLS: &str = "pwrite64,fdatasync,fsync,ftruncate,unlink,sendto,writev,write";
/// Few, so that changes concern the same domains.
const DOMAINS: u64 = 6;

type Mappings = BTreeMap<String, Vec<String>>;

/// A client's request.
#[derive(Clone, Debug)]
enum Change {
    Put { domain: String, backend: String },
    Replace { domain: String, new: String, backend: String },
    Delete { domain: String },
}

impl Change {
    fn any(random: &mut fastrand::Rng, known: &Mappings) -> Self {
        let mut draw = |below: u64| random.u64(..below);
        let name = |number: u64| format!("d{number}.example.org");
        let backend = format!("http://10.0.0.{}:{}", 1 + draw(200), 1 + draw(60_000));
        let free = |domain: &String| !known.contains_key(domain);
        let (new, kind) = (name(draw(DOMAINS)), draw(3));
        let index = usize::try_from(draw(known.len().max(1) as u64)).unwrap();
        match known.keys().nth(index) {
            Some(domain) if kind == 1 => {
                let new = Some(new).filter(free).unwrap_or_else(|| domain.clone());
                Self::Replace { domain: domain.clone(), new, backend }
            }
            Some(domain) if kind == 2 => Self::Delete { domain: domain.clone() },
            _ => Self::Put { domain: new, backend },
        }
    }

    fn ask(&self, unicorn: &Unicorn) -> std::io::Result<Answer> {
        let path = |domain: &str| format!("/v1/tools/mapping/{domain}");
        match self {
            Self::Put { domain, backend } => {
                unicorn.try_ask("PUT", "/v1/tools/mapping", &[], &wanted(domain, &[backend]))
            }
            Self::Replace { domain, new, backend } => {
                unicorn.try_ask("POST", &path(domain), &[], &wanted(new, &[backend]))
            }
            Self::Delete { domain } => unicorn.try_ask("DELETE", &path(domain), &[], ""),
        }
    }

    fn apply(&self, mappings: &mut Mappings) {
        match self {
            Self::Put { domain, backend } => {
                let backends = mappings.entry(domain.clone()).or_default();
                backends.push(backend.clone());
                backends.sort_unstable();
                backends.dedup();
            }
            Self::Replace { domain, new, backend } => {
                mappings.remove(domain);
                mappings.insert(new.clone(), vec![backend.clone()]);
            }
            Self::Delete { domain } => {
                mappings.remove(domain);
            }
        }
    }
}

/// strace, set to kill at a step.
struct Killer {
    process: Child,
    trace: PathBuf,
    /// strace reports each thread here; the pipe must stay open.
    _stderr: BufReader<ChildStderr>,
}

fn arguments(calls: &str, step: usize, trace: &str) -> [String; 8] {
    let (traced, inject) = (format!("trace={CALLS}"), format!("inject={calls}:signal=KILL:when={step}"));
    ["-f", "-yy", "-o", trace, "-e", &traced, "-e", &inject].map(str::to_owned)
}

impl Killer {
    fn attach(site: &Site, unicorn: &Unicorn, (calls, step): (&str, usize)) -> Self {
        let trace = site.path("trace");
        let mut process = Command::new("strace")
            .args(arguments(calls, step, trace.to_str().unwrap()))
            .args(["-p", &unicorn.daemon.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace, a package of Debian");
        let mut line = String::new();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "strace may not attach: {line}");
        Self { process, trace, _stderr: stderr }
    }

    /// Waits for the kill; returns the system call.
    fn wait(mut self) -> String {
        self.process.wait().unwrap();
        call_in(&fs::read_to_string(&self.trace).unwrap())
    }
}

/// The call before which the process was killed: its name and target.
fn call_in(trace: &str) -> String {
    let mut started: BTreeMap<&str, &str> = BTreeMap::new();
    let mut call = "? ?";
    for (thread, line) in trace.lines().filter_map(|line| line.split_once(' ')) {
        let line = line.trim();
        match (line.strip_suffix("<unfinished ...>"), line.ends_with("= ?")) {
            (Some(unfinished), _) => drop(started.insert(thread, unfinished)),
            // The killed call has no result.
            (None, true) => call = started.remove(thread).unwrap_or(line),
            (None, false) if line.contains("killed by SIGKILL") => call = started.remove(thread).unwrap_or(call),
            (None, false) => drop(started.remove(thread)),
        }
    }
    let (name, arguments) = call.split_once('(').unwrap_or((call, ""));
    let file = arguments.split_once('<').and_then(|(_, rest)| rest.split_once(['>', ','])).map_or("", |(file, _)| file);
    let what = match file.rsplit('/').next().unwrap_or_default() {
        _ if file.starts_with("TCP") && arguments.contains("HTTP/1.1") => "a client",
        _ if file.starts_with("TCP") => "Redis",
        _ if file.starts_with("pipe") => "the log",
        name => name,
    };
    format!("{name} of {what}")
}

/// Restarts the server after a kill and checks its state: `certain` was acknowledged, `doubtful` was requested last.
fn recover(
    site: &Site,
    redis: &RedisServer,
    certain: &mut Mappings,
    doubtful: Option<&Change>,
    shown: &str,
) -> Unicorn {
    let unicorn = site.start(redis, &[]);
    let found: Mappings = site.mappings().into_iter().collect();
    let mut changed = certain.clone();
    if let Some(change) = doubtful {
        change.apply(&mut changed);
    }
    assert!(found == *certain || found == changed, "{shown}: {found:?}\nis neither {certain:?}\nnor {changed:?}");
    let check: String = site.open().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{shown}");
    assert_eq!(frontends(redis), site.mappings(), "{shown}: Redis disagrees as soon as it is ready");
    let waiting: i64 = site.open().query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(waiting, 0, "{shown}");
    *certain = found;
    unicorn
}

/// The outbox has everything that Redis lacks, so that replication does not depend on a resync.
fn assert_outbox_knows(site: &Site, redis: &RedisServer, shown: &str) {
    let connection = site.open();
    let mut query = connection.prepare("SELECT domain FROM outbox").unwrap();
    let waiting: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let (ours, theirs): (Mappings, Mappings) =
        (site.mappings().into_iter().collect(), frontends(redis).into_iter().collect());
    for domain in ours.keys().chain(theirs.keys()) {
        let is_same = ours.get(domain) == theirs.get(domain);
        assert!(is_same || waiting.contains(domain), "{shown}: Redis lacks {domain}, the outbox has {waiting:?}");
    }
}

fn changes_audited(site: &Site) -> i64 {
    site.open().query_row("SELECT count(*) FROM audit", [], |row| row.get(0)).unwrap()
}

#[test]
fn acknowledged_changes_survive_a_kill_at_any_step() {
    let kills = std::env::var("URLPROXY_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let (mut random, mut certain) = (fastrand::Rng::with_seed(1), Mappings::new());
    let (mut calls, mut acknowledged, mut kept): (BTreeMap<String, usize>, usize, usize) = Default::default();
    let mut unicorn = site.start(&redis, &[]);
    for kill in 0..kills {
        let (calls_of_kind, steps) = STEPS[kill % STEPS.len()];
        let step = (calls_of_kind, 1 + kill / STEPS.len() % steps);
        let killer = Killer::attach(&site, &unicorn, step);
        let audited = changes_audited(&site);
        let (mut done, mut doubtful) = (0, None);
        while doubtful.is_none() {
            assert!(done < 1000, "not killed at {step:?}");
            let change = Change::any(&mut random, &certain);
            match change.ask(&unicorn) {
                Ok(answer) => {
                    assert_eq!(answer.status, 200, "{change:?}: {answer:?}");
                    change.apply(&mut certain);
                    done += 1;
                }
                Err(_) => doubtful = Some(change),
            }
        }
        let call = killer.wait();
        let _ = unicorn.daemon.wait_for_end();
        let (before, shown) = (certain.clone(), format!("kill {kill} at {call}"));
        *calls.entry(call).or_default() += 1;
        assert_outbox_knows(&site, &redis, &shown);
        unicorn = recover(&site, &redis, &mut certain, doubtful.as_ref(), &shown);
        let was_kept = before != certain;
        assert_eq!(changes_audited(&site), audited + done + i64::from(was_kept), "{shown}");
        (acknowledged, kept) = (acknowledged + usize::try_from(done).unwrap(), kept + usize::from(was_kept));
    }
    eprintln!(
        "{kills} kills, {acknowledged} acknowledged changes, none lost; of {kills} not acknowledged {kept} were kept, whole"
    );
    for (call, count) in &calls {
        eprintln!("{count:5} killed before {call}");
    }
    assert!(calls.len() > 4 && kept > 0 && kept < kills, "{calls:?}");
}

#[test]
fn start_survives_a_kill_at_any_step() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let mut certain = Mappings::new();
    let (url, database, trace, pid) = (redis.url(), site.database(), site.path("trace"), site.path("pid"));
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for kill in 0..START_KILLS {
        // First without a database, later with one that Redis lags behind.
        if kill >= START_KILLS / 2 {
            let unicorn = recover(&site, &redis, &mut certain, None, "start");
            unicorn.put("tools", "a.example.org", &[&format!("http://10.0.0.1:{}", kill % 16 + 1)]);
            certain = site.mappings().into_iter().collect();
            drop(unicorn);
            redis.cli(&["FLUSHALL"]);
        } else {
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(format!("{}{suffix}", database.display()));
            }
        }
        let mut starting = Command::new("strace")
            .args(arguments(CALLS, 2 + kill % (START_KILLS / 2), trace.to_str().unwrap()))
            .args(["sh", "-c", r#"echo $$ >"$0"; exec "$@""#, pid.to_str().unwrap()])
            .args([PROGRAM, "--listen", "127.0.0.1:0", "--redis", &url, "--database"])
            .arg(&database)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace, a package of Debian");
        let mut is_over = false;
        let started = std::time::Instant::now();
        wait_for("killed or started", || {
            is_over = starting.try_wait().unwrap().is_some();
            is_over || started.elapsed().as_secs() >= 2
        });
        if is_over {
            *calls.entry(call_in(&fs::read_to_string(&trace).unwrap())).or_default() += 1;
        } else {
            // The start has fewer steps.
            let pid = fs::read_to_string(&pid).unwrap();
            assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
            starting.wait().unwrap();
        }
        let mut found = recover(&site, &redis, &mut certain, None, &format!("start {kill}"));
        found.daemon.signal("TERM");
        assert_eq!(found.daemon.wait_for_end(), 0);
    }
    for (call, count) in &calls {
        eprintln!("{count:5} killed before {call}");
    }
    assert!(calls.values().sum::<usize>() > START_KILLS / 2, "{calls:?}");
}
