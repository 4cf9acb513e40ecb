//! The audit log: who changed what, and when. Each row is written in the transaction of its change.

use std::time::Duration;

use rusqlite::{Transaction, params};

use super::mapping::Mapping;
use crate::clock;

/// Rows older than this are removed.
const RETENTION: Duration = Duration::from_secs(400 * 24 * 3600);
/// Limits of one pruning step, as changes wait for the step's transaction. It removes no further row after this many bytes.
const MAX_ROWS_PER_STEP: i64 = 200;
const MAX_BYTES_PER_STEP: i64 = 1 << 20;

/// The oldest rows with their sizes, as the triggers of `audit_bytes` count them. `octet_length` does not read large columns.
const OLDEST: &str = "SELECT id, at, 64 + octet_length(who) + octet_length(project) + octet_length(action)
         + octet_length(domain) + coalesce(octet_length(before), 0) + coalesce(octet_length(after), 0)
     FROM audit ORDER BY id LIMIT ?";
const REMOVE: &str = "DELETE FROM audit WHERE id <= ?";

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Put,
    Replace,
    Rename,
    Delete,
    MoveAway,
    MoveHere,
    Import,
    CreateToken,
    RevokeToken,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Replace => "replace",
            Self::Rename => "rename",
            Self::Delete => "delete",
            Self::MoveAway => "move away",
            Self::MoveHere => "move here",
            Self::Import => "import",
            Self::CreateToken => "create token",
            Self::RevokeToken => "revoke token",
        }
    }
}

/// Who changes which project.
#[derive(Clone, Copy, Debug)]
pub(super) struct Author<'a> {
    pub who: &'a str,
    pub project: &'a str,
    /// Operators may map reserved domains, and domains above or below another project's.
    pub is_operator: bool,
}

/// One change. For a token, `domain` is `token <id>`.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub author: Author<'a>,
    pub action: Action,
    pub domain: &'a str,
    pub before: Option<Mapping>,
    pub after: Option<Mapping>,
}

/// A row of the audit log, as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Seconds since 1970, as the database has them.
    pub at: i64,
    pub who: String,
    pub project: String,
    pub action: String,
    pub domain: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Writes a change to the audit log.
pub(super) fn record(transaction: &Transaction<'_>, entry: &Entry<'_>) -> rusqlite::Result<()> {
    // Strings can always be written as JSON.
    let json = |mapping: &Option<Mapping>| mapping.as_ref().and_then(|mapping| serde_json::to_string(mapping).ok());
    let Author { who, project, .. } = entry.author;
    let (before, after) = (json(&entry.before), json(&entry.after));
    let mut insert = transaction.prepare_cached(
        "INSERT INTO audit(at, who, project, action, domain, before, after) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    insert.execute(params![unix_now(), who, project, entry.action.as_str(), entry.domain, before, after])?;
    Ok(())
}

/// The latest `limit` rows, of one project or domain if given; oldest first.
pub(super) fn read(
    transaction: &Transaction<'_>,
    project: Option<&str>,
    domain: Option<&str>,
    limit: u32,
) -> rusqlite::Result<Vec<Row>> {
    let mut query = transaction.prepare(
        "SELECT at, who, project, action, domain, before, after FROM audit
         WHERE (?1 IS NULL OR project = ?1)
           AND (?2 IS NULL OR domain = ?2 OR json_extract(after, '$.domain') = ?2)
         ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = query.query_map(params![project, domain, limit], |row| {
        let (at, who, project, action) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Row { at, who, project, action, domain: row.get(4)?, before: row.get(5)?, after: row.get(6)? })
    })?;
    let mut rows: Vec<Row> = rows.collect::<rusqlite::Result<_>>()?;
    rows.reverse();
    Ok(rows)
}

/// Limits of the audit log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows before this time are removed, in seconds since 1970.
    pub oldest: i64,
    /// The oldest rows are removed until the rest has at most this many bytes.
    pub max_bytes: i64,
}

impl Limits {
    /// The limits at this time.
    pub(super) fn now(max_bytes: i64) -> Self {
        let oldest = unix_now().saturating_sub(i64::try_from(RETENTION.as_secs()).unwrap_or(i64::MAX));
        Self { oldest, max_bytes }
    }
}

/// What the next pruning step removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PrunePlan {
    /// Size of the audit log.
    pub bytes: i64,
    /// The step removes all rows up to this one; `None` if there is nothing to remove.
    pub last: Option<i64>,
}

/// What a pruning step removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pruned {
    pub rows: usize,
    pub bytes: i64,
}

/// Plans a step. Its cost does not depend on the size of the log.
pub(super) fn plan_prune(transaction: &Transaction<'_>, limits: Limits) -> rusqlite::Result<PrunePlan> {
    let mut total = transaction.prepare_cached("SELECT number FROM total WHERE name = 'audit_bytes'")?;
    let bytes: i64 = total.query_row([], |row| row.get(0))?;
    let mut plan = PrunePlan { bytes, last: None };
    let mut query = transaction.prepare_cached(OLDEST)?;
    let mut rows = query.query([MAX_ROWS_PER_STEP])?;
    let mut removed = 0;
    // IDs only grow, so the first rows are the oldest.
    while let Some(row) = rows.next()? {
        let is_due = row.get::<_, i64>(1)? < limits.oldest || bytes - removed > limits.max_bytes;
        if !is_due || removed >= MAX_BYTES_PER_STEP {
            break;
        }
        plan.last = Some(row.get(0)?);
        removed += row.get::<_, i64>(2)?;
    }
    Ok(plan)
}

