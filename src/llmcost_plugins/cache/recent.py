"""The answers given last, kept in the process in front of the store."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from llmcost_plugins.forks import after_fork
from llmcost_plugins.types import Entry, Hit

_LARGEST = 64_000  # bytes of an answer that is kept twice, here and in the store


class Answer(NamedTuple):
    """An entry that answered, how it was found, and until when it is given without another look at the store.

    `text` is its payload, verified.
    """

    entry: Entry
    text: bytes
    tier: str
    similarity: float
    category: str
    until: float


class Recent:
    """The answers given last, by the exact request; the one unused for longest goes first.

    Another process may delete an entry from the store that they share: no answer is given for longer than `fresh`
    seconds without a look there. What this process deletes is not given again: whoever looked into the store before
    that has an old `generation`, and puts nothing here.
    """

    def __init__(self, size: int, fresh: float, clock: Callable[[], float]) -> None:
        self._size = size
        self._fresh = fresh
        self._clock = clock
        self.generation = 0
        self._begin()
        after_fork(self, Recent._begin)

    def _begin(self) -> None:
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, exact: str) -> Answer | None:
        """Return the answer to a request, None where there is none or it has grown old."""
        with self._lock:
            answer = self._answers.get(exact)
            if answer is None:
                return None
            if self._clock() < answer.until:
                self._answers.move_to_end(exact)
                return answer
            del self._answers[exact]
            return None

    def put(self, exact: str, entry: Entry, text: bytes, hit: Hit, category: str, generation: int) -> None:
        """Remember how a request was answered, by a look into the store that began at a generation."""
        if len(text) > _LARGEST:
            return
        until = self._clock() + self._fresh
        until = until if entry.expires is None else min(until, entry.expires)
        with self._lock:
            if generation != self.generation:
                return
            self._answers[exact] = Answer(entry, text, hit.tier, hit.similarity, category, until)
            self._answers.move_to_end(exact)
            if len(self._answers) > self._size:
                self._answers.popitem(last=False)

    def drop(self, exact: str) -> None:
        """Forget the answer to a request, as after one of its own."""
        with self._lock:
            self._answers.pop(exact, None)

    def clear(self) -> None:
        """Forget all, as after any deletion; to be called once the store has done its part."""
        with self._lock:
            self.generation += 1
            self._answers.clear()
