"""Texts made shorter by dropping words, and what is left of them."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import category

from llmcost_plugins.compression.integrity import mended, without
from llmcost_plugins.compression.passages import Span
from llmcost_plugins.compression.segments import Unit, segment

_PASSES = 5  # at other rates, to come close to a budget; for LLMLingua-2 the model runs in the first alone
_CLOSE = 0.97  # share of the budget that is near enough
_STAYS = 0.35  # share of tokens that must stay in passages of Wikipedia, where the search begins
_HUGGING = frozenset(".,;:!?)]}%’”»。，、；：！？）」』")  # noqa: RUF001 - no blank before these

Judge = Callable[[Sequence[str], float], list[tuple[Span, ...] | str]]


@dataclass(frozen=True, slots=True)
class Shortened:
    """What is left of one text.

    `text` is what stood at `spans`, to the letter but for JSON that was minified without loss, joined by blanks or line
    breaks as they stood there. `restored` counts numbers, names, links and so on that had been dropped or damaged.
    `reason` says why nothing was dropped, "" where something was.
    """

    text: str
    spans: tuple[Span, ...]
    restored: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Shortening:
    """What is left of all texts, in their order.

    Tokens are as the caller counts them. `over_budget` is true where more is left than was asked for, because what must
    stay alone exceeds it. `rejected` counts the texts that were put back whole because they came out no shorter or
    could not be read.
    """

    texts: tuple[Shortened, ...]
    tokens_before: int
    tokens_after: int
    over_budget: bool = False
    rejected: int = 0

    @property
    def restored(self) -> int:
        """How many parts were given back in all texts."""
        return sum(text.restored for text in self.texts)


@dataclass(frozen=True, slots=True)
class Parts:
    """A text's units that an earlier stage kept, and those of them that may be shortened."""

    text: str
    units: tuple[Unit, ...]
    open: tuple[bool, ...]

    @classmethod
    def of(cls, text: str, spans: Sequence[Span] | None, keep: Callable[[str], bool] | None) -> "Parts":
        """Read a text, or what an earlier stage kept of it; `keep` tells a sentence that must stay whole."""
        units = segment(text)
        if spans is not None:
            units = tuple(unit for unit in units if _within(spans, unit.start, unit.end))
        return cls(text, units, tuple(unit.kind == "sentence" and not (keep and keep(unit.text)) for unit in units))

    @property
    def prose(self) -> str:
        """The sentences that may be shortened, as the model reads them: a blank between two."""
        return " ".join(unit.text for unit, is_open in zip(self.units, self.open, strict=True) if is_open)

    def whole(self) -> Shortened:
        """Return what there is before anything is dropped."""
        return _shown(self.text, [(unit.start, unit.end, unit.text) for unit in self.units], 0)

    def shortened(self, dropped: Sequence[Span]) -> Shortened:
        """Return what is left without the parts of `prose` that were dropped."""
        pieces: list[tuple[int, int, str]] = []
        place = restored = 0
        for unit, is_open in zip(self.units, self.open, strict=True):
            if not is_open:
                pieces.append((unit.start, unit.end, unit.text))
                continue
            here = [(start - place, end - place) for start, end in _within(dropped, place, place + len(unit.text))]
            kept, given_back = mended(unit.text, without((0, len(unit.text)), here))
            said = [(start, end) for start, end in kept if not here or _says(unit.text[start:end], start)]
            pieces += [(unit.start + start, unit.start + end, unit.text[start:end]) for start, end in said]
            restored += given_back
            place += len(unit.text) + 1
        return _shown(self.text, pieces, restored)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Texts that are shortened at one rate after another."""

    parts: Sequence[Parts]
    originals: Sequence[Shortened]
    count: Callable[[str], int]
    judge: Judge

    def at(self, rate: float) -> Shortening:
        """Shorten at a rate; a text that comes out no shorter is put back."""
        prose = [part.prose for part in self.parts]
        judged = self.judge(prose, rate)
        texts, before, after, rejected = [], 0, 0, 0
        for part, original, dropped in zip(self.parts, self.originals, judged, strict=True):
            shortened = original if isinstance(dropped, str) else part.shortened(dropped)
            asked, got = self.count(original.text), self.count(shortened.text)
            if got >= asked:
                rejected += isinstance(dropped, str) or bool(dropped)
                reason = dropped if isinstance(dropped, str) else "no shorter" if dropped else "nothing to drop"
                shortened, got = passed(original, reason), asked
            texts.append(shortened)
            before, after = before + asked, after + got
        return Shortening(tuple(texts), before, after, after > math.ceil(before * rate), rejected)

    def within(self, budget: int, before: int) -> Shortening:
        """Find the highest rate whose result fits the budget; the shortest there is where none does."""
        low, high, best = 0.0, 1.0, None
        least, most = min(_STAYS * before, 0.9 * budget), float(before)
        for _ in range(_PASSES):
            share = (budget - least) / max(most - least, 1)
            rate = low + (high - low) * min(max(0.98 * share, 0.1), 0.95)
            found = self.at(rate)
            if found.tokens_after > budget:
                high, most = rate, found.tokens_after
                continue
            low, least, best = rate, found.tokens_after, found
            if found.tokens_after >= _CLOSE * budget:
                break
        best = best or self.at(0.0)
        return Shortening(best.texts, best.tokens_before, best.tokens_after, best.tokens_after > budget, best.rejected)


def _shown(text: str, pieces: Sequence[tuple[int, int, str]], restored: int) -> Shortened:
    """Put the parts that are left together; a line break between two stays one, another gap becomes a blank."""
    shown, spans = "", list[Span]()
    for start, end, part in pieces:
        gap = text[spans[-1][1] : start] if spans else ""
        if not gap.strip() and text[start:end] == part and spans and shown.endswith(text[slice(*spans[-1])]):
            shown, spans[-1] = shown + gap + part, (spans[-1][0], end)
            continue
        shown += ("\n" if "\n" in gap else " " if gap and part[0] not in _HUGGING else "") + part
        spans.append((start, end))
    return Shortened(shown, tuple(spans), restored)


def _within(spans: Sequence[Span], start: int, end: int) -> Sequence[Span]:
    """Return those of the spans, which are in order, that have a part between `start` and `end`."""
    first = bisect_right(spans, start, key=lambda span: span[1])
    return spans[first : bisect_left(spans, end, key=lambda span: span[0])]


def _says(part: str, start: int) -> bool:
    """Tell whether a part is worth a token: it is more than punctuation, or closes what stands before it."""
    if any(category(character)[0] not in "PZ" for character in part):
        return True
    return start > 0 and part[0] in _HUGGING and len(part) <= 2


def passed(text: Shortened, reason: str) -> Shortened:
    """Return a text that was left as it was, and why."""
    return Shortened(text.text, text.spans, 0, reason)
