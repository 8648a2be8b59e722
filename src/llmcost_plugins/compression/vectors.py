"""Vectors that outlive the process, by what was embedded."""

import hashlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from llmcost_plugins.embeddings import Embedded, Embedder
from llmcost_plugins.events import ComponentFailed, emit
from llmcost_plugins.plan import Plan, in_thread
from llmcost_plugins.scope import current_scope

T = TypeVar("T")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS vectors "
    "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, truncated INTEGER NOT NULL, tokens INTEGER NOT NULL) WITHOUT ROWID"
)
_GET = "SELECT vector, truncated, tokens FROM vectors WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)"


class StoredEmbedder:
    """An embedder that keeps every vector in a SQLite file and embeds no text twice, in this process or another.

    Vectors are float32, found by the SHA-256 of the embedder's id and the text. A file that cannot be read or written
    costs the saving, not the call: an event says so, and the texts are embedded.

    Args:
        embedder: What embeds texts that are not in the file.
        path: The file; it is made on first use, in a folder that exists.
    """

    def __init__(self, embedder: Embedder, path: str | Path) -> None:
        self._embedder = embedder
        self._path = Path(path)

    def __repr__(self) -> str:
        return f"StoredEmbedder({self._embedder!r}, {str(self._path)!r})"

    @property
    def id(self) -> str:
        """That of the embedder behind it."""
        return self._embedder.id

    @property
    def dimension(self) -> int:
        """That of the embedder behind it."""
        return self._embedder.dimension

    def embed(self, texts: Sequence[str]) -> Plan[Embedded]:
        """Return the plan that reads the vectors that are in the file, and embeds and writes the others."""
        keys = {text: self._key(text) for text in texts}
        rows = yield from in_thread(partial(self._read, keys))
        if new := [text for text in keys if text not in rows]:
            embedded = yield from self._embedder.embed(new)
            found = {text: _row(embedded, n) for n, text in enumerate(new)}
            yield from in_thread(partial(self._write, {keys[text]: row for text, row in found.items()}))
            rows |= found
        return _joined([rows[text] for text in texts], self.dimension)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.id}\0{text}".encode("utf-8", "surrogatepass")).digest()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0.5)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_TABLE)
        return connection

    def _read(self, keys: Mapping[str, bytes]) -> dict[str, Embedded]:
        import numpy as np

        try:
            with closing(self._open()) as connection:
                rows = {text: connection.execute(_GET, (key,)).fetchone() for text, key in keys.items()}
        except sqlite3.Error as error:
            _tell(error)
            return {}
        return {
            text: Embedded(np.frombuffer(row[0], np.float32)[None, :], (bool(row[1]),), (row[2],))
            for text, row in rows.items()
            if row is not None and len(row[0]) % 4 == 0
        }

    def _write(self, rows: Mapping[bytes, Embedded]) -> None:
        values = [(key, row.vectors.tobytes(), row.truncated[0], row.tokens[0]) for key, row in rows.items()]
        try:
            with closing(self._open()) as connection, connection:
                connection.executemany(_PUT, values)
        except sqlite3.Error as error:
            _tell(error)


def _tell(error: sqlite3.Error) -> None:
    text = f"{type(error).__name__}: {error}"
    emit(ComponentFailed(time=time.time(), component="vectors", error=text, scope=current_scope()))


def _row(embedded: Embedded, n: int) -> Embedded:
    return Embedded(embedded.vectors[n : n + 1].copy(), (embedded.truncated[n],), (embedded.tokens[n],))


def _joined(rows: Sequence[Embedded], dimension: int) -> Embedded:
    import numpy as np

    if not rows:
        return Embedded(np.empty((0, dimension), np.float32), (), ())
    vectors = np.concatenate([row.vectors for row in rows])
    return Embedded(vectors, tuple(row.truncated[0] for row in rows), tuple(row.tokens[0] for row in rows))
