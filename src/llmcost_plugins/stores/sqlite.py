"""A store in one SQLite file, shared by the threads and processes of a machine."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from llmcost_plugins.errors import ConfigurationError, CorruptStore
from llmcost_plugins.plan import Plan, do
from llmcost_plugins.types import Entry

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    part TEXT NOT NULL,
    payload BLOB NOT NULL,
    created REAL NOT NULL,
    expires REAL
);
CREATE UNIQUE INDEX IF NOT EXISTS entries_by_key ON entries (namespace, key);
"""
_GET = "SELECT key, payload, created, expires, part FROM entries WHERE namespace = ? AND key = ?"
_PUT = """
INSERT OR REPLACE INTO entries (namespace, key, part, payload, created, expires) VALUES (?, ?, ?, ?, ?, ?)
"""
_DELETE = "DELETE FROM entries WHERE namespace = ? AND key = ?"
_CLEAR = "DELETE FROM entries WHERE namespace = ?"
_DELETE_OLDEST = """
DELETE FROM entries WHERE rowid IN (SELECT rowid FROM entries ORDER BY rowid LIMIT ?)
"""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SHARE_EVICTED = 0.1  # of the entries, each time the file has grown to its limit


class SQLite:
    """Keeps everything in one file, which any number of processes of this machine may use at a time.

    The file is opened on first use. One that is damaged is set aside under a new name, and a new one begun.

    Args:
        path: The file; its folder must exist.
        max_bytes: How large the file may grow; then expired answers go, and a tenth of the others, the oldest first.
        timeout: Seconds to wait for another process that is writing.
    """

    def __init__(self, path: str | Path, *, max_bytes: int = 2**30, timeout: float = 0.5) -> None:
        if max_bytes < 2**16:
            raise ConfigurationError(f"`max_bytes` is {max_bytes!r}; expected at least {2**16}")
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"the folder {self.path.parent} of `path` does not exist; create it first")
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        _stores.add(self)

    def __repr__(self) -> str:
        return f"SQLite({str(self.path)!r})"

    def entries(self, namespace: str = "") -> "SQLiteEntries":
        """Return where the caches of a namespace keep their answers."""
        if not isinstance(namespace, str):
            raise ConfigurationError(f"`namespace` is {namespace!r}; expected text")
        return SQLiteEntries(self, namespace)

    def close(self) -> None:
        """Close the file; later use opens it again."""
        with self._lock:
            self._let_go()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> Plan[T]:
        """Return the plan that does some work in one transaction.

        Raises:
            CorruptStore: The file was damaged and has been set aside; the next use begins a new one.
            sqlite3.OperationalError: The file cannot be read or written (disk full, no permission, locked too long).
        """
        run = partial(self._run, work)
        return do(run, partial(asyncio.to_thread, run))

    def shrink(self, connection: sqlite3.Connection) -> None:
        """Make room where the file has grown to its limit."""
        pages, size, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size", "freelist_count")
        )
        if (pages - free) * size < self._max_bytes:
            return
        connection.execute("DELETE FROM entries WHERE expires <= ?", (time.time(),))
        count = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
        connection.execute(_DELETE_OLDEST, (max(1, int(count * _SHARE_EVICTED)),))

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                connection = self._open()
                with connection:
                    return work(connection)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                    raise  # Python's own errors, such as of a wrong type, have no code
                raise CorruptStore(f"{self.path} is damaged ({error}); set aside as {self._set_aside()}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._file == _identity(self.path):
            return self._connection
        self._let_go()  # another process has set the file aside
        connection = sqlite3.connect(self.path, timeout=self._timeout, check_same_thread=False)
        self._file = _identity(self.path)
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        self._file = _identity(self.path)
        self._connection = connection
        return connection

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _set_aside(self) -> Path:
        """Rename the damaged file, unless another process has begun a new one in its place already."""
        self._let_go()
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        with _alone(self.path):
            if self._file == _identity(self.path):
                self.path.replace(aside)
                for ending in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        return aside


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes out that set the same file aside."""
    with path.with_name(path.name + ".lock").open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


_stores: "WeakSet[SQLite]" = WeakSet()


def _before_fork() -> None:
    """Close every file: neither connection nor lock may cross a fork, or the child's writes are lost in silence."""
    for store in list(_stores):
        store._lock.acquire()
        store._let_go()


def _after_fork() -> None:
    for store in list(_stores):
        with suppress(RuntimeError):  # made by another thread since
            store._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class SQLiteEntries:
    """The answers of one namespace."""

    def __init__(self, store: SQLite, namespace: str) -> None:
        self._store = store
        self._namespace = namespace

    def get(self, key: str) -> Plan[Entry | None]:
        """Return the entry, expired or not, or None."""
        row = yield from self._store.run(lambda c: c.execute(_GET, (self._namespace, key)).fetchone())
        return None if row is None else Entry(*row)

    def put(self, entry: Entry) -> Plan[None]:
        """Store the entry in place of one with the same key."""
        row = (self._namespace, entry.key, entry.partition, entry.payload, entry.created, entry.expires)

        def write(connection: sqlite3.Connection) -> None:
            self._store.shrink(connection)
            connection.execute(_PUT, row)

        yield from self._store.run(write)

    def delete(self, key: str) -> Plan[bool]:
        """Remove the entry; tell whether there was one."""
        gone = yield from self._store.run(lambda c: c.execute(_DELETE, (self._namespace, key)).rowcount)
        return gone > 0

    def clear(self) -> Plan[None]:
        """Remove every entry of the namespace."""
        yield from self._store.run(lambda c: c.execute(_CLEAR, (self._namespace,)).rowcount)
