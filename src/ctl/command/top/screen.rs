//! The live screen of `top`: polls nginx, takes keys, restores the terminal at the end.

use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::state::{Next, State};
use super::view::draw;
use super::{Sample, ask};
use crate::ctl::admin_client::{AdminClient, AdminError};
use crate::ctl::options::TopOptions;
use crate::ctl::outcome::CtlError;

/// Tools that are asked for; the screen shows those that fit, and scrolls.
const LIMIT: u16 = 200;
/// Time for one round of requests.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// Shows tools until the operator quits, or a signal ends the program.
pub async fn run(admin: &AdminClient, options: &TopOptions) -> Result<(), CtlError> {
    let mut signals = signals()?;
    // Restores the terminal on panics, too.
    let mut terminal = ratatui::try_init().map_err(CtlError::failed)?;
    let shown = show(admin, options, &mut terminal, &mut signals).await;
    ratatui::restore();
    shown
}

/// Receives an item when a signal asks the program to end.
fn signals() -> Result<mpsc::Receiver<()>, CtlError> {
    let (sender, receiver) = mpsc::channel(1);
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()] {
        let mut received = signal(kind).map_err(CtlError::failed)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            received.recv().await;
            let _ = sender.send(()).await;
        });
    }
    Ok(receiver)
}

/// Receives keys. The thread blocks on the terminal, and ends with the program.
fn events() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn show(
    admin: &AdminClient,
    options: &TopOptions,
    terminal: &mut DefaultTerminal,
    signals: &mut mpsc::Receiver<()>,
) -> Result<(), CtlError> {
    let has_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut state = State::new(options.sort, &options.search);
    let mut events = events();
    let mut ticks = interval(options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // One request at a time; its answer counts if the question is still the same.
    let (answers, mut answered) = mpsc::channel(1);
    let mut is_asking = false;
    let mut ask_again = false;
    loop {
        terminal.draw(|frame| draw(frame, &state, has_color)).map_err(CtlError::failed)?;
        tokio::select! {
            _ = signals.recv() => return Ok(()),
            event = events.recv() => match event.map(|event| state.take(&event)) {
                None | Some(Next::Quit) => return Ok(()),
                Some(Next::Ask) => ask_again = true,
                Some(Next::Draw | Next::Nothing) => {}
            },
            _ = ticks.tick() => ask_again = true,
            Some(answer) = answered.recv() => {
                is_asking = false;
                take(&mut state, answer);
            }
        }
        if ask_again && !is_asking {
            (is_asking, ask_again) = (true, false);
            let (admin, answers) = (admin.clone(), answers.clone());
            let (sort, search) = (state.sort, state.search.clone());
            tokio::spawn(async move {
                let answer = timeout(ROUND_TIMEOUT, ask(&admin, sort.as_str(), &search, LIMIT)).await;
                // Fails only at the end of the program.
                let _ = answers.send(answer.map_err(|_| "nginx does not answer in time".to_owned())).await;
            });
        }
    }
}

fn take(state: &mut State, answer: Result<Result<Sample, AdminError>, String>) {
    match answer.and_then(|answer| answer.map_err(|error| error.to_string())) {
        Ok(sample) => {
            state.selected = state.selected.min(sample.tools.items.len().saturating_sub(1));
            state.sample = Some(sample);
            state.error = None;
        }
        // The last sample stays on the screen.
        Err(error) => state.error = Some(error),
    }
}
