-- A database as version 1 of invisible-unicorn left it, with one domain that Redis was not told of yet.
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE project(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
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
) STRICT;
INSERT INTO project(name) VALUES ('tools');
INSERT INTO domain(name, project) VALUES ('a.example.org', 1);
INSERT INTO backend(domain, url) VALUES (1, 'http://10.0.0.1:80');
INSERT INTO outbox(domain) VALUES ('a.example.org');
PRAGMA application_id = 0x75726c70;
PRAGMA user_version = 1;
COMMIT;
