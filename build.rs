//! Passes nginx's features, version and a build id to the module. Does nothing without the feature `module`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_MODULE").is_none() {
        return;
    }
    for (cfg, list) in [("ngx_feature", "DEP_NGINX_FEATURES"), ("ngx_os", "DEP_NGINX_OS")] {
        println!("cargo::rerun-if-env-changed={list}");
        println!("cargo::rerun-if-env-changed={list}_CHECK");
        let known = env::var(format!("{list}_CHECK")).unwrap_or_else(|_| "any()".into());
        println!("cargo::rustc-check-cfg=cfg({cfg}, values({known}))");
        for value in env::var(list).unwrap_or_default().split(',').filter(|v| !v.is_empty()) {
            println!("cargo::rustc-cfg={cfg}=\"{value}\"");
        }
    }
    let nginx = env::var("DEP_NGINX_VERSION").unwrap_or_else(|_| "unknown".into());
    println!("cargo::rustc-env=URLPROXY_NGINX_VERSION={nginx}");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    println!("cargo::rustc-env=URLPROXY_BUILD_ID={}", build_id());
    // A reload closes the old cycle's modules; the companion's code must stay mapped until its thread is gone.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

/// The commit of this build, with a `+` if the tree has changes; `unknown` outside a checkout.
fn build_id() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    format!("{commit}{}", if dirty { "+" } else { "" })
}
