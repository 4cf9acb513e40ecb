//! One round: observe, judge, decide, save, notify, restart.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::decision::Decision;
use super::environment::grid_command;
use super::human_duration::human_duration;
use super::manifest_scanner::Tool;
use super::metrics::Metrics;
use super::observation::{Assessment, Observation, table};
use super::restart_history::RestartHistory;
use super::service_log::ServiceLogEntry;
use super::settings::Settings;
use super::starter::{Restart, Starter};
use super::state_store::StateStore;
use super::suspend_reason::{SuspendReason, judge};
use crate::clock::unix_seconds;
use crate::grid::Jobs;
use crate::grid::client::read_active_proxies;
use crate::grid::{JobsError, parse_jobs};
use crate::proxy_list::{ListError, Listing};
use crate::subprocess::run;
use crate::tenant::Account;

/// The most of qstat's output, in bytes: 100,000 jobs.
const MAX_QSTAT_BYTES: usize = 64 * 1024 * 1024;
/// For all manifests together; a file system that takes longer suspends the round.
const SCAN_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs rounds.
pub struct Monitor {
    settings: Settings,
    store: StateStore,
    metrics: Metrics,
    stopping: watch::Receiver<bool>,
    /// `None` until it is loaded.
    history: Option<RestartHistory>,
    /// The scan under way. A scan that hangs is not started twice.
    scan: Option<JoinHandle<std::io::Result<Vec<Tool>>>>,
    /// The outcome of the last round, if it was suspended.
    last_suspension: Option<&'static str>,
    /// The last observation was incomplete, so another monitor may hold the history since.
    has_stepped_down: bool,
}

impl Monitor {
    /// A monitor before its first round. It begins no restart once `stopping` is set.
    pub fn new(settings: Settings, store: StateStore, metrics: Metrics, stopping: watch::Receiver<bool>) -> Self {
        Self {
            settings,
            store,
            metrics,
            stopping,
            history: None,
            scan: None,
            last_suspension: None,
            has_stepped_down: false,
        }
    }

    /// Runs a round. Returns whether it was not suspended.
    pub async fn round(&mut self) -> bool {
        let begun = Instant::now();
        let Some((observation, mut suspension)) = self.observe_unless_stopping().await else { return false };
        let now = unix_seconds();
        let is_observation_incomplete = suspension.is_some();
        if is_observation_incomplete && self.has_stepped_down {
            let assessments = observation.decide(&RestartHistory::default(), &self.settings.limits, true, now);
            self.report(&assessments, suspension.as_ref());
            self.metrics.record_round(suspension.as_ref().map(SuspendReason::outcome), begun.elapsed());
            return false;
        }
        let (mut history, is_known) = match self.load_history(now).await {
            Ok(history) => (history, true),
            Err(failed) => {
                suspension = Some(suspension.unwrap_or(failed));
                (RestartHistory::default(), false)
            }
        };
        match observation.counts().filter(|_| suspension.is_none()) {
            Some(counts) => suspension = judge(counts, &mut history, now, &self.settings.accept_file),
            None => {
                history.rounds.listed.interrupt();
                history.rounds.jobs.interrupt();
                history.rounds.wanted.interrupt();
            }
        }
        if suspension.is_none() {
            observation.update_history(&mut history, &self.settings.limits, now);
        }
        let mut assessments = observation.decide(&history, &self.settings.limits, suspension.is_some(), now);
        // Without a history each round would repeat all notices.
        let notices = if is_known { self.new_notices(&assessments, &mut history, now) } else { Vec::new() };
        let saved = if is_known { self.store.save(&history).await } else { Ok(()) };
        match saved {
            Ok(()) if is_known => {
                self.send_notices(notices).await;
                self.history = Some(self.restart_all(restarts_of(&assessments), history, begun).await);
            }
            Ok(()) => {}
            Err(error) => {
                suspension = Some(suspension.unwrap_or(error.into()));
                assessments = observation.decide(&history, &self.settings.limits, true, now);
            }
        }
        // A monitor without facts must not block one that has them.
        self.has_stepped_down = is_observation_incomplete && self.store.step_down().await;
        self.report(&assessments, suspension.as_ref());
        self.metrics.record_round(suspension.as_ref().map(SuspendReason::outcome), begun.elapsed());
        suspension.is_none()
    }

