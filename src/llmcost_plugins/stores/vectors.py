"""Search among vectors in this process's memory."""

import logging
import math
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.types import Neighbour

F = TypeVar("F", np.float32, np.float64)
Vector: TypeAlias = NDArray[np.float32]

LARGE = 20_000  # vectors; up to here reading them all is as quick as a graph (2 ms), needs no building and misses none
_FIRST_ROWS = 16
_ROWS_AT_A_TIME = 64
_LENGTH_ERROR = 0.01  # of a squared length; half precision keeps within 0.002
_BLOCK = 32
_CHUNK = 64  # vectors put into a graph under construction at a time
_LEFT = 256  # vectors taken from the graph at a time: the next addition rehashes its table (2 ms among 100,000)
_CANDIDATES = 32  # read from the graph and ranked by their cosine, at least

_log = logging.getLogger("llmcost_plugins")


class _Item(NamedTuple):
    number: int
    key: str
    question: str


def as_vector(data: bytes) -> Vector:
    """Return the numbers of a stored vector.

    Raises:
        ConfigurationError: They are no vector of length 1.
    """
    if len(data) % 4 or not data:
        raise ConfigurationError(f"a vector of {len(data)} bytes; expected little-endian float32")
    vector = np.frombuffer(data, "<f4")
    with np.errstate(all="ignore"):
        squared = float(vector @ vector)
    if not abs(squared - 1.0) <= _LENGTH_ERROR:
        raise ConfigurationError(f"a vector of length {math.sqrt(squared):.4g}; expected 1 (and neither NaN nor inf)")
    return vector


