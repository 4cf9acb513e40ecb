//! The home directory of the tool, where its server runs, as in the old stack.

use std::env;

use rustix::process::geteuid;
use tracing::warn;
use uzers::get_user_by_uid;
use uzers::os::unix::UserExt;

/// Changes to the home directory of the effective user, for this process and the command. On failure stays where it is, and
/// logs that.
pub fn enter() {
    let uid = geteuid().as_raw();
    let here = || env::current_dir().unwrap_or_default();
    let Some(user) = get_user_by_uid(uid) else {
        warn!("uid {uid} has no account, so no home; running the command in {:?}", here());
        return;
    };
    let home = user.home_dir();
    if let Err(error) = env::set_current_dir(home) {
        warn!("{error} while changing to the home {home:?}; running the command in {:?}", here());
    }
}