    /// Runs a round that changes nothing. Returns the table of decisions, and whether the round was not suspended.
    pub async fn dry_run(&mut self) -> (String, bool) {
        let (observation, mut suspension) = self.observe().await;
        let now = unix_seconds();
        let mut history = match self.load_history(now).await {
            Ok(history) => history,
            Err(failed) => {
                suspension = Some(suspension.unwrap_or(failed));
                RestartHistory::default()
            }
        };
        if let Some(counts) = observation.counts().filter(|_| suspension.is_none()) {
            suspension = judge(counts, &mut history, now, &self.settings.accept_file);
        }
        if suspension.is_none() {
            observation.update_history(&mut history, &self.settings.limits, now);
        }
        let assessments = observation.decide(&history, &self.settings.limits, suspension.is_some(), now);
        self.report(&assessments, suspension.as_ref());
        (table(&assessments), suspension.is_none())
    }

    /// The pruned history: this monitor's own copy, unless another monitor may have written the stored one.
    async fn load_history(&mut self, now: u64) -> Result<RestartHistory, SuspendReason> {
        let window = self.settings.limits.window;
        let is_same = self.store.acquire().await?;
        let mut history = match self.history.take() {
            Some(history) if is_same => history,
            own => {
                // This monitor's own restarts count, whatever happened to the stored history.
                self.history.clone_from(&own);
                let mut history = self.store.load(now, window).await?;
                if let Some(own) = own {
                    history.merge(own);
                }
                history
            }
        };
        history.prune(now, window);
        // A copy, in case this round cannot save.
        self.history = Some(history.clone());
        Ok(history)
    }