class VectorIndex:
    """The vectors of one space.

    Up to 20,000 are all read at each search. Above that a graph (usearch) finds candidates, which are then ranked by
    their exact cosine; it is built by a thread of its own, and until it is ready, or without usearch, all are read.
    Each vector goes by a number, which must not come back for another vector.
    """

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._rows: dict[int, int] = {}
        self._matrix: Vector = np.empty((0, 0), np.float32)
        self._expires: NDArray[np.float64] = np.empty(0)
        self._next_expiry = math.inf
        self._graph: Any = None
        self._left: list[int] = []
        self._builder: threading.Thread | None = None
        self._lock = threading.Lock()
        after_fork(self, VectorIndex._renew)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    @property
    def dimension(self) -> int:
        """How many numbers each vector has; 0 before the first."""
        return int(self._matrix.shape[1])

    @property
    def uses_graph(self) -> bool:
        """Whether candidates are found by a graph by now."""
        return self._graph is not None

    def put(self, number: int, vector: bytes, key: str, question: str = "", expires: float | None = None) -> None:
        """Add a vector, or replace the one of the same number.

        Raises:
            ConfigurationError: The vector has not length 1, or not the dimension of the others.
        """
        new = self._checked(vector)
        with self._lock:
            if self._remove(number) and self._graph is not None:
                self._prune_graph()  # it takes no number twice
            row = self._room(len(new))
            self._matrix[row] = new
            self._expires[row] = until = math.inf if expires is None else expires
            self._next_expiry = min(self._next_expiry, until)
            self._items.append(_Item(number, key, question))
            self._rows[number] = row
            if self._graph is not None:
                self._graph.add(number, new, threads=1)

    def remove(self, number: int) -> bool:
        """Remove a vector; tell whether there was one."""
        with self._lock:
            return self._remove(number)

    def forget(self, now: float) -> None:
        """Remove what has expired; costs next to nothing while nothing has."""
        if now < self._next_expiry:
            return
        with self._lock:
            expires = self._expires[: len(self._items)]
            for number in [self._items[row].number for row in np.flatnonzero(expires <= now)]:
                self._remove(number)
            self._next_expiry = float(self._expires[: len(self._items)].min(initial=math.inf))

    def near(self, vector: bytes, limit: int) -> list[Neighbour]:
        """Return the vectors nearest by cosine, the nearest first.

        Raises:
            ConfigurationError: The vector has not length 1, or not the dimension of the others.
        """
        asked = self._checked(vector)
        with self._lock:
            if not self._items or limit < 1:
                return []
            if self._graph is not None:
                return self._nearest_by_graph(asked, limit)
            if len(self._items) > LARGE:
                self._begin_graph()
            return self._nearest_of_all(asked, limit)

    def build(self) -> None:
        """Build the graph and wait for it; with more than 20,000 vectors the first search begins it by itself."""
        with self._lock:
            if self._graph is None:
                self._begin_graph()
            builder = self._builder
        if builder is not None:
            builder.join()

    def _checked(self, data: bytes) -> Vector:
        vector = as_vector(data)
        if self._items and len(vector) != self.dimension:
            raise ConfigurationError(f"a vector of {len(vector)} dimensions in a space of {self.dimension}")
        return vector

    def _room(self, dimension: int) -> int:
        """Return a free row at the end."""
        count = len(self._items)
        if not count and dimension != self.dimension:
            self._matrix = np.zeros((_FIRST_ROWS, dimension), np.float32)
            self._expires = np.zeros(_FIRST_ROWS)
        elif count == len(self._matrix):
            self._matrix = _doubled(self._matrix)
            self._expires = _doubled(self._expires)
        return count

    def _remove(self, number: int) -> bool:
        row = self._rows.pop(number, None)
        if row is None:
            return False
        last = self._items.pop()
        if last.number != number:
            end = len(self._items)
            self._matrix[row] = self._matrix[end]
            self._expires[row] = self._expires[end]
            self._items[row] = last
            self._rows[last.number] = row
        if self._graph is not None:
            self._leave_graph(number)
        return True

    def _leave_graph(self, number: int) -> None:
        self._left.append(number)
        if len(self._items) < LARGE // 2:
            self._graph = None
        elif len(self._left) >= _LEFT:
            self._prune_graph()

    def _prune_graph(self) -> None:
        self._graph.remove(np.array(self._left, np.uint64), threads=1)
        self._left.clear()

    def _nearest_of_all(self, asked: Vector, limit: int) -> list[Neighbour]:
        cosines = self._cosines(asked)
        rows = _greatest(cosines, limit)
        return self._ranked(rows, cosines[rows], limit)

    def _cosines(self, asked: Vector) -> Vector:
        """Return all cosines, by products too small for BLAS to share among threads.

        Threads that wait for each other on busy cores took 8 ms for 10,000 vectors where one takes 0.2 ms.
        """
        count = len(self._items)
        rows = min(_ROWS_AT_A_TIME, len(self._matrix))
        blocks = -(-count // rows)
        matrix = self._matrix[: blocks * rows].reshape(blocks, rows, self.dimension)
        cosines: Vector = (matrix @ asked).reshape(-1)[:count]
        return cosines

    def _nearest_by_graph(self, asked: Vector, limit: int) -> list[Neighbour]:
        rows = self._candidates(asked, max(_CANDIDATES, 2 * limit))
        if len(rows) < limit and self._left:
            self._prune_graph()
            rows = self._candidates(asked, max(_CANDIDATES, 2 * limit))
        return self._ranked(rows, self._matrix[rows] @ asked, limit)

    def _candidates(self, asked: Vector, count: int) -> NDArray[np.intp]:
        found = self._graph.search(asked, count, threads=1).keys.tolist()
        return np.array([self._rows[number] for number in found if number in self._rows], np.intp)

    def _ranked(self, rows: NDArray[np.intp], cosines: Vector, limit: int) -> list[Neighbour]:
        order = np.argsort(-cosines, kind="stable")[:limit]
        nearest = [self._items[row] for row in rows[order].tolist()]
        similarities = np.clip(cosines[order], -1.0, 1.0).tolist()
        return [Neighbour(item.key, s, item.question) for item, s in zip(nearest, similarities, strict=True)]

    def _begin_graph(self) -> None:
        graph_type = _graph_type()
        if self._builder is not None or graph_type is None:
            return
        graph = graph_type(ndim=self.dimension, metric="cos", dtype="i8", connectivity=16)
        self._builder = threading.Thread(target=self._build, args=(graph,), name="llmcost-vectors")
        self._builder.start()

    def _build(self, graph: Any) -> None:
        """Fill a graph while searches and changes go on, pass after pass until little is missing; then use it."""
        known: set[int] = set()
        try:
            while (missing := self._finish(graph, known)) and self._fill(graph, missing, known):
                pass
        finally:
            self._builder = None

    def _fill(self, graph: Any, missing: list[int], known: set[int]) -> bool:
        """Add vectors to a graph that nobody uses yet; tell whether it is of use still."""
        for start in range(0, len(missing), _CHUNK):
            with self._lock:
                numbers, vectors = self._those(missing[start : start + _CHUNK])
            if not threading.main_thread().is_alive() or vectors.shape[1] != graph.ndim:
                return False
            graph.add(numbers, vectors, threads=1)
            known.update(numbers.tolist())
        return True

    def _finish(self, graph: Any, known: set[int]) -> list[int]:
        """Return what the graph lacks; where that is little, add it and use the graph from now on."""
        with self._lock:
            missing = [number for number in self._rows if number not in known]
            if len(missing) > _CHUNK:
                return missing
            if len(missing) + len(known) >= LARGE // 2 and graph.ndim == self.dimension:
                graph.remove(np.array([number for number in known if number not in self._rows], np.uint64), threads=1)
                graph.add(*self._those(missing), threads=1)
                self._graph = graph
                self._left.clear()
        return []

    def _those(self, numbers: list[int]) -> tuple[NDArray[np.uint64], Vector]:
        rows = {number: self._rows[number] for number in numbers if number in self._rows}
        return np.array(list(rows), np.uint64), self._matrix[np.array(list(rows.values()), np.intp)]

    def _renew(self) -> None:
        if self._lock.locked():
            self._graph = None  # another thread may have been changing it
        self._lock = threading.Lock()
        self._builder = None


def _doubled(rows: NDArray[F]) -> NDArray[F]:
    larger = np.zeros((2 * len(rows), *rows.shape[1:]), rows.dtype)
    larger[: len(rows)] = rows
    return larger


def _greatest(cosines: Vector, limit: int) -> NDArray[np.intp]:
    """Return rows that hold the `limit` greatest, and few others.

    The greatest of each of many blocks are at hand quickly, and the `limit`th of them bounds what is sought.
    """
    blocks = len(cosines) // _BLOCK
    if blocks < limit:
        return np.arange(len(cosines))
    maxima = cosines[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
    bound = np.partition(maxima, blocks - limit)[blocks - limit]
    return np.flatnonzero(cosines >= bound)


@cache
def _graph_type() -> Any:
    """Return usearch's index, or None, once with a word on what is missed."""
    try:
        from usearch.index import Index
    except ImportError:
        _log.warning(
            "more than %d vectors of one space are searched slowly without usearch; "
            'run: pip install "llmcost-plugins[large]"',
            LARGE,
        )
        return None
    return Index
