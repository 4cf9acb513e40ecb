//! A complete site: Redis with the routes of sixty tools, the tools, nginx with two workers, and traffic.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::report::Report;
use crate::support::nginx::{Nginx, Tool, is_alive};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;
use crate::traffic::{FIRST, TOOLS, Traffic, name, number};

/// A script that writes one generation of all tools' routes at once.
const WRITE: &str = "for i = 0, ARGV[1] - 1 do local n = ARGV[2] + i \
                     local ip = string.format('127.%d.%d.%d', n / 65536, n / 256 % 256, n % 256) \
                     redis.call('HSET', string.format('prefix:t%02d', i), '.*', 'http://' .. ip .. ':' .. ARGV[3]) end";

/// Configuration of a site.
pub struct Plan {
    /// The source's URL, if not the server's own.
    pub source: Option<String>,
    /// The table's name.
    pub name: &'static str,
    pub zone: &'static str,
    /// Additional directives of the table.
    pub table: String,
    /// Directives outside `http`.
    pub main: String,
    /// Additional directives in `http`.
    pub http: String,
    /// The complete `http` block, instead of the usual one.
    pub whole: Option<String>,
    /// Environment variables for nginx.
    pub env: Vec<(&'static str, String)>,
    /// Redis is down when nginx starts.
    pub is_cold: bool,
    /// nginx runs as a daemon.
    pub is_daemon: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let [table, main, http] = [const { String::new() }; 3];
        let (name, zone, env) = ("tools", "1m", Vec::new());
        Self { source: None, name, zone, table, main, http, whole: None, env, is_cold: false, is_daemon: false }
    }
}

pub struct Site {
    // Dropped in this order.
    pub traffic: Traffic,
    pub nginx: Nginx,
    pub redis: RedisServer,
    tools: Tool,
    plan: Plan,
    begun: Instant,
    /// Parts of alarming log lines that this fault may cause.
    pub tolerated: Vec<&'static str>,
}

/// The `http` block's content.
fn http(plan: &Plan, redis: &RedisServer) -> String {
    let source = plan.source.clone().unwrap_or_else(|| redis.url());
    let Plan { name, zone, table, http, whole, .. } = plan;
    if let Some(whole) = whole {
        return whole.clone();
    }
    format!(
        "urlproxy_table {name} {{ zone {zone}; redis {source}; {table} }}
        upstream tools {{ urlproxy_peers; keepalive 16; }}
        server {{
            listen 127.0.0.1:@port@;
            location / {{
                urlproxy {name} path;
                proxy_http_version 1.1;
                proxy_set_header Connection '';
                proxy_pass $urlproxy_scheme://tools;
            }}
            location = /list {{ urlproxy_list {name}; }}
        }}
        {http}"
    )
}

impl Site {
    /// A default site, with arguments for Redis.
    pub fn start(redis_args: &[&str]) -> Self {
        Self::with(RedisServer::start(redis_args), Plan::default())
    }

    pub fn with(redis: RedisServer, plan: Plan) -> Self {
        let tools = Tool::everywhere();
        if !plan.is_cold {
            write(&redis, 0, FIRST, tools.port());
        }
        let mut nginx = Nginx::prepare(&format!("worker_processes 2; {}", plan.main), &http(&plan, &redis));
        plan.env.iter().for_each(|(name, value)| nginx.set_env(name, value));
        if plan.is_daemon {
            nginx.set_daemon();
        }
        nginx.launch();
        let traffic = Traffic::start(nginx.port, plan.is_cold);
        let tolerated = vec!["exited on signal 9"];
        let site = Self { traffic, nginx, redis, tools, plan, begun: Instant::now(), tolerated };
        if !site.plan.is_cold {
            site.wait_companion();
            site.wait_served(FIRST);
            site.serves_on(100);
        }
        site
    }

