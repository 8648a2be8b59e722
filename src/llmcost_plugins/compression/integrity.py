"""What must survive when words are dropped from a sentence, and how it is given back.

Numbers with their units, names, links, inline code and JSON, and negations always stay; any other word stays whole or
goes whole. "7,731,004" never becomes "7,731,4".
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from llmcost_plugins.compression.passages import Span
from llmcost_plugins.compression.words import words

_DENSE = "\u0e00-\u0e7f\u3000-\u9fff\uac00-\ud7af\uff00-\uffef"  # scripts that set no blanks between words
_RUN = rf"[^\s{_DENSE}]"
_ASIDE = "\"'’”“‘«»()[]{}<>.,;:!?*_"  # noqa: RUF001 - what may stand around a number or a name without being part
_MAGNITUDES = (
    "hundred|thousand|million|billion|trillion|percent|per cent|dozen|dollars?|euros?|cents?|degrees?|years?|months?|"
    "weeks?|days?|hours?|minutes?|seconds?|miles?|met(?:er|re)s?|kilomet(?:er|re)s?|feet|foot|inch(?:es)?|pounds?|tons?|tonnes?|"
    "kilograms?|grams?|am|pm|a\\.m\\.|p\\.m\\.|[kmgt]?b|[kcm]?m|km²|m²|[km]?g|[kmg]?hz|[km]?w|m?s|°[cf]|%|‰"
)
_LITERAL = re.compile(
    r"!?\[[^\[\]\n]*\]\([^()\s]*\)"  # a Markdown link or image
    r"|`{1,3}[^`\n]+`{1,3}"
    r"|<[^<>\n]{1,200}>"
    r"|\{[^{}\n]*\}|\[[^\[\]\n]*\]"
    r"|\b(?:[a-z][a-z0-9+.-]{0,15}://|www\.)[^\s<>\"]+"
    r"|(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|(?<![\w~./-])[~.]{0,2}/?(?:[\w.-]+/)+[\w.-]*"  # a path
    r"|\b\w+\([^()\n]*\)"  # a call
    r"|\b\w*[_=][\w.=]*",
    re.IGNORECASE,
)
_NUMBER = re.compile(rf"(?<!{_RUN}){_RUN}*\d{_RUN}*(?:\s(?:{_MAGNITUDES})(?!\w))*", re.IGNORECASE)
_TELLING = re.compile(
    r"\b(?:not|never|no|none|nor|neither|nobody|nothing|nowhere|without|except|unless|only|cannot|\w+n['’]t|"  # noqa: RUF001
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundreds?|thousands?|"
    r"millions?|billions?|half|twice|nicht|kein\w*|nie|ohne|pas|jamais|aucune?|sans|nunca|sin|non|mai|senza)\b",
    re.IGNORECASE,
)
_WORD = re.compile(rf"[^\W{_DENSE}]+(?:[-'’.&/][^\W{_DENSE}]+)*")  # noqa: RUF001
_INSIDE_NAME = re.compile(r"\s+(?:(?:of|the|de|la|le|du|di|da|del|von|van|der|den|and|&)\s+)*")


def mended(text: str, kept: Iterable[Span]) -> tuple[tuple[Span, ...], int]:
    """Give back to what is kept of a sentence what its loss would falsify.

    Returns where the text now stays, in order and apart by more than blanks, and how many numbers, names, links and so
    on had been damaged or dropped.
    """
    kept = tuple(kept)
    needed = [span for span in must_stay(text) if not _covers(kept, span)]
    whole = [match.span() for match in _WORD.finditer(text)]
    partly = [span for span in whole if any(start < span[1] and span[0] < end for start, end in kept)]
    return joined(text, [*kept, *partly, *needed]), len(needed)


def must_stay(text: str) -> tuple[Span, ...]:
    """Return where the parts of a sentence stand that are never dropped: they may overlap."""
    literals = [match.span() for match in _LITERAL.finditer(text)]
    numbers = [_bare(text, match.span()) for match in _NUMBER.finditer(text)]
    telling = [match.span() for match in _TELLING.finditer(text)]
    return tuple(sorted({*literals, *numbers, *telling, *_names(text)}))


def joined(text: str, spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans in order and without blanks at their ends, those with nothing but blanks between them made one."""
    whole: list[Span] = []
    for start, end in sorted(spans):
        if whole and not text[whole[-1][1] : start].strip():
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        elif text[start:end].strip():
            whole.append((start, end))
    return tuple(_stripped(text, span) for span in whole)


def without(whole: Span, dropped: Sequence[Span]) -> Iterator[Span]:
    """Yield the parts of a span that are left when others, in order, are taken out."""
    start, end = whole
    for first, last in dropped:
        if first > start:
            yield start, min(first, end)
        start = max(start, last)
        if start >= end:
            return
    yield start, end


def _names(text: str) -> Iterator[Span]:
    """Yield capitalised words, with those that follow as one, but for a function word that opens the sentence."""
    name: Span | None = None
    for match in _WORD.finditer(text):
        if match[0] == match[0].lower() or (len(match[0]) > 1 and match[0].istitle() and not words(match[0])):
            continue
        if name and _INSIDE_NAME.fullmatch(text, name[1], match.start()):
            name = name[0], match.end()
            continue
        if name:
            yield name
        name = match.span()
    if name:
        yield name


def _bare(text: str, span: Span) -> Span:
    """Leave out the punctuation around a number."""
    start, end = span
    while end > start and text[end - 1] in _ASIDE:
        end -= 1
    while start < end and text[start] in _ASIDE and not (text[start] == "." and text[start + 1].isdigit()):
        start += 1
    return start, end


def _stripped(text: str, span: Span) -> Span:
    body = text[span[0] : span[1]]
    return span[0] + len(body) - len(body.lstrip()), span[0] + len(body.rstrip())


def _covers(kept: Sequence[Span], span: Span) -> bool:
    place = bisect_right(kept, (span[0], len(kept) and kept[-1][1])) - 1
    return place >= 0 and kept[place][1] >= span[1]
