"""What the settings of a cache must be like; what cannot work is refused when a cache is made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmcost_plugins.cache.calibration import Calibration, default_calibration
from llmcost_plugins.cache.policy import DEFAULT_POLICIES, Mode, Policy
from llmcost_plugins.embeddings import same_kind
from llmcost_plugins.errors import ConfigurationError


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless the value is one of the choices."""
    if value not in choices:
        raise ConfigurationError(f"`{name}` is {value!r}; expected one of {', '.join(choices)}")


def check_share(name: str, value: float) -> None:
    """Raise unless the value is a share."""
    if not (_is_number(value) and 0 <= value <= 1):
        raise ConfigurationError(f"`{name}` is {value!r}; expected a share from 0 to 1")


def check_error(value: float) -> None:
    """Raise unless the value is a share of wrong answers that may be aimed at."""
    if not (_is_number(value) and 0 < value < 1):
        raise ConfigurationError(f"`max_error` is {value!r}; expected a share above 0 and below 1")


def check_ttl(value: float | None) -> None:
    """Raise unless the value is a time that answers may be kept."""
    if value is not None and not (_is_number(value) and value > 0):
        raise ConfigurationError(f"`ttl` is {value!r}; expected seconds above 0")


def check_recent(size: int, fresh: float) -> None:
    """Raise unless these say how many answers the process keeps, and for how long."""
    if not (isinstance(size, int) and size >= 0):
        raise ConfigurationError(f"`recent` is {size!r}; expected a number of answers, 0 for none")
    if not (_is_number(fresh) and fresh >= 0):
        raise ConfigurationError(f"`fresh` is {fresh!r}; expected seconds, 0 for none")


def check_secret(value: bytes | None) -> None:
    """Raise unless the value can key an HMAC; an empty one, as from an unset variable, would protect nothing."""
    if value is not None and not (isinstance(value, bytes) and value):
        raise ConfigurationError("`secret` must be bytes and not empty, such as os.environ['CACHE_SECRET'].encode()")


def check_text(name: str, value: str) -> None:
    """Raise unless the value is text."""
    if not isinstance(value, str):
        raise ConfigurationError(f"`{name}` is {value!r}; expected text")


def check_callable(name: str, value: Any) -> None:
    """Raise unless the value is None or can be called."""
    if value is not None and not callable(value):
        raise ConfigurationError(f"`{name}` is of type {type(value).__name__}; expected a function")


def texts(name: str, given: str | Iterable[str]) -> tuple[str, ...]:
    """Return texts as a tuple; one text stands for itself, not for its letters."""
    several = (given,) if isinstance(given, str) else tuple(given)
    for text in several:
        check_text(name, text)
    return several


def policies_of(given: Mapping[str, Policy] | None, classify: Callable[[str], str] | None) -> dict[str, Policy]:
    """Return the policy of each category, the default ones where none is given."""
    given = given or {}
    unknown = [f"`{name}`" for name in given if classify is None and name not in DEFAULT_POLICIES]
    if unknown:
        raise ConfigurationError(f"no rule names the category {', '.join(unknown)}; pass `classify` as well")
    for name, policy in given.items():
        if not isinstance(policy, Policy):
            raise ConfigurationError(f"`policies[{name!r}]` is {policy!r}; expected a Policy(mode=..., ttl=...)")
    return {**DEFAULT_POLICIES, **given}


def calibration_of(given: Calibration | str | Path | None, embedder: str, mode: Mode) -> Calibration | None:
    """Return the calibration to use with an embedder; None only where nothing is compared by meaning."""
    calibration = default_calibration(embedder) if given is None else Calibration.of(given)
    if calibration is None and mode == "semantic":
        raise ConfigurationError(
            f"no calibration for {embedder!r}: pass `calibration=calibrate(pairs, embedder=...)`, "
            'or mode="exact" to do without the semantic tier'
        )
    if calibration is not None and not same_kind(calibration.embedder, embedder):
        raise ConfigurationError(
            f"the calibration is one of {calibration.embedder!r}, the embedder is {embedder!r}; likenesses of two "
            "embedders do not compare: calibrate with this one"
        )
    return calibration


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
