//! Which user a tool is.

use uzers::get_user_by_name;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `<project>.<tool>`.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// That of its own group.
    pub gid: u32,
}

/// Knows users by their names; `None` is no such user, or a directory service that does not answer.
pub trait Accounts {
    /// The user of that name.
    fn find(&self, name: &str) -> Option<Account>;
}

/// Those that the system knows (`/etc/nsswitch.conf`).
#[derive(Clone, Copy, Debug)]
pub struct SystemAccounts;

impl Accounts for SystemAccounts {
    fn find(&self, name: &str) -> Option<Account> {
        let user = get_user_by_name(name)?;
        Some(Account { name: name.to_owned(), uid: user.uid(), gid: user.primary_group_id() })
    }
}
