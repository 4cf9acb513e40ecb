//! The tool's home, where its server runs, as in the old stack.

use std::env;

use rustix::process::geteuid;
use tracing::warn;
use uzers::get_user_by_uid;
use uzers::os::unix::UserExt;

/// Makes the home of whoever runs this the directory of this process and of the command. Where that cannot be, the directory
/// stays, and the log says so.
pub fn enter() {
    let uid = geteuid().as_raw();
    let here = || env::current_dir().unwrap_or_default();
    let Some(user) = get_user_by_uid(uid) else {
        warn!("the system knows no user {uid}, so no home: the command runs in {:?}", here());
        return;
    };
    let home = user.home_dir();
    if let Err(error) = env::set_current_dir(home) {
        warn!("{error} while entering the home {home:?}: the command runs in {:?}", here());
    }
}
