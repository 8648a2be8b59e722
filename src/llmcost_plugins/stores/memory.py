"""A store in this process's memory."""

import threading

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan
from llmcost_plugins.types import Entry


class Memory:
    """Keeps everything in this process, and nothing beyond it.

    Args:
        max_entries: How many answers of a namespace are kept; the one unused for longest goes first.
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
        return self._entries.setdefault(namespace, MemoryEntries(self._max_entries))


class MemoryEntries:
    """Answers in order of their last use."""

    def __init__(self, max_entries: int) -> None:
        self._max = max_entries
        self._by_key: dict[str, Entry] = {}
        self._renew_lock()
        after_fork(self, MemoryEntries._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: str) -> Plan[Entry | None]:
        """Return the entry, expired or not, or None."""
        with self._lock:
            entry = self._by_key.pop(key, None)
            if entry is not None:
                self._by_key[key] = entry
        return entry
        yield

    def put(self, entry: Entry) -> Plan[None]:
        """Store the entry in place of one with the same key."""
        with self._lock:
            self._by_key.pop(entry.key, None)
            self._by_key[entry.key] = entry
            if len(self._by_key) > self._max:
                del self._by_key[next(iter(self._by_key))]
        return
        yield

    def delete(self, key: str) -> Plan[bool]:
        """Remove the entry; tell whether there was one."""
        with self._lock:
            return self._by_key.pop(key, None) is not None
        yield

    def clear(self) -> Plan[None]:
        """Remove every entry."""
        with self._lock:
            self._by_key.clear()
        return
        yield
