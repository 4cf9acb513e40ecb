//! One round: look, judge, decide, remember, tell, restart.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::account::Account;
use super::brake::{Brake, judge};
use super::clock::words_of;
use super::command::run;
use super::decision::Decision;
use super::environment::grid_command;
use super::jobs::Jobs;
use super::keeper::Keeper;
use super::listing::{ListError, Listing};
use super::memory::Memory;
use super::metrics::Metrics;
use super::picture::{Line, Picture, table};
use super::qstat::{JobsError, parse_jobs};
use super::service_log::Note;
use super::settings::Settings;
use super::starter::{Restart, Starter};
use super::survey::Tool;
use crate::clock::unix_seconds;
use crate::grid::client::read_active_proxies;

/// What is read of qstat, in bytes: 100,000 jobs.
const MAX_QSTAT_BYTES: usize = 64 * 1024 * 1024;
/// For all manifests. A file system that takes longer is not waited for.
const SURVEY_LIMIT: Duration = Duration::from_secs(60);

/// Goes round.
pub struct Monitor {
    settings: Settings,
    keeper: Keeper,
    metrics: Metrics,
    stopping: watch::Receiver<bool>,
    /// `None` until it has been loaded.
    memory: Option<Memory>,
    /// One that hangs is not begun twice.
    survey: Option<JoinHandle<std::io::Result<Vec<Tool>>>>,
    /// What braked the last round.
    braked: Option<&'static str>,
    /// The last round could not look, and another monitor may have the memory since.
    has_stood_down: bool,
}

impl Monitor {
    /// One that has done nothing yet; it begins no restart once `stopping`.
    pub fn new(settings: Settings, keeper: Keeper, metrics: Metrics, stopping: watch::Receiver<bool>) -> Self {
        Self { settings, keeper, metrics, stopping, memory: None, survey: None, braked: None, has_stood_down: false }
    }

    /// Goes once, and tells whether it was not braked.
    pub async fn round(&mut self) -> bool {
        let begun = Instant::now();
        let Some((picture, mut brake)) = self.look_unless_stopping().await else { return false };
        let now = unix_seconds();
        let is_blind = brake.is_some();
        if is_blind && self.has_stood_down {
            let lines = picture.decide(&Memory::default(), &self.settings.pace, true, now);
            self.report(&lines, brake.as_ref());
            self.metrics.round_ended(brake.as_ref().map(Brake::outcome), begun.elapsed());
            return false;
        }
        let (mut memory, is_known) = match self.remember(now).await {
            Ok(memory) => (memory, true),
            Err(failed) => {
                brake = Some(brake.unwrap_or(failed));
                (Memory::default(), false)
            }
        };
        match picture.counts().filter(|_| brake.is_none()) {
            Some(counts) => brake = judge(counts, &mut memory, now, &self.settings.accept_file),
            None => {
                memory.rounds.listed.interrupt();
                memory.rounds.jobs.interrupt();
                memory.rounds.wanted.interrupt();
            }
        }
        if brake.is_none() {
            picture.note(&mut memory, &self.settings.pace, now);
        }
        let mut lines = picture.decide(&memory, &self.settings.pace, brake.is_some(), now);
        // Without a memory the same would be told in every round.
        let notes = if is_known { self.notes(&lines, &mut memory, now) } else { Vec::new() };
        let kept = if is_known { self.keeper.save(&memory).await } else { Ok(()) };
        match kept {
            Ok(()) if is_known => {
                self.tell(notes).await;
                self.memory = Some(self.restart_all(restarts_of(&lines), memory, begun).await);
            }
            Ok(()) => {}
            Err(error) => {
                brake = Some(brake.unwrap_or(error.into()));
                lines = picture.decide(&memory, &self.settings.pace, true, now);
            }
        }
        // One that sees nothing must not keep out one that does.
        self.has_stood_down = is_blind && self.keeper.stand_down().await;
        self.report(&lines, brake.as_ref());
        self.metrics.round_ended(brake.as_ref().map(Brake::outcome), begun.elapsed());
        brake.is_none()
    }

