"""The form of a store's file."""

# ruff: noqa: S608 - every query is made of constants

import sqlite3

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.stores.worth import HALVED_AFTER

DELETIONS_KEPT = 10_000  # in the list of those that processes read to keep up
_VERSION = 1
_TABLES = (
    """CREATE TABLE answers (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- so that a number never comes back for another answer
        namespace TEXT NOT NULL,
        key TEXT NOT NULL,
        payload BLOB NOT NULL,
        created REAL NOT NULL,
        expires REAL,
        part TEXT NOT NULL,
        question TEXT NOT NULL DEFAULT '',
        space TEXT NOT NULL DEFAULT '',
        vector BLOB,
        tags TEXT NOT NULL DEFAULT '',
        value INTEGER NOT NULL DEFAULT 0,
        hits INTEGER NOT NULL DEFAULT 0,
        used REAL NOT NULL,
        worth REAL NOT NULL
    )""",
    "CREATE UNIQUE INDEX answers_by_key ON answers (namespace, key)",
    "CREATE INDEX answers_by_space ON answers (namespace, space) WHERE space != ''",
    "CREATE INDEX answers_by_worth ON answers (worth, expires)",
    "CREATE TABLE tags (tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id)) WITHOUT ROWID",
    "CREATE INDEX tags_by_id ON tags (id)",
    """CREATE TRIGGER answers_tags AFTER DELETE ON answers WHEN old.tags != '' BEGIN
        DELETE FROM tags WHERE id = old.id;
    END""",
    "CREATE TABLE deletions (number INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL)",
    f"""CREATE TRIGGER answers_deletions AFTER DELETE ON answers WHEN old.space != '' BEGIN
        INSERT INTO deletions (id) VALUES (old.id);
        DELETE FROM deletions WHERE number <= last_insert_rowid() - {DELETIONS_KEPT};
    END""",
)
_COPY_FORMER = f"""
INSERT INTO answers (namespace, key, payload, created, expires, part, used, worth)
SELECT namespace, key, payload, created, expires, part, created, created / {HALVED_AFTER} FROM entries ORDER BY rowid
"""


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of a new file; bring a file of the former form to this one.

    Raises:
        ConfigurationError: The file is of a later form.
    """
    if _version(connection) == _VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        version = _version(connection)
        if version > _VERSION:
            raise ConfigurationError("the file is of a later version of llmcost-plugins; upgrade, or use another file")
        if version < _VERSION:
            _make(connection)


def _make(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'entries'").fetchone():
        connection.execute(_COPY_FORMER)
        connection.execute("DROP TABLE entries")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
