//! Ownership of domains: a project owns its domains and everything above and below them, up to the public suffix.
//!
//! Two domains are related if one is above the other and both have the same public suffix. `shop.github.io` and
//! `blog.github.io` are unrelated, and so are `example.org` and a domain below a public suffix that is below `example.org`.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::suffixes::Suffixes;

/// An ID that no project has.
const NO_PROJECT: i64 = -1;

/// Two related domains of different projects, mapped by earlier versions or by operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Conflict {
    pub domain: String,
    pub project: String,
    /// The domain above, or the same domain with or without `*.`.
    pub above: String,
    pub above_project: String,
}

/// A domain without its `*.`.
pub(super) fn base_of(domain: &str) -> &str {
    domain.strip_prefix("*.").unwrap_or(domain)
}

/// The column `labels` of a domain: `org.example.www.` of `www.example.org` and of `*.www.example.org`.
pub(super) fn labels_of(domain: &str) -> String {
    base_of(domain).rsplit('.').fold(String::new(), |labels, label| labels + label + ".")
}

/// A string that sorts after the labels of all domains below the one with `labels`.
fn end_of(labels: &str) -> String {
    // `/` sorts directly after `.`, and no label contains either.
    let mut end = labels.strip_suffix('.').unwrap_or(labels).to_owned();
    end.push('/');
    end
}

/// Fills the column `labels` of domains that earlier versions or other programs have added.
pub(super) fn fill_missing_labels(connection: &mut Connection) -> rusqlite::Result<()> {
    const WITHOUT_LABELS: &str = "SELECT id, name FROM domain WHERE labels IS NULL";
    if !connection.prepare(WITHOUT_LABELS)?.exists([])? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let rows: Vec<(i64, String)> = transaction
        .prepare(WITHOUT_LABELS)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut update = transaction.prepare("UPDATE domain SET labels = ? WHERE id = ?")?;
    for (id, name) in rows {
        update.execute(params![labels_of(&name), id])?;
    }
    drop(update);
    transaction.commit()
}

/// Whether another project has a domain that is related to this one.
pub(super) fn belongs_to_another_project(
    transaction: &Transaction<'_>,
    suffixes: &Suffixes,
    domain: &str,
    project: Option<i64>,
) -> rusqlite::Result<bool> {
    let (base, project) = (base_of(domain), project.unwrap_or(NO_PROJECT));
    let suffix = suffixes.suffix_of(base).len();
    let mut query = transaction.prepare_cached("SELECT 1 FROM domain WHERE labels = ? AND project <> ? LIMIT 1")?;
    let mut above = base;
    while let Some((_, parent)) = above.split_once('.').filter(|(_, parent)| parent.len() > suffix) {
        if query.exists(params![labels_of(parent), project])? {
            return Ok(true);
        }
        above = parent;
    }
    let mut query = transaction.prepare_cached(
        "SELECT name FROM domain WHERE labels >= ? AND labels < ? AND project <> ? ORDER BY labels LIMIT 1",
    )?;
    let labels = labels_of(base);
    let end = end_of(&labels);
    let mut from = labels;
    while let Some(name) = query.query_row(params![from, end, project], |row| row.get::<_, String>(0)).optional()? {
        let suffix = suffixes.suffix_of(base_of(&name));
        if suffix.len() < base.len() {
            return Ok(true);
        }
        // All domains below that public suffix are unrelated; others may follow it.
        from = end_of(&labels_of(suffix));
    }
    Ok(false)
}