    /// Like [`Self::observe`]; `None` once the monitor is stopping, which does not wait for what hangs.
    async fn observe_unless_stopping(&mut self) -> Option<(Observation, Option<SuspendReason>)> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            observed = self.observe() => Some(observed),
            Ok(_) = stopping.wait_for(|stop| *stop) => None,
        }
    }

    /// Observes manifests, jobs and the proxy's list; with the reason if something is missing.
    async fn observe(&mut self) -> (Observation, Option<SuspendReason>) {
        // The result of an earlier round's scan is out of date.
        self.scan.take_if(|scan| scan.is_finished());
        let is_old = self.scan.is_some();
        let scanner = self.settings.scanner.clone();
        let scan = self.scan.get_or_insert_with(|| tokio::task::spawn_blocking(move || scanner.scan()));
        let settings = &self.settings;
        let (tools, jobs, listed) =
            tokio::join!(timeout(SCAN_TIMEOUT, scan), fetch_jobs(settings), fetch_listing(settings));
        let mut suspension = None;
        let mut observation = Observation::default();
        let tools = match tools {
            Ok(joined) => {
                self.scan = None;
                let joined = joined.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                if is_old {
                    Err(SuspendReason::SlowManifests(SCAN_TIMEOUT))
                } else {
                    joined.map_err(SuspendReason::Manifests)
                }
            }
            Err(_) => Err(SuspendReason::SlowManifests(SCAN_TIMEOUT)),
        };
        let mut suspend = |reason: SuspendReason| suspension = Some(reason);
        // The last failure is reported, so the order is from the least to the most significant.
        self.metrics.set_list_age(match &listed {
            Ok(listing) => listing.age,
            Err(ListError::Old { age, .. }) => Some(*age),
            Err(_) => None,
        });
        match listed {
            Ok(listing) => observation.listed = Some(listing.tools),
            Err(error) => suspend(error.into()),
        }
        match jobs {
            Ok(jobs) => observation.jobs = Some(jobs),
            Err(reason) => suspend(reason),
        }
        match tools {
            Ok(tools) => observation.tools = tools,
            Err(reason) => suspend(reason),
        }
        (observation, suspension)
    }

    /// Notices for maintainers that are new in this round, each with its tool and the tool's account.
    fn new_notices<'a>(
        &self,
        assessments: &[Assessment<'a>],
        history: &mut RestartHistory,
        now: u64,
    ) -> Vec<(&'a Account, &'a str, String)> {
        let limits = self.settings.limits;
        let (most, window) = (limits.max_restarts, human_duration(limits.window));
        let mut notices = Vec::new();
        for assessment in assessments {
            let (name, Some(account)) = (&assessment.tool.name, &assessment.tool.account) else { continue };
            let (kind, text) = match (&assessment.tool.manifest, assessment.decision) {
                (Err(skip), _) if skip.is_maintainer_mistake() => {
                    (skip.reason(), format!("The web service is not monitored: {skip}."))
                }
                (Ok(_), Decision::Throttled(cause)) => {
                    let until = jiff::Timestamp::from_second(history.next_restart_at(name, most, limits.window) as i64);
                    let until = until.map_or_else(|_| "later".into(), |until| until.to_string());
                    let text = format!(
                        "The web service is {cause} and was restarted {most} times within {window}: no more restarts until \
                         {until}. Its own logs say why it ends; `webservice restart` starts it at once."
                    );
                    ("throttled", text)
                }
                _ => continue,
            };
            if history.record_notice(name, kind, now) {
                warn!(tool = name, reason = kind, "tool not restarted; its service.log tells the maintainer why");
                notices.push((account, name.as_str(), text));
            }
        }
        notices
    }

    async fn send_notices(&self, notices: Vec<(&Account, &str, String)>) {
        let all = stream::iter(notices).map(|(account, tool, text)| self.append_to_service_log(account, tool, text));
        all.buffer_unordered(self.settings.limits.parallel).collect().await
    }

    async fn append_to_service_log(&self, account: &Account, tool: &str, text: String) {
        let home = self.settings.scanner.glob.home(tool);
        ServiceLogEntry { account, home: &home, text }.write().await;
    }

    /// Restarts these tools. Returns the history with the restarts.
    async fn restart_all(
        &self,
        restarts: Vec<Restart<'_>>,
        history: RestartHistory,
        observed_at: Instant,
    ) -> RestartHistory {
        let Self { settings, store, metrics, stopping, .. } = self;
        let starter = Starter { settings, metrics, stopping, store, history: Mutex::new(history) };
        starter.restart_all(restarts, observed_at).await;
        starter.history.into_inner()
    }

    /// Releases the history for other monitors.
    pub async fn release(&self) {
        self.store.release().await;
    }

    fn report(&mut self, assessments: &[Assessment<'_>], suspension: Option<&SuspendReason>) {
        let outcome = suspension.map(SuspendReason::outcome);
        match (suspension, std::mem::replace(&mut self.last_suspension, outcome)) {
            (Some(suspension), before) if before == outcome => debug!(error = %suspension, "round still suspended"),
            (Some(suspension), _) => error!(error = %suspension, "round suspended; nothing is restarted"),
            (None, Some(_)) => info!("rounds resumed; restarting what is down"),
            (None, None) => {}
        }
        let skips = || {
            assessments
                .iter()
                .filter_map(|assessment| assessment.tool.manifest.as_ref().err().map(|skip| (assessment, skip)))
        };
        for (assessment, skip) in skips() {
            debug!(tool = assessment.tool.name, why = %skip, "tool skipped");
        }
        self.metrics.set_decisions(
            assessments.iter().map(|assessment| assessment.decision),
            skips().map(|(_, skip)| skip.reason()),
        );
    }
}

/// The tools to restart, in order.
fn restarts_of<'a>(assessments: &[Assessment<'a>]) -> Vec<Restart<'a>> {
    let mut assessments: Vec<&Assessment<'a>> = assessments.iter().collect();
    assessments.sort_by_key(|assessment| assessment.order);
    let restarts = assessments.into_iter().filter_map(|assessment| {
        let (Decision::Restart(cause), Ok(manifest), Some(account)) =
            (assessment.decision, &assessment.tool.manifest, &assessment.tool.account)
        else {
            return None;
        };
        Some(Restart { tool: &assessment.tool.name, account, manifest, cause })
    });
    restarts.collect()
}

async fn fetch_jobs(settings: &Settings) -> Result<Jobs, SuspendReason> {
    let (words, limit) = &settings.qstat;
    let command = grid_command(words).ok_or(JobsError::NoRoot)?;
    let output = run(command, *limit, MAX_QSTAT_BYTES).await?;
    Ok(Jobs::new(parse_jobs(&output)?, unix_seconds()))
}

async fn fetch_listing(settings: &Settings) -> Result<Listing, ListError> {
    let (url, proxies, limit) = &settings.list;
    let proxies = if url.is_for_each_proxy() { read_active_proxies(proxies)? } else { Vec::new() };
    url.fetch(&proxies, *limit, settings.max_list_age).await
}
