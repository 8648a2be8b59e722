"""A store in this process's memory."""

import threading
from heapq import heapify, heappop, heappush, heappushpop, nsmallest
from itertools import count
from typing import TYPE_CHECKING

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan
from llmcost_plugins.stores.worth import worth
from llmcost_plugins.types import Entry, Neighbour

if TYPE_CHECKING:
    from llmcost_plugins.stores.vectors import VectorIndex

_SPARE_RANKS = 64  # of entries that are gone


class Memory:
    """Keeps everything in this process, and nothing beyond it.

    Args:
        max_entries: How many answers of a namespace are kept. The one of least worth goes first: what one hit saves,
            times the hits and one, halved for every day without use; among those of equal worth the one unused for
            longest.
    """

    def __init__(self, *, max_entries: int = 10_000) -> None:
        if max_entries < 1:
            raise ConfigurationError(f"`max_entries` is {max_entries!r}; expected at least 1")
        self._max_entries = max_entries
        self._entries: dict[str, MemoryEntries] = {}

    def __repr__(self) -> str:
        return f"Memory(entries={sum(map(len, self._entries.values()))})"

    def entries(self, namespace: str = "") -> "MemoryEntries":
        """Return where the caches of a namespace keep their answers."""
        if namespace not in self._entries:
            self._entries.setdefault(namespace, MemoryEntries(self._max_entries))
        return self._entries[namespace]


class _Kept:
    """An entry with what its worth depends on. `number` names its vector; `turn` orders uses at the same time."""

    __slots__ = ("entry", "hits", "number", "turn", "used")

    def __init__(self, entry: Entry, number: int) -> None:
        self.entry = entry
        self.number = self.turn = number
        self.used = entry.created
        self.hits = 0

    def rank(self) -> tuple[float, int]:
        return worth(self.entry.value, self.hits, self.used), self.turn


class MemoryEntries:
    """Answers of one namespace."""

    def __init__(self, max_entries: int) -> None:
        self._max = max_entries
        self._by_key: dict[str, _Kept] = {}
        self._turns = count()
        self._latest = 0.0
        self._arrange()
        self._lock = threading.Lock()
        after_fork(self, MemoryEntries._renew)

    def _renew(self) -> None:
        if self._lock.locked():
            self._arrange()  # another thread may have been changing it
        self._lock = threading.Lock()

    def _arrange(self) -> None:
        """Make from the entries themselves all that helps to find them."""
        self._by_tag: dict[str, set[_Kept]] = {}
        self._indexes: dict[str, VectorIndex] = {}
        self._ranks: list[tuple[tuple[float, int], _Kept]] = []
        for kept in self._by_key.values():
            self._add_vector(kept)
            self._link(kept)

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: str) -> Plan[Entry | None]:
        """Return the entry, expired or not, or None."""
        with self._lock:
            kept = self._by_key.get(key)
            if kept is not None:
                self._use(kept, self._latest)
        return None if kept is None else kept.entry
        yield

    def put(self, entry: Entry) -> Plan[None]:
        """Store the entry in place of one with the same key."""
        with self._lock:
            kept = _Kept(entry, next(self._turns))
            self._add_vector(kept)
            if not self._take(entry.key) and len(self._by_key) >= self._max:
                self._evict()
            self._by_key[entry.key] = kept
            self._link(kept)
            self._latest = max(self._latest, entry.created)
        return
        yield

    def delete(self, key: str) -> Plan[bool]:
        """Remove the entry; tell whether there was one."""
        with self._lock:
            return self._take(key)
        yield

    def clear(self) -> Plan[None]:
        """Remove every entry."""
        with self._lock:
            self._by_key.clear()
            self._arrange()
        return
        yield

    def near(self, space: str, vector: bytes, limit: int, now: float) -> Plan[list[Neighbour]]:
        """Return the entries of the space that are nearest to the vector and not expired, the nearest first."""
        with self._lock:
            index = self._indexes.get(space)
            if index is not None:
                index.forget(now)
        return [] if index is None else index.near(vector, limit)
        yield

    def touch(self, key: str, now: float) -> Plan[None]:
        """Count a hit."""
        with self._lock:
            self._latest = max(self._latest, now)
            kept = self._by_key.get(key)
            if kept is not None:
                kept.hits += 1
                self._use(kept, now)
        return
        yield

    def invalidate(self, tag: str) -> Plan[int]:
        """Remove every entry that has the tag; tell how many there were."""
        with self._lock:
            return sum(self._take(kept.entry.key) for kept in list(self._by_tag.get(tag, ())))
        yield

    def page(self, after: str | None, limit: int) -> Plan[list[Entry]]:
        """Return the entries that follow the key `after` in the order of keys."""
        with self._lock:
            keys = nsmallest(limit, (key for key in self._by_key if after is None or key > after))
            return [self._by_key[key].entry for key in keys]
        yield

    def count(self) -> Plan[int]:
        """Tell how many entries there are, expired or not."""
        return len(self._by_key)
        yield

    def _use(self, kept: _Kept, now: float) -> None:
        kept.used = max(kept.used, now)
        kept.turn = next(self._turns)

    def _add_vector(self, kept: _Kept) -> None:
        entry = kept.entry
        if entry.space and entry.vector is not None:
            index = self._index(entry.space)
            index.put(kept.number, entry.vector, entry.key, entry.question, entry.expires)

    def _link(self, kept: _Kept) -> None:
        for tag in kept.entry.tags:
            self._by_tag.setdefault(tag, set()).add(kept)
        heappush(self._ranks, (kept.rank(), kept))

    def _index(self, space: str) -> "VectorIndex":
        from llmcost_plugins.stores.vectors import VectorIndex

        if space not in self._indexes:
            self._indexes[space] = VectorIndex()
        return self._indexes[space]

    def _take(self, key: str) -> bool:
        kept = self._by_key.pop(key, None)
        if kept is None:
            return False
        self._unlink(kept)
        return True

    def _unlink(self, kept: _Kept) -> None:
        entry = kept.entry
        index = self._indexes.get(entry.space)
        if index is not None and index.remove(kept.number) and not index:
            del self._indexes[entry.space]
        for tag in entry.tags:
            if tagged := self._by_tag.get(tag):
                tagged.discard(kept)
                if not tagged:
                    del self._by_tag[tag]
        if len(self._ranks) > 2 * len(self._by_key) + _SPARE_RANKS:
            self._ranks = [ranked for ranked in self._ranks if self._is_kept(ranked[1])]
            heapify(self._ranks)

    def _evict(self) -> None:
        """Remove the entry of least worth; since a rank was pushed on the heap it can only have risen."""
        pushed, kept = heappop(self._ranks)
        while not self._is_kept(kept) or kept.rank() > pushed:
            if self._is_kept(kept):
                pushed, kept = heappushpop(self._ranks, (kept.rank(), kept))
            else:
                pushed, kept = heappop(self._ranks)
        self._take(kept.entry.key)

    def _is_kept(self, kept: _Kept) -> bool:
        return self._by_key.get(kept.entry.key) is kept
