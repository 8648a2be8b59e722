"""A store in one SQLite file, shared by the threads and processes of a machine."""

# ruff: noqa: S608 - every query is made of constants

import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from llmcost_plugins.errors import ConfigurationError, CorruptStore
from llmcost_plugins.plan import Plan, in_thread
from llmcost_plugins.stores.schema import prepare
from llmcost_plugins.stores.worth import worth
from llmcost_plugins.types import Entry, Neighbour

if TYPE_CHECKING:
    from llmcost_plugins.stores.mirror import Mirror
    from llmcost_plugins.stores.vectors import VectorIndex

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")

_DELETE = "DELETE FROM answers WHERE namespace = ? AND key = ?"
_DELETE_EXPIRED = """
DELETE FROM answers WHERE id IN (SELECT id FROM answers INDEXED BY answers_by_worth WHERE expires <= ?)
"""
_DELETE_WORST = "DELETE FROM answers WHERE id IN (SELECT id FROM answers ORDER BY worth LIMIT ?)"
_DELETE_TAGGED = "DELETE FROM answers WHERE namespace = ? AND id IN (SELECT id FROM tags WHERE tag = ?)"
_CLEAR = "DELETE FROM answers WHERE namespace = ?"
_FIELDS = "key, payload, created, expires, part, question, space, vector, tags, value"
_GET = f"SELECT {_FIELDS} FROM answers WHERE namespace = ? AND key = ?"
_FIRST_PAGE = f"SELECT {_FIELDS} FROM answers WHERE namespace = ? ORDER BY key LIMIT ?"
_NEXT_PAGE = f"SELECT {_FIELDS} FROM answers WHERE namespace = ? AND key > ? ORDER BY key LIMIT ?"
_COUNT = "SELECT count(*) FROM answers WHERE namespace = ?"
_PUT = f"""
INSERT INTO answers ({_FIELDS}, namespace, used, worth) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_TAG = "INSERT OR IGNORE INTO tags (tag, id) VALUES (?, ?)"
_TOUCH = """
UPDATE answers SET hits = hits + ?1, used = max(used, ?2), worth = worth(value, hits + ?1, max(used, ?2))
WHERE namespace = ?3 AND key = ?4
"""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SHARE_EVICTED = 0.1  # of the entries, each time the file has grown to its limit
_TOUCHES = 64  # gathered before they are written


class SQLite:
    """Keeps everything in one file, which any number of processes of this machine may use at a time.

    The file is opened on first use. One that is damaged is set aside under a new name, and a new one begun.

    Args:
        path: The file; its folder must exist.
        max_bytes: How large the file may grow; then a tenth of the answers goes: the expired ones, and those of least
            worth, which is what one hit saves, times the hits and one, halved for every day without use.
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
        self._mirrors: dict[tuple[str, str], Mirror] = {}
        self._touches: deque[tuple[str, str, float]] = deque()
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
            if self._connection is not None and self._touches:
                with suppress(sqlite3.Error), self._connection:
                    self.write_touches(self._connection)
            self._let_go()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> Plan[T]:
        """Return the plan that does some work in one transaction, as `perform` does it."""
        return in_thread(partial(self.perform, work))

    def perform(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work in one transaction.

        Raises:
            CorruptStore: The file was damaged and has been set aside; the next use begins a new one.
            sqlite3.OperationalError: The file cannot be read or written (disk full, no permission, locked too long).
        """
        with self._lock:
            try:
                connection = self._open()
                with connection:
                    return work(connection)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                    raise  # Python's own errors, such as of a wrong type, have no code
                raise CorruptStore(f"{self.path} is damaged ({error}); set aside as {self._set_aside()}") from error

    def _index(self, connection: sqlite3.Connection, namespace: str, space: str, now: float) -> "VectorIndex":
        """Return the vectors of a space as the file has them at this moment, without those that have expired."""
        from llmcost_plugins.stores.mirror import Mirror

        mirror = self._mirrors.get((namespace, space))
        if mirror is None:
            mirror = self._mirrors[namespace, space] = Mirror(namespace, space)
        return mirror.fresh(connection, now)

    def shrink(self, connection: sqlite3.Connection, now: float) -> None:
        """Make room where the file has grown to its limit."""
        pages, size, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size", "freelist_count")
        )
        if (pages - free) * size < self._max_bytes:
            return
        count = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        expired = connection.execute(_DELETE_EXPIRED, (now,)).rowcount
        connection.execute(_DELETE_WORST, (max(0, int(count * _SHARE_EVICTED) + 1 - expired),))

    def touch(self, namespace: str, key: str, now: float) -> bool:
        """Remember a hit; tell whether so many have gathered that it is time to write them."""
        self._touches.append((namespace, key, now))
        return len(self._touches) >= _TOUCHES

    def write_touches(self, connection: sqlite3.Connection) -> None:
        """Write the hits that have gathered."""
        touched: dict[tuple[str, str], tuple[int, float]] = {}
        for _ in range(len(self._touches)):
            namespace, key, now = self._touches.popleft()
            hits, used = touched.get((namespace, key), (0, now))
            touched[namespace, key] = hits + 1, max(used, now)
        connection.executemany(_TOUCH, ((hits, used, *key) for key, (hits, used) in touched.items()))

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
            connection.create_function("worth", 3, worth, deterministic=True)
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._file = _identity(self.path)
        self._connection = connection
        return connection

    def _let_go(self) -> None:
        self._mirrors.clear()  # the next connection may be to another file
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


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store._touches.clear()  # the parent writes them
    _after_fork()


def _after_fork() -> None:
    for store in list(_stores):
        with suppress(RuntimeError):  # made by another thread since
            store._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


class SQLiteEntries:
    """The answers of one namespace."""

    def __init__(self, store: SQLite, namespace: str) -> None:
        self._store = store
        self._namespace = namespace

    def get(self, key: str) -> Plan[Entry | None]:
        """Return the entry, expired or not, or None."""
        row = yield from self._store.run(lambda c: c.execute(_GET, (self._namespace, key)).fetchone())
        return None if row is None else _entry(row)

    def put(self, entry: Entry) -> Plan[None]:
        """Store the entry in place of one with the same key."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")  # one that begins by reading is not let wait for other writers
            self._store.write_touches(connection)
            self._store.shrink(connection, entry.created)
            connection.execute(_DELETE, (self._namespace, entry.key))
            number = connection.execute(_PUT, self._row(entry)).lastrowid
            if entry.tags:
                connection.executemany(_TAG, [(_text(tag), number) for tag in entry.tags])
            if entry.space and entry.vector is not None:
                self._check(connection, entry.space, entry.vector)

        yield from self._store.run(write)

    def delete(self, key: str) -> Plan[bool]:
        """Remove the entry; tell whether there was one."""
        gone = yield from self._store.run(lambda c: c.execute(_DELETE, (self._namespace, key)).rowcount)
        return gone > 0

    def clear(self) -> Plan[None]:
        """Remove every entry of the namespace."""
        yield from self._store.run(lambda c: c.execute(_CLEAR, (self._namespace,)).rowcount)

    def near(self, space: str, vector: bytes, limit: int, now: float) -> Plan[list[Neighbour]]:
        """Return the entries of the space that are nearest to the vector and not expired, the nearest first."""

        def search() -> list[Neighbour]:
            index = self._store.perform(lambda c: self._store._index(c, self._namespace, space, now))
            found = index.near(vector, limit)
            return [Neighbour(key, similarity, _read_text(question)) for key, similarity, question in found]

        return (yield from in_thread(search))

    def touch(self, key: str, now: float) -> Plan[None]:
        """Count a hit; it is written with the next answer, or when 64 have gathered."""
        if self._store.touch(self._namespace, key, now):
            yield from self._store.run(self._store.write_touches)

    def invalidate(self, tag: str) -> Plan[int]:
        """Remove every entry that has the tag; tell how many there were."""
        row = (self._namespace, _text(tag))
        return (yield from self._store.run(lambda c: c.execute(_DELETE_TAGGED, row).rowcount))

    def page(self, after: str | None, limit: int) -> Plan[list[Entry]]:
        """Return the entries that follow the key `after` in the order of keys."""
        query = _FIRST_PAGE if after is None else _NEXT_PAGE
        asked = tuple(part for part in (self._namespace, after, limit) if part is not None)
        rows = yield from self._store.run(lambda c: c.execute(query, asked).fetchall())
        return [_entry(row) for row in rows]

    def count(self) -> Plan[int]:
        """Tell how many entries there are, expired or not."""
        return (yield from self._store.run(lambda c: int(c.execute(_COUNT, (self._namespace,)).fetchone()[0])))

    def _row(self, entry: Entry) -> tuple[object, ...]:
        return (
            entry.key,
            entry.payload,
            entry.created,
            entry.expires,
            entry.partition,
            _text(entry.question),
            entry.space,
            entry.vector,
            json.dumps(entry.tags) if entry.tags else "",
            entry.value,
            self._namespace,
            entry.created,
            worth(entry.value, 0, entry.created),
        )

    def _check(self, connection: sqlite3.Connection, space: str, vector: bytes) -> None:
        from llmcost_plugins.stores.mirror import check_dimension, check_vector

        check_vector(vector)
        check_dimension(connection, self._namespace, space, vector)


def _entry(row: tuple[Any, ...]) -> Entry:
    key, payload, created, expires, part, question, space, vector, tags, value = row
    names = tuple(json.loads(tags)) if tags else ()
    return Entry(key, payload, created, expires, part, _read_text(question), space, vector, names, value)


def _text(text: str) -> str | bytes:
    """Return what keeps the text; SQLite takes no lone surrogates, which people's questions may hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _read_text(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogatepass")
