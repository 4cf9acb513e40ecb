//! Users of the system by name.

use uzers::get_user_by_name;

/// Lower uids are system accounts.
pub const MIN_UID: u32 = 50_000;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `<project>.<tool>`.
    pub name: String,
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
}

/// A user database.
pub trait Accounts {
    /// The user of that name; `None` if there is none, or if the directory service does not answer.
    fn find(&self, name: &str) -> Option<Account>;
}

/// The system's users (`/etc/nsswitch.conf`).
#[derive(Clone, Copy, Debug)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn find(&self, name: &str) -> Option<Account> {
        let user = get_user_by_name(name)?;
        Some(Account { name: name.to_owned(), uid: user.uid(), gid: user.primary_group_id() })
    }
}