/// All pairs of related domains of different projects.
pub(super) fn conflicts(transaction: &Transaction<'_>, suffixes: &Suffixes) -> rusqlite::Result<Vec<Conflict>> {
    struct OwnedName {
        labels: String,
        domain: String,
        project: String,
    }
    let mut query = transaction.prepare(
        "SELECT domain.labels, domain.name, project.name FROM domain JOIN project ON project.id = domain.project
         WHERE domain.labels IS NOT NULL ORDER BY domain.labels, domain.name DESC",
    )?;
    let (mut above, mut conflicts): (Vec<OwnedName>, Vec<Conflict>) = (Vec::new(), Vec::new());
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let row = OwnedName { labels: row.get(0)?, domain: row.get(1)?, project: row.get(2)? };
        above.retain(|name| row.labels.starts_with(&name.labels));
        let suffix = suffixes.suffix_of(base_of(&row.domain)).len();
        let related = above.iter().filter(|name| name.project != row.project && base_of(&name.domain).len() > suffix);
        conflicts.extend(related.map(|name| Conflict {
            domain: row.domain.clone(),
            project: row.project.clone(),
            above: name.domain.clone(),
            above_project: name.project.clone(),
        }));
        above.push(row);
    }
    Ok(conflicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::database::Database;

    #[test]
    fn labels_of_subdomains_sort_directly_after_their_domain() {
        assert_eq!(labels_of("www.example.org"), "org.example.www.");
        assert_eq!(labels_of("*.example.org"), labels_of("example.org"));
        let mut sorted = ["org.example.", "org.example.a-b.", "org.example.a.", "org.example.a.b.", "org.example-b."];
        sorted.sort_unstable();
        let (from, end) = (labels_of("a.example.org"), end_of(&labels_of("a.example.org")));
        let below: Vec<_> = sorted.into_iter().filter(|labels| (&*from..&*end).contains(labels)).collect();
        assert_eq!(below, ["org.example.a.", "org.example.a.b."]);
    }

    /// A database with domains of the projects 1 and 2, written by another program.
    fn database(dir: &tempfile::TempDir, ones: &[&str], others: &[&str]) -> Database {
        let path = dir.path().join("domains.db");
        let database = Database::open_or_create(&path).unwrap();
        let written = database.write(|transaction| {
            transaction.execute_batch("INSERT INTO project(id, name) VALUES (1, 'one'), (2, 'other')")?;
            for (project, domains) in [(1, ones), (2, others)] {
                for domain in domains {
                    transaction.execute("INSERT INTO domain(name, project) VALUES (?, ?)", params![domain, project])?;
                }
            }
            Ok::<_, rusqlite::Error>(())
        });
        written.unwrap();
        drop(database);
        Database::open(&path).unwrap()
    }

    #[test]
    fn related_domains_belong_to_the_same_project() {
        let dir = tempfile::tempdir().unwrap();
        let ones = ["site.example", "*.apps.example", "a.github.io", "x.deep.owner.example", "b.dyn.host.example"];
        let database = database(&dir, &ones, &["own.example"]);
        let suffixes = Suffixes::parse(b"github.io\ndyn.host.example\n").unwrap();
        let belongs_to_another_project = |domain: &str, project: Option<i64>| {
            database.read(|transaction| belongs_to_another_project(transaction, &suffixes, domain, project)).unwrap()
        };
        for (domain, want) in [
            ("www.site.example", true),
            ("a.b.site.example", true),
            ("*.site.example", true),
            ("*.www.site.example", true),
            ("a.apps.example", true),
            ("a.b.apps.example", true),
            ("apps.example", true),
            ("owner.example", true),
            ("*.owner.example", true),
            ("deep.owner.example", true),
            // Siblings, and similar names.
            ("y.deep.owner.example", false),
            ("other.example", false),
            ("mysite.example", false),
            ("site.example.org", false),
            ("sit.example", false),
            ("b.github.io", false),
            ("*.b.github.io", false),
            ("*.a.github.io", true),
            // Separated by a public suffix.
            ("host.example", false),
            ("*.host.example", false),
            ("a.dyn.host.example", false),
            ("*.b.dyn.host.example", true),
        ] {
            assert_eq!(belongs_to_another_project(domain, Some(2)), want, "{domain}");
            assert_eq!(belongs_to_another_project(domain, None), want, "{domain}");
            assert!(!belongs_to_another_project(domain, Some(1)), "{domain}");
        }
        assert!(
            belongs_to_another_project("www.own.example", Some(1))
                && !belongs_to_another_project("www.own.example", Some(2))
        );
    }

    #[test]
    fn conflicts_are_related_domains_of_different_projects() {
        let dir = tempfile::tempdir().unwrap();
        let ones = ["site.example", "a.b.c.example", "x.github.io", "same.example"];
        let others = ["www.site.example", "*.c.example", "github.io", "*.same.example", "alone.example"];
        let database = database(&dir, &ones, &others);
        let suffixes = Suffixes::parse(b"github.io\n").unwrap();
        let conflicts = database.read(|transaction| conflicts(transaction, &suffixes)).unwrap();
        let shown: Vec<_> =
            conflicts.iter().map(|c| [&*c.domain, &*c.project, &*c.above, &*c.above_project].join(" ")).collect();
        assert_eq!(
            shown,
            [
                "a.b.c.example one *.c.example other",
                "*.same.example other same.example one",
                "www.site.example other site.example one"
            ]
        );
    }
}
