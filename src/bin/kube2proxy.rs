//! kube2proxy: routes requests to the web services in a Kubernetes cluster.

use std::process::ExitCode;

use urlproxy::daemon::run;
use urlproxy::kube::{Options, serve};

fn main() -> ExitCode {
    run::<Options, _>(serve)
}
