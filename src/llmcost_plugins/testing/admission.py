"""Which requests are refused: rate limits and scripted failures."""

import contextlib
import math
import random
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TypeVar

from llmcost_plugins.testing.records import Clock, Failure, Limits, StreamDrop
from llmcost_plugins.testing.wire import Dialect, RefusedError

_WINDOW_SECONDS = 60.0

_Scripted = TypeVar("_Scripted", Failure, StreamDrop)


class _Window:
    """What was spent of a per-minute limit."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._spent: deque[tuple[float, int]] = deque()
        self._used = 0

    def used(self) -> int:
        """Return what was spent in the last minute."""
        horizon = self._clock() - _WINDOW_SECONDS
        while self._spent and self._spent[0][0] <= horizon:
            self._used -= self._spent.popleft()[1]
        return self._used

    def spend(self, amount: int) -> None:
        """Take from the limit, below zero if need be."""
        self._spent.append((self._clock(), amount))
        self._used += amount

    def seconds_until_reset(self) -> float:
        """Return how long it takes until the whole limit is left again."""
        return self._spent[-1][0] + _WINDOW_SECONDS - self._clock() if self._spent else 0.0

    def seconds_until(self, amount: int) -> float:
        """Return how long it takes until that much is left again, or a whole minute if it never is."""
        excess = self.used() + amount - self.limit
        for when, spent in self._spent:
            excess -= spent
            if excess <= 0:
                return when + _WINDOW_SECONDS - self._clock()
        return _WINDOW_SECONDS


class _ModelGate:
    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._concurrency = limits.concurrency
        self._running = 0
        per_minute = {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}
        self._windows = {kind: _Window(limit, clock) for kind, limit in per_minute.items() if limit is not None}

    def enter(self, dialect: Dialect, model: str, tokens: int) -> None:
        """Let a request in, or raise `RefusedError`."""
        wanted = {"requests": 1, "tokens": tokens}
        for kind, window in self._windows.items():
            if window.used() + wanted[kind] > window.limit:
                wait = window.seconds_until(wanted[kind])
                detail = f"{kind} per min: Limit {window.limit}, Used {window.used()}, Requested {wanted[kind]}"
                raise _too_many(model, detail, wait, kind, self.headers(dialect))
        if self._concurrency is not None and self._running >= self._concurrency:
            detail = f"concurrent requests: Limit {self._concurrency}"
            raise _too_many(model, detail, 1.0, "requests", self.headers(dialect))
        self._running += 1
        for kind, window in self._windows.items():
            window.spend(wanted[kind])

    def charge(self, tokens: int) -> None:
        """Count output tokens against the limit."""
        if "tokens" in self._windows:
            self._windows["tokens"].spend(tokens)

    def leave(self) -> None:
        """Count a request that was let in as over."""
        self._running -= 1

    def headers(self, dialect: Dialect) -> dict[str, str]:
        """Write the state of the limits."""
        headers: dict[str, str] = {}
        for kind, window in self._windows.items():
            left = max(0, window.limit - window.used())
            headers |= dialect.limit_headers(kind, window.limit, left, window.seconds_until_reset())
        return headers


class RateGate:
    """Keeps every model's requests within its limits."""

    def __init__(self, limits: Mapping[str, Limits] | Limits | None, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._gates: dict[str, _ModelGate] = {}

    @contextlib.contextmanager
    def admit(self, dialect: Dialect, model: str, tokens: int) -> Iterator[_ModelGate | None]:
        """Let a request in while the context lasts, or raise `RefusedError`; None for a model without limits."""
        gate = self._gate(model)
        if gate is None:
            yield None
            return
        gate.enter(dialect, model, tokens)
        try:
            yield gate
        finally:
            gate.leave()

    def reset(self) -> None:
        """Start with unspent limits."""
        self._gates = {}

    def _gate(self, model: str) -> _ModelGate | None:
        limits = self._limits if isinstance(self._limits, Limits) else (self._limits or {}).get(model)
        if limits is None:
            return None
        if model not in self._gates:
            self._gates[model] = _ModelGate(limits, self._clock)
        return self._gates[model]


def _too_many(model: str, detail: str, wait: float, kind: str, headers: Mapping[str, str]) -> RefusedError:
    message = f"Rate limit reached for {model} on {detail}. Please try again in {wait:.3f}s."
    return RefusedError(429, message, code="rate_limit_exceeded", kind=kind, headers={**headers, **retry_headers(wait)})


def retry_headers(seconds: float) -> dict[str, str]:
    """Tell the client how long to wait, in whole seconds and exactly."""
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}


class Script:
    """The failures and drops to come, written by users' threads and read by the server's."""

    def __init__(self, failure_rate: float, seed: int) -> None:
        self._failure_rate = failure_rate
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._failures: deque[Failure] = deque()
        self._drops: deque[StreamDrop] = deque()
        self._lock = threading.Lock()

    def add_failure(self, failure: Failure) -> None:
        """Append to the failures, once per time it is to happen."""
        with self._lock:
            self._failures.extend([failure] * failure.times)

    def add_drop(self, drop: StreamDrop) -> None:
        """Append to the drops, once per time it is to happen."""
        with self._lock:
            self._drops.extend([drop] * drop.times)

    def check(self, model: str) -> None:
        """Raise `RefusedError` if this request is to fail."""
        failure = self._take(self._failures, model)
        if failure is not None:
            headers = {} if failure.retry_after is None else retry_headers(failure.retry_after)
            raise RefusedError(failure.status, f"Scripted failure with status {failure.status}", headers=headers)
        if self._failure_rate and self._random.random() < self._failure_rate:
            raise RefusedError(500, "The server had an error while processing your request. Sorry about that!")

    def take_drop(self, model: str) -> StreamDrop | None:
        """Return how this stream is to be dropped, if at all."""
        return self._take(self._drops, model)

    def clear(self) -> None:
        """Forget what was scripted."""
        with self._lock:
            self._failures.clear()
            self._drops.clear()

    def _take(self, queue: deque[_Scripted], model: str) -> _Scripted | None:
        with self._lock:
            found = next((entry for entry in queue if entry.model in (None, model)), None)
            if found is not None:
                queue.remove(found)
            return found
