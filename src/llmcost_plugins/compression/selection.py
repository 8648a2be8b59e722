"""The best units that fit a budget, as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from llmcost_plugins.compression.passages import Passage, Span
from llmcost_plugins.compression.reading import Reading
from llmcost_plugins.compression.segments import Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BETWEEN = "\n\n"  # what stands between passages
_REPEATED = 10  # characters from which a unit that was kept elsewhere is not kept again


@dataclass(frozen=True, slots=True)
class Shown:
    """Kept units of a passage as text, and where their parts stood."""

    text: str
    spans: tuple[Span, ...]


@dataclass(slots=True)
class _Choosing:
    """Units taken so far, by passage, and what they cost."""

    readings: Sequence[Reading]
    headers: Sequence[int]
    taken: list[set[int]]
    seen: set[str]
    spent: int = 0

    def price(self, passage: int, units: Sequence[int]) -> int:
        tokens = sum(self.readings[passage].tokens[n] for n in units)
        return tokens + (0 if self.taken[passage] else self.headers[passage])

    def take(self, passage: int, units: Sequence[int], price: int) -> None:
        self.spent += price
        self.taken[passage].update(units)
        self.seen.update(self.readings[passage].units[n].text for n in units)

    def missing(self, passage: int, unit: int) -> list[int]:
        """Return what must be taken with a unit: itself and the headings above it, less those that are taken."""
        units, wanted = self.readings[passage].units, [unit]
        while (unit := units[unit].parent) >= 0:
            wanted.append(unit)
        return [n for n in wanted if n not in self.taken[passage]]

    def only_leads(self, passage: int, unit: int) -> bool:
        """Tell whether a unit is the heading of others, and comes with them or not at all."""
        units = self.readings[passage].units
        return units[unit].kind == "heading" and unit + 1 < len(units) and units[unit + 1].parent == unit

    def is_repeated(self, passage: int, unit: int) -> bool:
        text = self.readings[passage].units[unit].text
        return len(text) > _REPEATED and text in self.seen and unit not in self.taken[passage]


def choose(
    readings: Sequence[Reading], scores: "NDArray[np.float64]", budget: int, headers: Sequence[int]
) -> list[list[int]]:
    """Return for each passage the units to keep, in their order: what must be kept, then the best that still fits.

    `scores` has the units of all passages in one row; `headers` is what a passage costs besides its units.
    """
    import numpy as np

    places = [(passage, n) for passage, reading in enumerate(readings) for n in range(len(reading.units))]
    choosing = _Choosing(readings, headers, [set() for _ in readings], set())
    for passage, unit in places:
        if readings[passage].must[unit] and (units := choosing.missing(passage, unit)):
            choosing.take(passage, units, choosing.price(passage, units))
    for place in np.argsort(-scores, kind="stable"):
        passage, unit = places[place]
        units = choosing.missing(passage, unit)
        if not units or choosing.is_repeated(passage, unit) or choosing.only_leads(passage, unit):
            continue
        if choosing.spent + (price := choosing.price(passage, units)) <= budget:
            choosing.take(passage, units, price)
    return [sorted(units) for units in choosing.taken]


def show(passage: Passage, reading: Reading, kept: Sequence[int]) -> Shown:
    """Return the kept units as one text: neighbours as they stood, others on a new line where a line had ended."""
    if len(kept) == len(reading.units) and not any(_is_rewritten(unit, passage.text) for unit in reading.units):
        return Shown(passage.text, ((0, len(passage.text)),) if passage.text else ())
    runs: list[list[Unit]] = []
    for before, n in pairwise((None, *kept)):
        unit = reading.units[n]  # type: ignore[index]  # only the first is None, and it comes first
        if before is not None and n == before + 1 and not _is_rewritten(unit, passage.text):
            runs[-1].append(unit)
        else:
            runs.append([unit])
    return Shown(_joined(passage.text, runs), tuple((run[0].start, run[-1].end) for run in runs))


def _joined(text: str, runs: Sequence[Sequence[Unit]]) -> str:
    parts: list[str] = []
    for before, run in pairwise((None, *runs)):
        if before is not None and run is not None:
            parts.append(_separator(text, before[-1], run[0]))
        if run is not None:
            parts.append(_text_of(text, run))
    return "".join(parts)


def _text_of(text: str, run: Sequence[Unit]) -> str:
    if len(run) == 1:
        return run[0].text
    first = run[0]
    return first.text + text[first.end : run[-1].end]


def _separator(text: str, before: Unit, after: Unit) -> str:
    apart = text[before.end : after.start]
    return "\n" if "\n" in apart or {before.kind, after.kind} != {"sentence"} else " "


def _is_rewritten(unit: Unit, text: str) -> bool:
    return unit.kind == "json" and unit.text != text[unit.start : unit.end]


def header_of(header: str, place: int, passage: Passage) -> str:
    """Return the line that stands above a passage, "" for none."""
    line = header.format(number=place + 1, title=passage.title).strip()
    return f"{line}\n" if line else ""


def prompt(headers: Sequence[str], texts: Sequence[str]) -> str:
    """Return the passages as a prompt has them; those without text are left out."""
    return BETWEEN.join(header + text for header, text in zip(headers, texts, strict=True) if text)


def header_costs(headers: Sequence[str], count: Callable[[str], int]) -> list[int]:
    """Return what each passage costs besides its units."""
    return [count(f"{BETWEEN}{header}") for header in headers]
