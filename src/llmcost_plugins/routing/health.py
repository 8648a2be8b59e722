"""Which deployments are well: limits kept, rate limits honoured, and failing ones left alone for a while."""

import random
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from llmcost_plugins.forks import after_fork
from llmcost_plugins.types import Deployment, Fault, Tier

_MINUTE = 60.0
_FAILURES = 3  # in a row, before a deployment is left alone
_FIRST_REST = 30.0  # seconds; twice as long after every probe that fails
_LONGEST_REST = 300.0
_FIRST_WAIT = 1.0  # after a rate limit without a Retry-After; twice as long each time in a row
_NEWEST = 0.1  # weight of the newest call in the mean of how long they take
_PROBE = 60.0  # seconds after which a probe that never reported back is given up


class Place(NamedTuple):
    """Where a call may go: `tier` is the tier with the deployment's own model in it."""

    tier: Tier
    key: tuple[str, str]
    deployment: Deployment


@dataclass(slots=True)
class _Window:
    """What was spent in the last minute."""

    spent: deque[tuple[float, int]] = field(default_factory=deque)
    used: int = 0

    def spend(self, now: float, amount: int) -> None:
        self.spent.append((now, amount))
        self.used += amount

    def free_at(self, limit: int | None, now: float) -> float:
        """Return the moment from which less than the limit is spent."""
        while self.spent and self.spent[0][0] <= now - _MINUTE:
            self.used -= self.spent.popleft()[1]
        excess = self.used - limit if limit is not None else -1
        for when, amount in self.spent if excess >= 0 else ():
            excess -= amount
            if excess < 0:
                return when + _MINUTE
        return 0.0


@dataclass(slots=True)
class _State:
    under_way: int = 0
    failures: int = 0
    limited: int = 0
    rest: float = _FIRST_REST
    asked_until: float = 0.0  # by the provider
    closed_until: float = 0.0
    probing_until: float = 0.0
    seconds: float | None = None
    requests: _Window = field(default_factory=_Window)
    tokens: _Window = field(default_factory=_Window)


class Health:
    """Remembers how deployments fared, in this process.

    After three failures in a row (timeouts, lost connections, server errors) a deployment rests for 30 s, then one call
    probes it; every probe that fails doubles the rest, up to 5 minutes. After a rate limit it rests for as long as the
    provider asks.

    Args:
        clock: Seconds since the epoch.
        draw: Draws a number from 0 to 1, by which calls are spread.
    """

    def __init__(self, *, clock: Callable[[], float], draw: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._draw = draw
        self._begin()
        after_fork(self, Health._begin)

    def __reduce__(self) -> tuple[Callable[..., "Health"], tuple[Callable[[], float], Callable[[], float]]]:
        return _new, (self._clock, self._draw)  # how deployments fare is this process's knowledge

    def _begin(self) -> None:
        self._states: dict[tuple[str, str], _State] = {}
        self._lock = threading.Lock()

    def places(self, tier: Tier) -> list[Place]:
        """Return a tier's deployments in the order to try them: first those with the fewest calls under way.

        Calls are counted by weight; among equals a draw decides, which the heavier win more often.
        """
        found = places_of(tier)
        return found if len(found) == 1 else sorted(found, key=self._load)

    def begin(self, place: Place, tokens: int, *, forced: bool = False) -> bool:
        """Count a call of about so many tokens; False where the deployment is to be left alone now."""
        now = self._clock()
        with self._lock:
            state = self._states.setdefault(place.key, _State())
            if not forced and self._ready_at(state, place.deployment, now) > now:
                return False
            if state.closed_until and state.failures >= _FAILURES:
                state.probing_until = now + _PROBE
            state.under_way += 1
            if place.deployment.requests_per_minute is not None:
                state.requests.spend(now, 1)
            if place.deployment.tokens_per_minute is not None:
                state.tokens.spend(now, tokens)
            return True

    def succeeded(self, place: Place, seconds: float | None = None) -> None:
        """Take a deployment for well, and note how long it took."""
        with self._lock:
            state = self._over(place)
            if seconds is not None:
                before = seconds if state.seconds is None else state.seconds
                state.seconds = before + _NEWEST * (seconds - before)
            state.failures = state.limited = 0  # what the provider asked for still holds
            state.closed_until = state.probing_until = 0.0
            state.rest = _FIRST_REST

    def failed(self, place: Place, fault: Fault) -> None:
        """Count a failure; only those that are the deployment's own make it rest."""
        now = self._clock()
        with self._lock:
            state = self._over(place)
            state.probing_until = 0.0
            if fault.retry_after:
                state.asked_until = max(state.asked_until, now + fault.retry_after)
            elif fault.kind == "rate_limit" and state.asked_until <= now:
                state.asked_until = now + min(_FIRST_WAIT * 2**state.limited, _MINUTE)
                state.limited = min(state.limited + 1, 8)
            if fault.kind == "unavailable":
                self._rest(state, now)

    def released(self, place: Place) -> None:
        """Forget a call that was given up before it came to anything; another may probe in its place."""
        with self._lock:
            self._over(place).probing_until = 0.0

    def seconds(self, tier: Tier) -> float | None:
        """Return how long a tier's answers take, None before the first."""
        with self._lock:
            known = [state.seconds for key, state in self._states.items() if key[0] == tier.name]
        measured = [seconds for seconds in known if seconds is not None]
        return min(measured, default=None)

    def _over(self, place: Place) -> _State:
        state = self._states.setdefault(place.key, _State())
        state.under_way = max(0, state.under_way - 1)
        return state

    def _load(self, place: Place) -> tuple[float, float]:
        weight, state = place.deployment.weight, self._states.get(place.key)
        return (0 if state is None else state.under_way) / weight, -(self._draw() ** (1 / weight))

    def ready_in(self, tiers: Iterable[Tier]) -> float:
        """Return how many seconds it takes until a deployment of one of the tiers may be called; 0 is at once."""
        now = self._clock()
        with self._lock:
            waits = [
                self._ready_at(self._states.get(place.key) or _State(), place.deployment, now) - now
                for tier in tiers
                for place in places_of(tier)
            ]
        return max(0.0, min(waits, default=0.0))

    def _rest(self, state: _State, now: float) -> None:
        """Count a failure; those of calls that were under way when the rest began say nothing new."""
        state.failures += 1
        if state.failures >= _FAILURES and state.closed_until <= now:
            state.closed_until = now + state.rest
            state.rest = min(2 * state.rest, _LONGEST_REST)

    def _ready_at(self, state: _State, deployment: Deployment, now: float) -> float:
        """Return the moment from which the deployment may be called."""
        requests = state.requests.free_at(deployment.requests_per_minute, now)
        tokens = state.tokens.free_at(deployment.tokens_per_minute, now)
        return max(state.asked_until, state.closed_until, state.probing_until, requests, tokens)


def places_of(tier: Tier) -> list[Place]:
    """Return where a tier's calls may go."""
    if not tier.deployments:
        return [Place(tier, (tier.name, ""), Deployment(tier.model))]
    return [
        Place(
            replace(
                tier,
                model=deployment.model,
                deployments=(),
                provider=deployment.provider or tier.provider,
                model_name=deployment.model_name or tier.model_name,
            ),
            (tier.name, deployment.name or str(number)),
            deployment,
        )
        for number, deployment in enumerate(tier.deployments)
    ]


def _new(clock: Callable[[], float], draw: Callable[[], float]) -> Health:
    return Health(clock=clock, draw=draw)
