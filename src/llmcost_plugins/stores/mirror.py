"""The vectors of a file's space in this process's memory."""

# ruff: noqa: S608 - every query is made of constants

import sqlite3
from contextlib import suppress

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.stores.vectors import VectorIndex, as_vector

_SPACE = "namespace = ? AND space = ? AND space != ''"  # the last as the index has it
_NEWER = f"""
SELECT id, CASE WHEN expires <= ? THEN NULL ELSE vector END, key, question, expires
FROM answers WHERE {_SPACE} AND id > ? ORDER BY id
"""
_ALL = f"SELECT id FROM answers WHERE {_SPACE}"
_DELETED = "SELECT number, id FROM deletions WHERE number > ? ORDER BY number"
_LAST_DELETION = "SELECT coalesce(max(number), 0) FROM deletions"
_FIRST_SIZE = f"SELECT length(vector) FROM answers WHERE {_SPACE} AND vector IS NOT NULL ORDER BY id LIMIT 1"


def check_vector(vector: bytes) -> None:
    """Raise `ConfigurationError` where the bytes are no vector of length 1."""
    as_vector(vector)


def check_dimension(connection: sqlite3.Connection, namespace: str, space: str, vector: bytes) -> None:
    """Raise `ConfigurationError` where other vectors of the space have another dimension."""
    size = connection.execute(_FIRST_SIZE, (namespace, space)).fetchone()[0]
    if size != len(vector):
        raise ConfigurationError(f"a vector of {len(vector) // 4} dimensions in a space of {size // 4}")


class Mirror:
    """Keeps an index like the file.

    Answers have ascending numbers, so what is new is read from the last number on, and what is gone from a list of
    deletions. Neither is read while nothing has been written, by this connection or by others.
    """

    def __init__(self, namespace: str, space: str) -> None:
        self._space = (namespace, space)
        self._index = VectorIndex()
        self._stamp: tuple[int, int] | None = None
        self._newest = 0
        self._deletions: int | None = None

    def fresh(self, connection: sqlite3.Connection, now: float) -> VectorIndex:
        """Return the index as the file is at this moment, without what has expired."""
        stamp = (connection.execute("PRAGMA data_version").fetchone()[0], connection.total_changes)
        if stamp != self._stamp:
            connection.execute("BEGIN")
            self._read_deletions(connection)
            self._read_newer(connection, now)
            self._stamp = stamp
        self._index.forget(now)
        return self._index

    def _read_newer(self, connection: sqlite3.Connection, now: float) -> None:
        for number, vector, key, question, expires in connection.execute(_NEWER, (now, *self._space, self._newest)):
            self._newest = number
            if vector is not None:
                with suppress(ConfigurationError):  # no vector: nothing finds it, and nothing else suffers
                    self._index.put(number, vector, key, question, expires)

    def _read_deletions(self, connection: sqlite3.Connection) -> None:
        if self._deletions is None:
            self._deletions = connection.execute(_LAST_DELETION).fetchone()[0]
            return
        deleted = connection.execute(_DELETED, (self._deletions,)).fetchall()
        if not deleted:
            return
        if deleted[0][0] == self._deletions + 1:
            for _, number in deleted:
                self._index.remove(number)
        else:  # the list does not reach back that far
            self._keep_only({number for (number,) in connection.execute(_ALL, self._space)})
        self._deletions = deleted[-1][0]

    def _keep_only(self, numbers: set[int]) -> None:
        for number in set(self._index) - numbers:
            self._index.remove(number)
