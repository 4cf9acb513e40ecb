//! The commands, one file each.

mod accept;
mod check;
mod delete;
mod diff;
mod drain;
mod explain;
mod export;
mod import;
mod list;
mod lua;
mod programs;
mod rejected;
mod set;
mod status;
mod top;
mod watch;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::api::{Changes, Explanation, RejectedList, RoutesPage, Status, Tools};
use super::console::Console;
use super::options::{Command, Options};
use super::outcome::{Answer, CtlError};
use super::settings::Settings;

/// Runs a command.
///
/// # Errors
/// Every [`CtlError`].
pub async fn execute(options: Options, console: &mut Console) -> Result<Answer, CtlError> {
    match options.command {
        Command::Completions { shell, program } => return programs::completions(console, shell, program.as_deref()),
        Command::Man { program } => return programs::man(console, program.as_deref()),
        _ => {}
    }
    let settings = options.common.resolve()?;
    let redis = settings.redis_name();
    ask(options.command, settings, console).await.map_err(|error| error.at(&redis))
}

async fn ask(command: Command, settings: Settings, console: &mut Console) -> Result<Answer, CtlError> {
    match command {
        Command::List(list) => list::run(&settings.admin, console, &list).await,
        Command::Lookup { url } => explain::lookup(&settings.admin, console, &url).await,
        Command::Explain { url } => explain::explain(&settings.admin, console, &url).await,
        Command::Status => status::run(&settings.admin, console).await,
        Command::Rejected => rejected::run(&settings.admin, console).await,
        Command::Watch { after, count } => watch::run(&settings.admin, console, after, count).await,
        Command::AcceptWithdrawal { tools, file, timeout } => {
            accept::run(&settings.admin, console, &tools, file, timeout).await
        }
        Command::Drain(drain) => drain::run(&settings.admin, console, drain).await,
        Command::Top(top) => top::run(&settings.admin, console, top).await,
        Command::Diff { snapshot } => diff::run(settings, console, snapshot).await,
        Command::Set(set) => set::run(&settings.store()?.1, console, set).await,
        Command::Delete { tool, pattern, yes } => {
            delete::run(&settings.store()?.1, console, &tool, pattern.as_deref(), yes).await
        }
        Command::Check(check) => check::run(&settings.store()?.1, console, check).await,
        Command::Export { output } => export::run(&settings.store()?.1, console, output.as_deref()).await,
        Command::Import(import) => import::run(&settings.store()?.1, console, import).await,
        Command::Completions { .. } | Command::Man { .. } => Ok(Answer::Positive),
    }
}

/// What commands print of a page of the admin API, whichever page it is, line by line.
#[doc(hidden)]
pub fn shown(page: &Value) -> Vec<String> {
    fn read<T: DeserializeOwned>(page: &Value) -> Option<T> {
        T::deserialize(page).ok()
    }
    let mut lines = Vec::new();
    lines.extend(read::<Status>(page).iter().flat_map(status::lines));
    lines.extend(read::<RoutesPage>(page).iter().flat_map(|page| list::text_table(&page.items).lines()));
    lines.extend(read::<Tools>(page).iter().flat_map(|tools| top::text_table(tools).lines()));
    lines.extend(read::<RejectedList>(page).iter().flat_map(|list| rejected::text_table(list).lines()));
    lines.extend(read::<Changes>(page).iter().flat_map(|changes| changes.items.iter().map(watch::line)));
    lines.extend(
        read::<Explanation>(page).iter().flat_map(|explanation| explanation.decisions.iter().flat_map(explain::steps)),
    );
    lines
}
