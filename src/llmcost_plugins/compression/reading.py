"""What is known of a passage before any question is asked: read once, used for every question."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmcost_plugins.compression.passages import Passage
from llmcost_plugins.compression.segments import Unit, minified, segment
from llmcost_plugins.compression.words import meaningful, words

_PLAIN = re.compile(r"\w+")
_BRACKETED = re.compile(r"\(.*?\)")
_EMBEDDED = 2_000  # characters of a unit that are embedded; what models read of it is shorter


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """A passage as its units, and for each unit what it costs and says.

    `tokens` counts a unit with the blank before it. `words` are those that carry meaning, `plain` is all of them in
    lower case between single blanks, for looking up phrases. `must` tells which units are kept whatever they score.
    """

    units: tuple[Unit, ...]
    tokens: tuple[int, ...]
    words: tuple[tuple[str, ...], ...]
    plain: tuple[str, ...]
    must: tuple[bool, ...]
    title: str
    title_words: tuple[str, ...]
    title_phrase: str

    def to_embed(self) -> list[str]:
        """Return the texts whose vectors stand for the units: the title gives a sentence's pronouns their meaning."""
        lead = f"{self.title}: " if self.title else ""
        return [lead + unit.text[:_EMBEDDED] for unit in self.units]


def read(passage: Passage, count: Callable[[str], int], protect: Sequence[re.Pattern[str]] = ()) -> Reading:
    """Read a passage; `count` counts tokens, units that match one of `protect` must be kept."""
    units = tuple(_shortest(unit, passage.text, count) for unit in segment(passage.text))
    spoken = tuple(plain(unit.text) for unit in units)
    is_simple = passage.text.isascii() and "_" not in passage.text
    return Reading(
        units,
        tuple(count(f" {unit.text}") for unit in units),
        tuple(tuple(meaningful(s.split()) if is_simple else words(u.text)) for s, u in zip(spoken, units, strict=True)),
        spoken,
        _must(passage, units, protect),
        passage.title,
        tuple(words(passage.title)),
        plain(_BRACKETED.sub("", passage.title)).strip(),
    )


def _must(passage: Passage, units: Sequence[Unit], protect: Sequence[re.Pattern[str]]) -> tuple[bool, ...]:
    """Tell which units must be kept: those that match by themselves, and all that a longer match reaches over."""
    must = [passage.protected or any(pattern.search(unit.text) for pattern in protect) for unit in units]
    for match in (match for pattern in protect for match in pattern.finditer(passage.text)):
        first = bisect_right(units, match.start(), key=lambda unit: unit.end)
        end = bisect_left(units, match.end(), key=lambda unit: unit.start)
        if not any(must[first:end]):
            must[first:end] = [True] * (end - first)
    return tuple(must)


def plain(text: str) -> str:
    """Return a text's words in lower case, each between single blanks."""
    return f" {' '.join(_PLAIN.findall(text.casefold()))} "


def _shortest(unit: Unit, text: str, count: Callable[[str], int]) -> Unit:
    """Write JSON without its blanks where that takes fewer tokens."""
    if unit.kind != "json":
        return unit
    whole = text[unit.start : unit.end]
    shorter = minified(whole)
    return Unit(unit.start, unit.end, "json", shorter, unit.parent) if count(shorter) < count(whole) else unit
