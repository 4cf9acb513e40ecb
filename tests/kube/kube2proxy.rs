//! The real kube2proxy between a scripted API server and a real Redis.

use std::fs;
use std::net::SocketAddr;

use crate::api_server::ApiServer;
use crate::support::daemon::Daemon;
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::source::Source;
use crate::support::wait::wait_for;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube2proxy");

/// A running kube2proxy.
pub struct Kube2proxy {
    /// The process.
    pub daemon: Daemon,
    /// The address of its metrics endpoint.
    pub status: SocketAddr,
}

impl Kube2proxy {
    /// Starts kube2proxy with a configuration file, and waits until it is ready.
    pub fn start(api: &ApiServer, redis: &RedisServer, extra_args: &[&str]) -> Self {
        let kube2proxy = Self::launch(api, redis, extra_args);
        kube2proxy.wait_until_ready();
        kube2proxy
    }

    /// [`Self::start`] without waiting.
    pub fn launch(api: &ApiServer, redis: &RedisServer, extra_args: &[&str]) -> Self {
        Self::launch_with(&format!("  master: {}\n  token: secret\n", api.url()), redis, extra_args)
    }

    /// [`Self::launch`] with these lines about the cluster.
    pub fn launch_with(cluster: &str, redis: &RedisServer, extra_args: &[&str]) -> Self {
        Self::launch_in(cluster, redis, extra_args, &[])
    }

    /// [`Self::launch_with`] with these variables in the environment.
    pub fn launch_in(cluster: &str, redis: &RedisServer, extra_args: &[&str], environment: &[(&str, &str)]) -> Self {
        let file = redis.dir().join("kube2proxy.yaml");
        fs::write(&file, format!("redis: 127.0.0.1:{}\nkubernetes:\n{cluster}", redis.port())).expect("a file");
        let mut args = vec!["--config", file.to_str().expect("UTF-8")];
        let url = redis.url();
        // The file can name a host and a port only.
        if Source::of_tests() != Source::Redis && !extra_args.contains(&"--redis") {
            args.extend(["--redis", &url]);
        }
        if !extra_args.contains(&"--watch-timeout") {
            args.extend(["--watch-timeout", "2s"]);
        }
        args.extend(extra_args);
        Self::launch_by(&args, environment)
    }

    /// Starts kube2proxy with these arguments only.
    pub fn launch_by(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = vec![PROGRAM, "--metrics-listen", "127.0.0.1:0"];
        command.extend(args);
        let mut variables = vec![("no_proxy", ""), ("http_proxy", ""), ("https_proxy", "")];
        variables.retain(|(name, _)| !environment.iter().any(|(other, _)| other == name));
        variables.extend(["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"].map(|name| (name, "")));
        variables.extend(environment);
        let daemon = Daemon::start(&command, &variables);
        let status = daemon.address_in("metrics endpoint listening");
        daemon.wait_for_line(&["following"]);
        Self { daemon, status }
    }

    #[track_caller]
    pub fn wait_until_ready(&self) {
        wait_for("ready", || self.is_ready());
    }

    pub fn is_ready(&self) -> bool {
        http::is_ready(self.status)
    }

    /// The value of a sample, which must be there.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> f64 {
        http::metric(self.status, sample)
    }
}

/// Patterns and URLs in `prefix:<tool>`, sorted.
pub fn routes(redis: &RedisServer, tool: &str) -> Vec<(String, String)> {
    let text = redis.cli(&["HGETALL", &format!("prefix:{tool}")]);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let mut routes: Vec<_> = lines.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    routes.sort_unstable();
    routes
}

/// The URL of a tool's route for all paths; empty without one.
pub fn url_of(redis: &RedisServer, tool: &str) -> String {
    redis.cli(&["HGET", &format!("prefix:{tool}"), ".*"])
}

/// The members of `k8s_services`, sorted.
pub fn members(redis: &RedisServer) -> Vec<String> {
    let mut members: Vec<_> = redis.cli(&["SMEMBERS", "k8s_services"]).lines().map(str::to_owned).collect();
    members.sort_unstable();
    members.retain(|member| !member.is_empty());
    members
}