    /// Goes once without changing anything; the table of what it would do, and whether it was not braked.
    pub async fn rehearse(&mut self) -> (String, bool) {
        let (picture, mut brake) = self.look().await;
        let now = unix_seconds();
        let mut memory = match self.remember(now).await {
            Ok(memory) => memory,
            Err(failed) => {
                brake = Some(brake.unwrap_or(failed));
                Memory::default()
            }
        };
        if let Some(counts) = picture.counts().filter(|_| brake.is_none()) {
            brake = judge(counts, &mut memory, now, &self.settings.accept_file);
        }
        if brake.is_none() {
            picture.note(&mut memory, &self.settings.pace, now);
        }
        let lines = picture.decide(&memory, &self.settings.pace, brake.is_some(), now);
        self.report(&lines, brake.as_ref());
        (table(&lines), brake.is_none())
    }

    /// The memory, settled: this monitor's own, as long as nobody else can have written what is kept.
    async fn remember(&mut self, now: u64) -> Result<Memory, Brake> {
        let window = self.settings.pace.window;
        let is_same = self.keeper.claim().await?;
        let mut memory = match self.memory.take() {
            Some(memory) if is_same => memory,
            own => {
                // What this monitor did itself counts, whatever has become of what was kept.
                self.memory.clone_from(&own);
                let mut memory = self.keeper.load(now, window).await?;
                if let Some(own) = own {
                    memory.merge(own);
                }
                memory
            }
        };
        memory.settle(now, window);
        // Until this round is over, and so that a round that cannot save still knows what it had.
        self.memory = Some(memory.clone());
        Ok(memory)
    }

