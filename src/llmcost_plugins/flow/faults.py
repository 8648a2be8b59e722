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
        "ClientConnectionError",
        "ConnectionError",
        "InternalServerError",
        "ModelAPIError",
        "ModelConnectionError",
        "ModelTimeoutError",
        "ServiceUnavailable",
        "Timeout",
        "TransportError",
    }
)
_LIMIT_WORDS = frozenset({"rate_limit_error", "rate_limit_exceeded"})
_OUTAGE_WORDS = frozenset({"api_error", "internal_server_error", "overloaded_error", "server_error", "timeout_error"})


def fault_of(error: Exception, clock: Callable[[], float] = time.time) -> Fault:
    """Say what an error means; one that is not known would be the same anywhere."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = _status(error)
    if _too_long(error, status, names):
        return Fault("too_long")
    words = _words(error) if status in (None, 200) else set()  # what comes in a stream has no status of its own
    if status == 429 or names & _RATE_LIMITS or words & _LIMIT_WORDS:
        return Fault("rate_limit", _retry_after(error, clock))
    passing = status is not None and (status in _PASSING or status >= 500)
    known = (status is None and names & _OUTAGES) or words & _OUTAGE_WORDS
    if passing or known or isinstance(error, TimeoutError | ConnectionError):
        return Fault("unavailable", _retry_after(error, clock))
    return Fault("fatal")


def _too_long(error: Exception, status: int | None, names: set[str]) -> bool:
    if "ContextOverflowError" in names or _get(error, "code") == "context_length_exceeded":
        return True
    return status in _REFUSED and bool(_TOO_LONG.search(str(error)))


def _status(error: Exception) -> int | None:
    response = _get(error, "response")
    candidates = (
        _get(error, "status_code"),
        _get(response, "status_code"),
        _get(_get(response, "ResponseMetadata"), "HTTPStatusCode"),  # AWS
        _get(error, "code"),
        _get(error, "status"),  # aiohttp
    )
    return next((value for value in candidates if isinstance(value, int) and 100 <= value < 600), None)


def _words(error: Exception) -> set[object]:
    """Return the codes and types by which providers name an error."""
    body = _get(error, "body")
    told = [_get(thing, name) for thing in (error, body, _get(body, "error")) for name in ("code", "type")]
    return {word for word in told if isinstance(word, str)}


def _retry_after(error: Exception, clock: Callable[[], float]) -> float | None:
    """Return the seconds that the provider asks to be left alone, None where it does not say."""
    response = _get(error, "response")
    found = _get(response, "headers") or _get(_get(response, "ResponseMetadata"), "HTTPHeaders")
    if not isinstance(found, Mapping):
        return None
    headers = {str(name).lower(): value for name, value in found.items()}
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
