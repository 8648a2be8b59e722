"""Single-flight: of identical requests under way, one leads and the others wait for its answer."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan, do


class Turn(NamedTuple):
    """What waiting for one's turn ended in: an answer to share, or asking oneself, as the one that `leads` or alone.

    The answer comes as it is stored, so that nobody's copy is another's.
    """

    payload: bytes | None
    leads: bool


_ALONE = Turn(None, leads=False)
_LEADS = Turn(None, leads=True)


@dataclass(frozen=True, slots=True)
class _Leader:
    """Who is asking; `result` is what the others will be told, None if the leader left without an answer."""

    result: "Future[Turn | None]" = field(default_factory=Future)
    thread: int = field(default_factory=threading.get_ident)
    task: "asyncio.Task[Any] | None" = field(default_factory=lambda: _current_task())


class Turns:
    """Turns within one process; threads and event loops meet on `concurrent.futures.Future`.

    Nobody waits for itself: a request made while the same caller is still reading the answer to an identical one is
    asked alone. Nor does anybody wait for more than `patience` seconds, should a leader's reader never come back.
    """

    def __init__(self, *, patience: float = 60.0) -> None:
        self._patience = patience
        self._begin()
        after_fork(self, Turns._begin)

    def _begin(self) -> None:
        self._leaders: dict[str, _Leader] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._leaders)

    def take(self, key: str) -> Plan[Turn]:
        """Lead if nobody does; otherwise wait for the leader's answer, and lead if it left without one."""
        deadline = time.monotonic() + self._patience
        while True:
            with self._lock:
                leader = self._leaders.get(key)
                if leader is None:
                    self._leaders[key] = _Leader()
                    return _LEADS
            turn = yield from do(*_waiting(leader, max(0.0, deadline - time.monotonic())))
            if turn is not None:
                return turn

    def give(self, key: str, payload: bytes | None) -> None:
        """Share the leader's answer; with None those that wait ask alone, all at once."""
        self._end(key, _ALONE if payload is None else Turn(payload, leads=False))

    def leave(self, key: str) -> None:
        """End the leader's turn without an answer: the next of those that wait leads."""
        self._end(key, None)

    def _end(self, key: str, turn: Turn | None) -> None:
        with self._lock:
            leader = self._leaders.pop(key, None)
        if leader is not None:
            leader.result.set_result(turn)


def _waiting(
    leader: _Leader, patience: float
) -> tuple[Callable[[], Turn | None], Callable[[], Awaitable[Turn | None]]]:
    def wait() -> Turn | None:
        if leader.thread == threading.get_ident():
            return _ALONE  # the leader cannot go on while this thread waits
        try:
            return leader.result.result(patience)
        except TimeoutError:
            return _ALONE

    async def await_() -> Turn | None:
        if leader.task is not None and leader.task is _current_task():
            return _ALONE
        try:
            waiting = asyncio.shield(asyncio.wrap_future(leader.result))  # a cancelled waiter must not end the turn
            return await asyncio.wait_for(waiting, patience)
        except TimeoutError:
            return _ALONE

    return wait, await_


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