    /// The same; `None` once the monitor is to end: what hangs is not waited for.
    async fn look_unless_stopping(&mut self) -> Option<(Picture, Option<Brake>)> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            seen = self.look() => Some(seen),
            Ok(_) = stopping.wait_for(|stop| *stop) => None,
        }
    }

    /// Everything there is to know, and why it is not all.
    async fn look(&mut self) -> (Picture, Option<Brake>) {
        // One of an earlier round tells what was then.
        self.survey.take_if(|survey| survey.is_finished());
        let is_old = self.survey.is_some();
        let surveyor = self.settings.surveyor.clone();
        let survey = self.survey.get_or_insert_with(|| tokio::task::spawn_blocking(move || surveyor.survey()));
        let settings = &self.settings;
        let (tools, jobs, listed) =
            tokio::join!(timeout(SURVEY_LIMIT, survey), ask_grid(settings), ask_proxy(settings));
        let mut brake = None;
        let mut picture = Picture::default();
        let tools = match tools {
            Ok(joined) => {
                self.survey = None;
                let joined = joined.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                if is_old { Err(Brake::SlowManifests(SURVEY_LIMIT)) } else { joined.map_err(Brake::Manifests) }
            }
            Err(_) => Err(Brake::SlowManifests(SURVEY_LIMIT)),
        };
        let mut keep = |failed: Brake| brake = Some(failed);
        // The last that failed is named, so the order is from the least to the most telling.
        self.metrics.list_age(match &listed {
            Ok(listing) => listing.age,
            Err(ListError::Old { age, .. }) => Some(*age),
            Err(_) => None,
        });
        match listed {
            Ok(listing) => picture.listed = Some(listing.tools),
            Err(error) => keep(error.into()),
        }
        match jobs {
            Ok(jobs) => picture.jobs = Some(jobs),
            Err(failed) => keep(failed),
        }
        match tools {
            Ok(tools) => picture.tools = tools,
            Err(failed) => keep(failed),
        }
        (picture, brake)
    }

    /// What maintainers are to be told before anything is done.
    fn notes<'a>(&self, lines: &[Line<'a>], memory: &mut Memory, now: u64) -> Vec<(&'a Account, &'a str, String)> {
        let pace = self.settings.pace;
        let (most, window) = (pace.max_restarts, words_of(pace.window));
        let mut notes = Vec::new();
        for line in lines {
            let (name, Some(account)) = (&line.tool.name, &line.tool.account) else { continue };
            let (what, text) = match (&line.tool.manifest, line.decision) {
                (Err(skip), _) if skip.is_maintainers() => {
                    (skip.reason(), format!("The web service is not looked after: {skip}."))
                }
                (Ok(_), Decision::Throttled(cause)) => {
                    let until = jiff::Timestamp::from_second(memory.free_at(name, most, pace.window) as i64);
                    let until = until.map_or_else(|_| "later".into(), |until| until.to_string());
                    let text = format!(
                        "The web service is {cause}, and has been restarted {most} times within {window}: it is left alone \
                         until {until}. See why it ends, in its own logs; `webservice restart` starts it at once."
                    );
                    ("throttled", text)
                }
                _ => continue,
            };
            if memory.is_news(name, what, now) {
                warn!(tool = name, what, "left alone, and its maintainer is told");
                notes.push((account, name.as_str(), text));
            }
        }
        notes
    }

    async fn tell(&self, notes: Vec<(&Account, &str, String)>) {
        let all = stream::iter(notes).map(|(account, tool, text)| self.note(account, tool, text));
        all.buffer_unordered(self.settings.pace.parallel).collect().await
    }

    async fn note(&self, account: &Account, tool: &str, text: String) {
        let home = self.settings.surveyor.places.home(tool);
        Note { account, home: &home, text }.write().await;
    }

    /// Restarts these; what is remembered then.
    async fn restart_all(&self, restarts: Vec<Restart<'_>>, memory: Memory, seen: Instant) -> Memory {
        let Self { settings, keeper, metrics, stopping, .. } = self;
        let starter = Starter { settings, metrics, stopping, keeper, memory: Mutex::new(memory) };
        starter.restart_all(restarts, seen).await;
        starter.memory.into_inner()
    }

    /// Gives the memory back, so that another monitor may go by it.
    pub async fn end(&self) {
        self.keeper.release().await;
    }

    fn report(&mut self, lines: &[Line<'_>], brake: Option<&Brake>) {
        let braked = brake.map(Brake::outcome);
        match (brake, std::mem::replace(&mut self.braked, braked)) {
            (Some(brake), before) if before == braked => debug!(error = %brake, "nothing is restarted"),
            (Some(brake), _) => error!(error = %brake, "nothing is restarted"),
            (None, Some(_)) => info!("restarting again what should run"),
            (None, None) => {}
        }
        let skips = || lines.iter().filter_map(|line| line.tool.manifest.as_ref().err().map(|skip| (line, skip)));
        for (line, skip) in skips() {
            debug!(tool = line.tool.name, why = %skip, "skipped");
        }
        self.metrics.decided(lines.iter().map(|line| line.decision), skips().map(|(_, skip)| skip.reason()));
    }
}

/// Those that are restarted, in the order of their turns.
fn restarts_of<'a>(lines: &[Line<'a>]) -> Vec<Restart<'a>> {
    let mut lines: Vec<&Line<'a>> = lines.iter().collect();
    lines.sort_by_key(|line| line.turn);
    let restarts = lines.into_iter().filter_map(|line| {
        let (Decision::Restart(cause), Ok(manifest), Some(account)) =
            (line.decision, &line.tool.manifest, &line.tool.account)
        else {
            return None;
        };
        Some(Restart { tool: &line.tool.name, account, manifest, cause })
    });
    restarts.collect()
}

async fn ask_grid(settings: &Settings) -> Result<Jobs, Brake> {
    let (words, limit) = &settings.qstat;
    let command = grid_command(words).ok_or(JobsError::NoRoot)?;
    let output = run(command, *limit, MAX_QSTAT_BYTES).await?;
    Ok(Jobs::new(parse_jobs(&output)?, unix_seconds()))
}

async fn ask_proxy(settings: &Settings) -> Result<Listing, ListError> {
    let (url, proxies, limit) = &settings.list;
    let proxies = if url.is_for_each_proxy() { read_active_proxies(proxies)? } else { Vec::new() };
    url.fetch(&proxies, *limit, settings.max_list_age).await
}