    /// The URL of a tool's server at an address without traffic.
    pub fn other_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.tools.port())
    }

    /// The port of every tool's server.
    pub fn tools_port(&self) -> u16 {
        self.tools.port()
    }

    /// Writes a new generation of all routes to a server and database.
    pub fn write_to(&self, redis: &RedisServer, db: u8) -> u64 {
        self.traffic.generations().write(|generation| {
            write(redis, db, generation, self.tools.port());
            generation
        })
    }

    /// Changes every tool's route in Redis, and waits until all are served; returns the time taken.
    #[track_caller]
    pub fn recovers(&self) -> Duration {
        let begun = Instant::now();
        let generation = self.write_to(&self.redis, 0);
        self.wait_served(generation);
        begun.elapsed()
    }

    /// Waits until each tool is routed by this generation or a newer one.
    #[track_caller]
    pub fn wait_served(&self, generation: u64) {
        for tool in 0..TOOLS {
            let path = format!("/{}/", name(tool));
            let generation_of = || self.traffic.generation_of(tool, &self.nginx.get(&path));
            let is_served = || generation_of().is_some_and(|it| it >= generation);
            wait_for(&format!("{path} by generation {generation}"), is_served);
        }
    }

    /// Waits for this many further requests.
    #[track_caller]
    pub fn serves_on(&self, requests: u64) {
        let until = self.traffic.sent() + requests;
        wait_for(&format!("{requests} more requests"), || self.traffic.sent() >= until);
    }

    /// Number of companions connected to Redis.
    pub fn companions(&self) -> usize {
        companions(&self.redis)
    }

    #[track_caller]
    pub fn wait_companion(&self) {
        wait_for("one companion is connected", || self.companions() == 1);
    }

    #[track_caller]
    pub fn wait_log(&self, text: &str) {
        wait_for(&format!("\"{text}\" in the log"), || self.nginx.log().contains(text));
    }

    /// Number of occurrences of a text in the log.
    pub fn logged(&self, text: &str) -> usize {
        self.nginx.log().matches(text).count()
    }

    /// How many lines of the log contain all these words.
    pub fn log_lines(&self, words: &[&str]) -> usize {
        self.nginx.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// The names in `/list`.
    pub fn listed(&self) -> BTreeSet<String> {
        let list: serde_json::Value = serde_json::from_str(&self.nginx.get("/list").body).expect("a list");
        list.as_object().expect("an object").keys().cloned().collect()
    }

    /// Changes the configuration, without a reload.
    pub fn configure(&mut self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.plan);
        self.nginx.configure(&format!("worker_processes 2; {}", self.plan.main), &http(&self.plan, &self.redis));
    }

    /// Reloads, and waits until only the new workers run, with their companion.
    #[track_caller]
    pub fn reload(&self) {
        let last = self.nginx.workers();
        self.nginx.signal("HUP");
        wait_for("a new generation of workers", || {
            let now = self.nginx.workers();
            now.len() == 2 && now.iter().all(|pid| !last.contains(pid))
        });
        wait_for("its companion", || self.nginx.companion().is_some());
    }

    /// Kills a worker, and waits for its successor.
    #[track_caller]
    pub fn kill_worker(&self, pid: u32) {
        self.traffic.while_killing(|| {
            let process = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not 0");
            kill_process(process, Signal::KILL).expect("a worker to kill");
            wait_for("the worker is gone", || !is_alive(pid));
        });
        wait_for("another worker", || self.nginx.workers().iter().filter(|pid| is_alive(**pid)).count() == 2);
    }

    /// Waits for a companion; returns its worker.
    #[track_caller]
    pub fn companion(&self) -> u32 {
        wait_for("a companion", || self.nginx.companion().is_some());
        self.nginx.companion().expect("just seen")
    }

    /// Ends the traffic and returns the report.
    pub fn finish(self, recovered: Duration, limit: Duration, most_lines: usize) -> Report {
        /// Least request rate for a valid result.
        const LEAST_PER_SECOND: f64 = 50.0;
        let took = self.begun.elapsed();
        let count = self.traffic.finish();
        let log = self.nginx.log();
        let lines = log.lines().filter(|line| line.contains("urlproxy")).count();
        let is_alarming = |line: &&str| {
            ["[emerg]", "[alert]", "[crit]", "panic"].iter().any(|word| line.contains(word))
                && !self.tolerated.iter().any(|part| line.contains(part))
        };
        let alarm = log.lines().find(is_alarming).map(str::to_owned);
        let pace = count.requests as f64 / took.as_secs_f64();
        let report = Report { count, recovered: Some(recovered), lines, ..Report::default() }
            .expect(pace > LEAST_PER_SECOND, format!("{pace:.0} requests/s are too few for a result"))
            .expect(recovered <= limit, format!("recovered in {recovered:?}, not within {limit:?}"))
            .expect(lines <= most_lines, format!("{lines} log lines, not at most {most_lines}"))
            .expect(alarm.is_none(), format!("in the log: {}", alarm.unwrap_or_default()));
        if !report.is_good() {
            let ours: Vec<_> = log.lines().filter(|line| line.contains("urlproxy") || is_alarming(line)).collect();
            let (head, tail) = ours.split_at(ours.len().min(30));
            eprintln!("--- error.log\n{}", head.join("\n"));
            eprintln!("...\n{}", tail[tail.len().saturating_sub(10)..].join("\n"));
        }
        report
    }
}

/// Number of companions connected to a Redis.
pub fn companions(redis: &RedisServer) -> usize {
    redis.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("name=urlproxy ")).count()
}

fn write(redis: &RedisServer, db: u8, generation: u64, port: u16) {
    let first = number(generation, 0);
    let db = db.to_string();
    let numbers = [TOOLS as u64, first, u64::from(port)].map(|n| n.to_string());
    let done = redis.cli(&[&["-n", &db, "EVAL", WRITE, "0"], &numbers.each_ref().map(String::as_str)[..]].concat());
    assert_eq!(done, "", "the routes are not written");
}