/// Executes one pruning step.
pub(super) fn prune(transaction: &Transaction<'_>, limits: Limits) -> rusqlite::Result<Pruned> {
    let before = plan_prune(transaction, limits)?;
    let Some(last) = before.last else { return Ok(Pruned::default()) };
    let rows = transaction.prepare_cached(REMOVE)?.execute([last])?;
    let mut total = transaction.prepare_cached("SELECT number FROM total WHERE name = 'audit_bytes'")?;
    let after: i64 = total.query_row([], |row| row.get(0))?;
    Ok(Pruned { rows, bytes: before.bytes - after })
}

/// Seconds since 1970, as the database has them.
pub(super) fn unix_now() -> i64 {
    i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::database::Database;

    use rusqlite::{Connection, StatementStatus};

    /// A database with `rows` audit rows of at least `bytes` bytes each, one for each second.
    fn log_of(dir: &tempfile::TempDir, rows: i64, bytes: i64) -> Database {
        let database = Database::open_or_create(&dir.path().join("domains.db")).unwrap();
        let filled = database.write(|transaction| {
            transaction.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                 INSERT INTO audit(at, who, project, action, domain, after)
                 SELECT i, 'w', 'p', 'put', 'd', replace(hex(zeroblob(?)), '00', 'x') FROM n",
                [rows, bytes],
            )
        });
        assert_eq!(filled, Ok(usize::try_from(rows).unwrap()));
        database
    }

    /// Prunes to the end; returns the number of steps, the rows left, and the time of the first one.
    fn prune_all(database: &Database, limits: Limits) -> (usize, i64, Option<i64>) {
        let mut steps = 0;
        loop {
            let Pruned { rows, bytes } = database.write(|transaction| prune(transaction, limits)).unwrap();
            assert!(rows <= 200 && bytes < 2 * MAX_BYTES_PER_STEP, "{rows} rows, {bytes} bytes");
            if rows == 0 {
                break;
            }
            steps += 1;
        }
        let left = |transaction: &Transaction<'_>| {
            transaction.query_row("SELECT count(*), min(at) FROM audit", [], |row| Ok((row.get(0)?, row.get(1)?)))
        };
        let (count, first) = database.read(left).unwrap();
        (steps, count, first)
    }

    #[test]
    fn old_and_excess_rows_are_removed_in_steps() {
        // 64 per row, 6 for the short columns, and the size of `after`.
        let size = 64 + 6 + 100;
        for (oldest, max_bytes, want) in [
            (0, 2500 * size, (0, 2500, Some(1))),
            (0, 2500 * size - 1, (1, 2499, Some(2))),
            (2401, i64::MAX, (12, 100, Some(2401))),
            (0, 10 * size, (13, 10, Some(2491))),
            (i64::MAX, i64::MAX, (13, 0, None)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let database = log_of(&dir, 2500, 100);
            assert_eq!(prune_all(&database, Limits { oldest, max_bytes }), want, "{oldest} {max_bytes}");
            let rest = want.1 * size;
            assert_eq!(
                database
                    .read(|transaction| plan_prune(transaction, Limits { oldest: 0, max_bytes: i64::MAX }))
                    .unwrap()
                    .bytes,
                rest
            );
        }
    }

    #[test]
    fn steps_with_large_rows_are_limited_by_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let database = log_of(&dir, 60, 100_000);
        let (steps, left, _) = prune_all(&database, Limits { oldest: 0, max_bytes: 0 });
        assert_eq!((steps, left), (6, 0));
    }

    /// The number of SQLite virtual machine instructions of one step.
    fn instructions_of_a_step(database: &Database, limits: Limits) -> i32 {
        let counted = |transaction: &Transaction<'_>, begin: bool| {
            let count = |sql: &str| {
                let statement = transaction.prepare_cached(sql)?;
                Ok::<_, rusqlite::Error>(if begin {
                    statement.reset_status(StatementStatus::VmStep)
                } else {
                    statement.get_status(StatementStatus::VmStep)
                })
            };
            Ok::<_, rusqlite::Error>(count(OLDEST)? + count(REMOVE)?)
        };
        let counted = database.write(|transaction| {
            counted(transaction, true)?;
            prune(transaction, limits)?;
            counted(transaction, false)
        });
        counted.unwrap()
    }

    fn assert_that_a_step_is_as_cheap_with(rows: i64) {
        let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (few, many) = (log_of(&small, 1000, 200), log_of(&large, rows, 200));
        for limits in [
            Limits { oldest: 0, max_bytes: i64::MAX },
            Limits { oldest: i64::MAX, max_bytes: i64::MAX },
            Limits { oldest: 0, max_bytes: 1000 },
        ] {
            let (with_few, with_many) = (instructions_of_a_step(&few, limits), instructions_of_a_step(&many, limits));
            println!("{rows} rows: {with_many} instructions; 1000 rows: {with_few}; {limits:?}");
            assert!(with_few > 0 && with_many <= with_few * 11 / 10, "{with_many} instead of {with_few}: {limits:?}");
        }
    }

    #[test]
    fn cost_of_a_step_does_not_depend_on_the_number_of_rows() {
        assert_that_a_step_is_as_cheap_with(20_000);
    }

    #[test]
    #[ignore = "takes a minute"]
    fn cost_of_a_step_is_the_same_with_900_000_rows() {
        assert_that_a_step_is_as_cheap_with(900_000);
    }

    #[test]
    fn rows_of_other_programs_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let database = log_of(&dir, 3, 10);
        let other = Connection::open(database.path()).unwrap();
        other
            .execute_batch(
                "INSERT INTO audit(at, who, project, action, domain, before) VALUES (4, 'é', 'p', 'put', 'd', 'ü')",
            )
            .unwrap();
        let limits = Limits { oldest: 0, max_bytes: 64 + 2 + 1 + 3 + 1 + 2 };
        assert_eq!(prune_all(&database, limits), (1, 1, Some(4)));
    }
}
