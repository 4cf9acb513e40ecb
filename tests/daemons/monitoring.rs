//! Checks what Prometheus and Grafana get: metrics, alert rules, the scrape configuration, the dashboard, commands of the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::documents::{anchors, page, root};
use crate::operation::{DAEMONS, names, start};
use crate::support::http::get;
use crate::support::need::need_program;

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<TestGroup>,
}

#[derive(Deserialize)]
struct TestGroup {
    name: String,
    #[serde(default)]
    promql_expr_test: Vec<ExpressionTest>,
}

#[derive(Deserialize)]
struct ExpressionTest {
    exp_samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    labels: String,
}

fn prometheus(name: &str) -> PathBuf {
    root().join("packaging/prometheus").join(name)
}

fn rules() -> Vec<Rule> {
    let text = fs::read_to_string(prometheus("urlproxy.rules.yml")).unwrap();
    let file: RuleFile = serde_saphyr::from_str(&text).unwrap();
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Rows and graphs of the dashboard.
fn panels() -> Vec<Value> {
    let text = fs::read_to_string(prometheus("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    dashboard["panels"].as_array().unwrap().clone()
}

/// The expressions of the dashboard, by the title of their panel, with values for Grafana's variables.
fn dashboard_expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in panels() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$__rate_interval", "5m").replace("$__range", "3h");
            found.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    found
}

/// Runs promtool with standard input; returns its output.
fn promtool(args: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    command.args(args).current_dir(prometheus("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    process.wait_with_output().unwrap()
}

#[track_caller]
fn assert_accepted(output: &Output, what: &str) {
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success() && output.stderr.is_empty(), "{what}: {}", texts.join(""));
}

#[test]
fn promtool_accepts_the_metrics() {
    if !need_program("promtool", "--version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for daemon in DAEMONS {
        let (_process, status) = start(daemon, &dir);
        let (_, text) = get(status, "/metrics");
        assert_accepted(&promtool(&["check", "metrics"], &text), daemon);
    }
    let lint =
        promtool(&["check", "metrics"], "# HELP a_milliseconds A.\n# TYPE a_milliseconds gauge\na_milliseconds 1\n");
    assert!(!lint.status.success(), "promtool reports a metric without base unit");
}

#[test]
fn promtool_accepts_rules_and_configuration() {
    if !need_program("promtool", "--version") {
        return;
    }
    assert_accepted(&promtool(&["check", "config", "prometheus.yml"], ""), "prometheus.yml");
    assert_accepted(&promtool(&["test", "rules", "urlproxy.rules.test.yml"], ""), "urlproxy.rules.test.yml");
}

#[test]
fn alerts_are_tested_in_both_states() {
    let text = fs::read_to_string(prometheus("urlproxy.rules.test.yml")).unwrap();
    let file: TestFile = serde_saphyr::from_str(&text).unwrap();
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for group in &file.tests {
        for test in &group.promql_expr_test {
            let alerts = test.exp_samples.iter().filter_map(|sample| sample.labels.split('"').nth(1));
            firing.extend(alerts.map(str::to_owned));
            if test.exp_samples.is_empty() {
                silent.extend(group.name.split(',').next().map(str::to_owned));
            }
        }
    }
    let known: BTreeSet<_> = rules().into_iter().map(|rule| rule.alert).collect();
    assert_eq!(firing, known, "alerts that fire in a test");
    assert_eq!(silent, known, "alerts that stay silent in a test");
}

#[test]
fn alerts_say_what_to_do() {
    let page = page("monitoring");
    for Rule { alert, labels, annotations, .. } in rules() {
        let severity = &labels["severity"];
        assert!(["critical", "warning"].contains(&severity.as_str()), "{alert}: severity {severity}");
        for name in ["summary", "description"] {
            let text = &annotations[name];
            assert!(text.len() > 20 && !text.contains('\n'), "{alert}: {name} {text:?}");
        }
        let url = &annotations["runbook_url"];
        let path = url.strip_prefix("file:///usr/share/doc/urlproxy/").unwrap_or_else(|| panic!("{alert}: {url}"));
        let (file, anchor) = path.split_once('#').unwrap();
        let document = fs::read_to_string(root().join("docs").join(file)).unwrap_or_else(|_| panic!("{alert}: {url}"));
        assert!(anchors(&document).contains(anchor), "{alert}: {file} has no heading {anchor}");
        let row = page.lines().find(|line| line.starts_with("| ") && line.contains(&format!("`{alert}`")));
        let row = row.unwrap_or_else(|| panic!("docs/monitoring.md has no row for {alert}"));
        assert!(row.contains(severity.as_str()), "{alert} is {severity}, not {row}");
    }
}

/// The metrics of nginx that the page lists, with their labels, from rows of the form "name, labels, meaning".
fn documented() -> Vec<(String, Vec<String>)> {
    let page = page("monitoring");
    let section = page.split("## Metrics of nginx").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut found = Vec::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `urlproxy_")) {
        let mut cells = row.split('|').map(str::trim);
        let name = format!("urlproxy_{}", cells.next().unwrap().trim_end_matches('`'));
        let labels = cells.next().unwrap().split('`').skip(1).step_by(2).map(str::to_owned);
        let labels: Vec<_> = labels.chain(["table".to_owned()]).collect();
        if cells.next().unwrap().starts_with("histogram") {
            for suffix in ["_bucket", "_sum", "_count"] {
                found.push((format!("{name}{suffix}"), labels.clone()));
            }
        } else {
            found.push((name, labels));
        }
    }
    found
}

/// The metrics and labels that an expression names.
fn named_in(expression: &str) -> (Vec<String>, Vec<String>) {
    let expression = Regex::new(r#""[^"]*"|\[[^\]]*\]"#).unwrap().replace_all(expression, "\"\"");
    let mut labels = Vec::new();
    let selector = Regex::new(r"\{([^}]*)\}").unwrap();
    let key = Regex::new("([A-Za-z_][A-Za-z0-9_]*) *[=!]").unwrap();
    for selected in selector.captures_iter(&expression) {
        labels.extend(key.captures_iter(&selected[1]).map(|found| found[1].to_owned()));
    }
    let expression = selector.replace_all(&expression, " ");
    let grouping = Regex::new(r"(?-u:\b)(by|without|on|ignoring|group_left|group_right) *\(([^)]*)\)").unwrap();
    for grouped in grouping.captures_iter(&expression) {
        labels.extend(grouped[2].split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()));
    }
    let expression = grouping.replace_all(&expression, " ");
    let word = Regex::new(r"(?-u:\b)([A-Za-z_][A-Za-z0-9_]*) *(\()?").unwrap();
    let words = word.captures_iter(&expression).filter(|found| found.get(2).is_none()).map(|found| found[1].to_owned());
    let is_operator = |word: &String| ["and", "or", "unless", "bool", "offset", "group_left"].contains(&word.as_str());
    (words.filter(|word| !is_operator(word)).collect(), labels)
}

#[test]
fn metrics_and_labels_of_expressions_are_found() {
    let (metrics, labels) = named_in(
        r#"sum by (a, b) (rate(x_total{c=~"d|e",f!="g"}[5m])) / on (h) group_left y > bool 0.5 or up offset 1h"#,
    );
    assert_eq!(metrics, ["x_total", "y", "up"]);
    assert_eq!(labels, ["c", "f", "a", "b", "h"]);
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    // Prometheus adds these itself.
    let mut metrics: BTreeSet<String> = ["up", "ALERTS"].map(str::to_owned).into();
    let mut labels: BTreeSet<String> = ["job", "instance", "le", "alertname", "alertstate"].map(str::to_owned).into();
    let nginx = documented();
    assert!(nginx.len() > 30, "{nginx:?}");
    for (name, of_it) in nginx {
        metrics.insert(name);
        labels.extend(of_it);
    }
    let dir = tempfile::tempdir().unwrap();
    let label = Regex::new(r#"[{,]([a-z_]+)=""#).unwrap();
    for daemon in DAEMONS {
        let (_process, status) = start(daemon, &dir);
        let (_, text) = get(status, "/metrics");
        metrics.extend(names(&text).1);
        labels.extend(label.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    let rules = rules().into_iter().map(|rule| (rule.alert, rule.expr));
    let (mut used, mut named) = (BTreeSet::new(), 0);
    for (place, expression) in rules.chain(dashboard_expressions()) {
        let (of_metrics, of_labels) = named_in(&expression);
        assert!(!of_metrics.is_empty(), "{place}: no metric in {expression}");
        for metric in of_metrics {
            named += 1;
            assert!(metrics.contains(&metric), "{place}: no metric {metric}");
            used.insert(metric);
        }
        for label in of_labels {
            assert!(labels.contains(&label), "{place}: no label {label}");
        }
    }
    assert!(named > 100, "only {named} metrics found");
    let unused = metrics.iter().filter(|metric| metric.starts_with("urlproxy_") && !used.contains(*metric));
    let without_use = ["urlproxy_propagation_seconds_count", "urlproxy_propagation_seconds_sum"];
    assert_eq!(unused.collect::<Vec<_>>(), without_use, "metrics of nginx that no rule and no panel uses");
}

#[test]
fn dashboard_is_well_formed() {
    let text = fs::read_to_string(prometheus("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    // Grafana's own identifiers must not be shipped: with an `id` an import would replace another dashboard.
    assert!(dashboard.get("id").is_none() && dashboard["uid"] == "urlproxy");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    let mut titles = BTreeSet::new();
    for panel in panels() {
        let title = panel["title"].as_str().unwrap().to_owned();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: id");
        assert!(titles.insert(title.clone()), "two panels {title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}: width");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} covers another panel");
        }
        if panel["type"] != "row" {
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
            let sources = panel["targets"].as_array().unwrap().iter().chain([&panel]);
            sources.for_each(|source| assert_eq!(source["datasource"]["uid"], "${datasource}", "{title}"));
        }
    }
    assert!(titles.len() > 40, "{titles:?}");
}

#[test]
fn promtool_accepts_the_expressions_of_the_dashboard() {
    if !need_program("promtool", "--version") {
        return;
    }
    let expressions = dashboard_expressions();
    let rules = expressions.iter().enumerate().map(
        |(index, (_, expression))| serde_json::json!({"record": format!("dashboard:{index}"), "expr": expression}),
    );
    let file = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules.collect::<Vec<_>>()}]});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dashboard.json");
    fs::write(&path, file.to_string()).unwrap();
    assert_accepted(&promtool(&["check", "rules", path.to_str().unwrap()], ""), "grafana-dashboard.json");
}

#[test]
fn jq_commands_of_the_page_find_something() {
    if !need_program("jq", "--version") {
        return;
    }
    let request = |tool: &str, status: &str, result: &str, tries: &str, time: f64| {
        serde_json::json!({"time": "2026-11-29T10:00:00+00:00", "client": "192.0.2.7", "host": "h", "method": "GET", "uri": "/",
            "protocol": "HTTP/1.1", "status": status.parse::<u16>().ok(), "bytes": 1, "tool": tool, "domain": "",
            "result": result, "pattern": ".*", "backend": "http://10.0.0.1:8000", "tries": tries, "upstream_status": "200",
            "request_time": time, "connect_time": 0.1, "header_time": 0.1, "response_time": null})
        .to_string()
    };
    let log = [
        request("hello", "503", "route", "10.0.0.1:8000", 0.1),
        request("archive", "200", "default", "10.0.0.1:8000, 10.0.0.2:8000", 9.4),
        request("x\u{9b}31m", "503", "miss", "", 0.0),
        request("gone", "", "miss", "", 0.0),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("urlproxy.json");
    fs::write(&path, log.join("\n") + "\n").unwrap();
    let page = page("monitoring").replace("|\n    jq ", "| jq ");
    let mut commands = 0;
    for line in page.lines().map(|line| line.trim_start_matches("$ ")) {
        if !line.contains("/var/log/nginx/urlproxy.json") || !line.contains("jq -a") || line.starts_with('|') {
            continue;
        }
        commands += 1;
        let command = line.replace("/var/log/nginx/urlproxy.json", path.to_str().unwrap());
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert_accepted(&output, line);
        assert!(!output.stdout.is_empty() && output.stdout.is_ascii(), "{line}: {output:?}");
    }
    assert!(commands >= 8, "only {commands} commands found");
}

#[test]
fn scrape_configuration_has_the_shipped_ports() {
    let text = fs::read_to_string(prometheus("prometheus.yml")).unwrap();
    let page = page("monitoring");
    for (job, port) in [
        ("urlproxy", "8081"),
        ("proxylistener", "9282"),
        ("kube2proxy", "9283"),
        ("invisible-unicorn", "9284"),
        ("webservicemonitor", "9285"),
    ] {
        let scrape = format!("- job_name: {job}\n    static_configs: [{{targets: [\"localhost:{port}\"]}}]\n");
        assert!(text.contains(&scrape), "{job}");
        assert!(page.contains(&format!("| `{job}` | {port} |")), "{job}");
    }
    let shipped = |name: &str| fs::read_to_string(Path::new(root()).join("packaging").join(name)).unwrap();
    for (file, port) in [
        ("etc/proxylistener.settings", "9282"),
        ("systemd/kube2proxy.service", "9283"),
        ("etc/invisible-unicorn.env", "9284"),
        ("etc/webservicemonitor.env", "9285"),
    ] {
        assert!(shipped(file).contains(&format!("metrics-listen 127.0.0.1:{port}")), "{file}");
    }
}
