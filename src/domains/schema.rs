//! The database's schema, and migrations from earlier versions.

use rusqlite::{Connection, TransactionBehavior};

use super::ownership;

/// "urlp": identifies this program's databases.
pub(super) const APPLICATION_ID: i32 = 0x7572_6c70;

/// Step N-1 migrates version N-1 to N; released steps never change.
const STEPS: [&str; 3] = [
    "CREATE TABLE project(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
     -- AUTOINCREMENT: sqlite_sequence then shows whether there ever was a domain.
     CREATE TABLE domain(
         id INTEGER PRIMARY KEY AUTOINCREMENT,
         name TEXT NOT NULL UNIQUE,
         project INTEGER NOT NULL REFERENCES project(id)
     ) STRICT;
     CREATE INDEX domain_by_project ON domain(project);
     CREATE TABLE backend(
         id INTEGER PRIMARY KEY,
         domain INTEGER NOT NULL REFERENCES domain(id) ON DELETE CASCADE,
         url TEXT NOT NULL,
         UNIQUE(domain, url)
     ) STRICT;
     CREATE TABLE token(
         id INTEGER PRIMARY KEY AUTOINCREMENT,
         hash BLOB NOT NULL UNIQUE,
         project INTEGER NOT NULL REFERENCES project(id),
         created INTEGER NOT NULL,
         revoked INTEGER
     ) STRICT;
     CREATE INDEX token_by_project ON token(project);
     -- Changed domains that are not replicated to Redis yet. A later change of a domain replaces the earlier one.
     CREATE TABLE outbox(seq INTEGER PRIMARY KEY AUTOINCREMENT, domain TEXT NOT NULL UNIQUE) STRICT;
     CREATE TABLE audit(
         id INTEGER PRIMARY KEY AUTOINCREMENT,
         at INTEGER NOT NULL,
         who TEXT NOT NULL,
         project TEXT NOT NULL,
         action TEXT NOT NULL,
         domain TEXT NOT NULL,
         before TEXT,
         after TEXT
     ) STRICT;",
    "-- Facts that have no other table, e.g. 'adopted'.
     CREATE TABLE mark(name TEXT PRIMARY KEY) STRICT;",
    "-- A domain's labels from the right, e.g. \"org.example.www.\"; a wildcard has those of its parent. Subdomains sort directly
-- after their domain. NULL in rows of other programs, until this program fills it.
     ALTER TABLE domain ADD COLUMN labels TEXT;
     CREATE INDEX domain_by_labels ON domain(labels, project);
     -- The number of domains, and the size of the audit log: each change needs them, and must not count all rows.
     CREATE TABLE total(name TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT;
     INSERT INTO total SELECT 'domains', count(*) FROM domain;
     INSERT INTO total SELECT 'audit_bytes', coalesce(sum(
         64 + octet_length(who) + octet_length(project) + octet_length(action) + octet_length(domain)
         + coalesce(octet_length(before), 0) + coalesce(octet_length(after), 0)), 0) FROM audit;
     CREATE TRIGGER domain_added AFTER INSERT ON domain BEGIN
         UPDATE total SET number = number + 1 WHERE name = 'domains';
     END;
     CREATE TRIGGER domain_removed AFTER DELETE ON domain BEGIN
         UPDATE total SET number = number - 1 WHERE name = 'domains';
     END;
     -- Without octet_length, as SQLite before 3.43 may write here too.
     CREATE TRIGGER audit_added AFTER INSERT ON audit BEGIN
         UPDATE total SET number = number + 64 + length(CAST(
             NEW.who || NEW.project || NEW.action || NEW.domain || coalesce(NEW.before, '') || coalesce(NEW.after, '') AS BLOB))
         WHERE name = 'audit_bytes';
     END;
     CREATE TRIGGER audit_removed AFTER DELETE ON audit BEGIN
         UPDATE total SET number = number - 64 - length(CAST(
             OLD.who || OLD.project || OLD.action || OLD.domain || coalesce(OLD.before, '') || coalesce(OLD.after, '') AS BLOB))
         WHERE name = 'audit_bytes';
     END;",
];

/// The schema version of this program.
pub(super) const VERSION: i32 = STEPS.len() as i32;

/// Migrates a database to [`VERSION`], one transaction per step. Repeated or concurrent calls change nothing.
///
/// # Errors
/// SQLite's; the database keeps the version of the last successful step.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    for (index, step) in STEPS.iter().enumerate() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i32 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if usize::try_from(version).is_ok_and(|version| version == index) {
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", version + 1)?;
            transaction.commit()?;
        }
    }
    ownership::fill_missing_labels(connection)
}
