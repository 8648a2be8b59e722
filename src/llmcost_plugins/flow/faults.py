"""What the errors of many providers' clients mean for other models.

They are known by status, code and name, so that none of the providers' packages is needed.
"""

import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from llmcost_plugins.types import Fault

_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|limit)|maximum context|(?:prompt|input) is too long|too many (?:input )?tokens"
    r"|exceeds? the (?:maximum|limit) .{0,30}tokens",
    re.IGNORECASE,
)
_REFUSED = frozenset({400, 413, 422})
_PASSING = frozenset({408, 409, 425})
_RATE_LIMITS = frozenset({"RateLimitError", "ModelRateLimitError", "ResourceExhausted", "TooManyRequests"})
_OUTAGES = frozenset(
    {
        "APIConnectionError",
        "APITimeoutError",
        "InternalServerError",
        "ModelAPIError",
        "ModelConnectionError",
        "ModelTimeoutError",
        "ServiceUnavailable",
        "TransportError",
    }
)


def fault_of(error: Exception, clock: Callable[[], float] = time.time) -> Fault:
    """Say what an error means; one that is not known would be the same anywhere."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = _status(error)
    if _too_long(error, status, names):
        return Fault("too_long")
    if status == 429 or names & _RATE_LIMITS:
        return Fault("rate_limit", _retry_after(error, clock))
    passing = status is not None and (status in _PASSING or status >= 500)
    if passing or isinstance(error, TimeoutError | ConnectionError) or (status is None and names & _OUTAGES):
        return Fault("unavailable", _retry_after(error, clock))
    return Fault("fatal")


def _too_long(error: Exception, status: int | None, names: set[str]) -> bool:
    if "ContextOverflowError" in names or _get(error, "code") == "context_length_exceeded":
        return True
    return status in _REFUSED and bool(_TOO_LONG.search(str(error)))


def _status(error: Exception) -> int | None:
    candidates = _get(error, "status_code"), _get(_get(error, "response"), "status_code"), _get(error, "code")
    return next((value for value in candidates if isinstance(value, int) and 100 <= value < 600), None)


def _retry_after(error: Exception, clock: Callable[[], float]) -> float | None:
    """Return the seconds that the provider asks to be left alone, None where it does not say."""
    headers = _get(_get(error, "response"), "headers")
    if not isinstance(headers, Mapping):
        return None
    given = headers.get("retry-after")
    try:
        if headers.get("retry-after-ms"):
            return max(0.0, float(headers["retry-after-ms"]) / 1_000)
        return max(0.0, float(given)) if given else None
    except ValueError:
        return _until(given, clock)


def _until(date: Any, clock: Callable[[], float]) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - clock())
    except (TypeError, ValueError):
        return None


def _get(thing: Any, name: str) -> Any:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)
