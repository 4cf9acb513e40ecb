//! Who runs a command: for audit logs and origins.

use rustix::process::getuid;
use uzers::get_user_by_uid;

/// The user who runs the command, and the user who called sudo: `user NAME (sudo CALLER)`.
pub fn calling_user() -> String {
    let uid = getuid().as_raw();
    let name = get_user_by_uid(uid).and_then(|user| user.name().to_str().map(str::to_owned));
    let user = format!("user {}", name.unwrap_or_else(|| uid.to_string()));
    // Any user can set the variable; it is trusted for root only.
    let caller = std::env::var("SUDO_USER").ok().filter(|caller| uid == 0 && is_user(caller));
    caller.map_or(user.clone(), |caller| format!("{user} (sudo {caller})"))
}

fn is_user(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-@\\".contains(&byte))
}
