"""How a compressor is told to work, checked once."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from llmcost_plugins.compression.passages import Passage
from llmcost_plugins.errors import ConfigurationError

NAMES = ("bm25", "hybrid", "hybrid+head")


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be left: a share of what there was, or a number of tokens."""

    ratio: float | None
    tokens: int | None

    def of(self, before: int) -> int:
        """Return the tokens that passages of so many may have."""
        return self.tokens if self.tokens is not None else int(before / (self.ratio or 1.0))


def budget_of(ratio: float | None, tokens: int | None, window: int | None, reserve: int) -> Budget:
    """Return the budget that the arguments ask for; a ratio of 4 where they ask for none.

    Raises:
        ConfigurationError: More than one is given, or one is out of its range.
    """
    if sum(given is not None for given in (ratio, tokens, window)) > 1:
        raise ConfigurationError("give one of `ratio`, `tokens` and `window`, not several")
    if window is not None:
        _check_integer("window", window, 1)
        _check_integer("reserve", reserve, 0)
        tokens = window - reserve
    if tokens is not None:
        _check_integer("tokens" if window is None else "window - reserve", tokens, 1)
        return Budget(None, tokens)
    ratio = 4.0 if ratio is None else ratio
    if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not isfinite(ratio) or ratio < 1:
        raise ConfigurationError(f"`ratio` is {ratio!r}; expected a number from 1: 4 leaves a quarter")
    return Budget(float(ratio), None)


def patterns(protect: Sequence[str | re.Pattern[str]]) -> tuple[re.Pattern[str], ...]:
    """Compile the patterns of what must be kept.

    Raises:
        ConfigurationError: It is one text rather than a list of them, or no regular expression.
    """
    if isinstance(protect, str | bytes):
        raise ConfigurationError(f"`protect` is one text; expected a list of patterns, such as [{protect!r}]")
    try:
        compiled = tuple(re.compile(pattern) for pattern in protect)
        for pattern in compiled:
            pattern.search("")  # one of bytes is refused
    except (re.error, TypeError) as error:
        raise ConfigurationError(f"`protect` has what is no regular expression: {error}") from error
    return compiled


def check_numbers(min_tokens: int, deadline: float | None, remembered: int) -> None:
    """Make sure that the numbers are ones to work with."""
    _check_integer("min_tokens", min_tokens, 0)
    _check_integer("remembered", remembered, 1)
    if deadline is not None and not (isinstance(deadline, int | float) and deadline > 0):
        raise ConfigurationError(f"`deadline` is {deadline!r}; expected seconds above 0, or None")


def check_header(header: str) -> None:
    """Make sure that the header can be filled in."""
    try:
        header.format(number=1, title="")
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ConfigurationError(f"`header` is {header!r}; expected text with {{title}} and {{number}} only") from error


def checked(query: Any, passages: Any) -> tuple[Passage, ...]:
    """Return the passages, made sure that they and the question are what they must be.

    Raises:
        ConfigurationError: The question is no text, or an item is no passage with text.
    """
    if not isinstance(query, str):
        raise ConfigurationError(f"`query` is of type {type(query).__name__}; expected a text")
    listed = tuple(passages)
    for place, passage in enumerate(listed):
        if not isinstance(passage, Passage) or not isinstance(passage.text, str) or not isinstance(passage.title, str):
            raise ConfigurationError(
                f"`passages[{place}]` is {passage!r:.80}; expected a `Passage` whose text is a str"
            )
    return listed


def check_scorer(scorer: Any) -> None:
    """Make sure that the scorer is one."""
    if isinstance(scorer, str) and scorer not in NAMES:
        raise ConfigurationError(f"`scorer` is {scorer!r}; expected one of {', '.join(NAMES)}, or what scores texts")
    if not isinstance(scorer, str) and not callable(scorer) and not hasattr(scorer, "score"):
        raise ConfigurationError(
            f"`scorer` is of type {type(scorer).__name__}; expected a name, a `Scorer` or a function"
        )


def _check_integer(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"`{name}` is {value!r}; expected an integer from {least}")


Score = Callable[[str, list[str]], Any]
