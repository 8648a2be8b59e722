"""Turning the semantic tier off where it does not pay."""

import threading
from dataclasses import dataclass, field

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork


@dataclass(slots=True)
class _Endpoint:
    results: list[bool] = field(default_factory=list)
    before: float = 1.0
    off: bool = False
    skipped: int = 0


class KillSwitch:
    """Turns look-ups by meaning off for an endpoint whose hit rate stays low, and on again when probes hit.

    The look-ups by words go on: they cost microseconds. An endpoint is a `feature` of the scope. It is turned off after
    two windows in a row with a low hit rate, the second no better than the first: a cache that is still filling is
    given time.

    Args:
        min_hit_rate: Below it an endpoint is turned off, from it on it is turned on again.
        window: How many of the newest look-ups are judged, and how many there must be.
        probe: The share of look-ups that goes through while an endpoint is off.
    """

    def __init__(self, *, min_hit_rate: float = 0.15, window: int = 100, probe: float = 0.05) -> None:
        if not (0 < min_hit_rate < 1 and 0 < probe <= 1 and window >= 1):
            raise ConfigurationError("`min_hit_rate` and `probe` must lie between 0 and 1, `window` must be at least 1")
        self._min_hit_rate = min_hit_rate
        self._window = window
        self._every = round(1 / probe)
        self._begin()
        after_fork(self, KillSwitch._begin)

    def _begin(self) -> None:
        self._endpoints: dict[str, _Endpoint] = {}
        self._lock = threading.Lock()

    def allows(self, endpoint: str) -> bool:
        """Tell whether the next look-up of an endpoint goes through."""
        with self._lock:
            state = self._endpoints.get(endpoint)
            if state is None or not state.off:
                return True
            state.skipped += 1
            return state.skipped % self._every == 0

    def note(self, endpoint: str, *, hit: bool) -> None:
        """Count the outcome of a look-up that went through, and judge the endpoint anew."""
        with self._lock:
            state = self._endpoints.setdefault(endpoint, _Endpoint())
            state.results.append(hit)
            if len(state.results) >= (self._window // 5 if state.off else self._window):
                self._judge(state)

    def _judge(self, state: _Endpoint) -> None:
        rate = sum(state.results) / len(state.results)
        low = rate < self._min_hit_rate
        stays_low = low and (state.off or rate <= state.before < self._min_hit_rate)
        if stays_low != state.off:
            state.off, state.skipped, rate = stays_low, 0, 1.0
        state.before = rate
        state.results.clear()
