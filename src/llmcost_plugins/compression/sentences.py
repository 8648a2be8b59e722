"""Where sentences end, in any script, without a model."""

import re
from bisect import bisect_left
from collections.abc import Iterator

Span = tuple[int, int]

_GIANT = 1_000  # characters of a sentence that is then cut between its clauses
_CLAUSE = 400  # characters that such a part has about
_CLOSING = "\"'’”»)\\]}›」』】）〉》*_"  # noqa: RUF001 - the very characters
_FULL = "。！？｡؟۔।॥։።၊။។៕།༎"  # noqa: RUF001 - ends that no blank follows
_END = re.compile(
    rf"(?P<full>[{_FULL}]+[{_CLOSING}]*)"
    rf"|(?P<stop>(?<![.!?…‥])[.!?…‥]+[{_CLOSING}]*(?:\[\d+\])*)(?=\s)"
    r"|(?P<break>(?<![ \t\r])[ \t\r]*+\n\s*)"
    r"|(?P<thai>(?<=[\u0e00-\u0e7f\u0e80-\u0eff]) +(?=[\u0e00-\u0e7f\u0e80-\u0eff]))"
)
# Links, code and flat JSON within a line: what ends in there ends no sentence.
_WHOLE = re.compile(r"\[[^\[\]\n]{1,300}\]\([^()\n]{1,500}\)|`[^`\n]{1,300}`|\{[\"'][^{}\n]{1,500}\}")
_OPENING = "([{\"'“‘«"  # noqa: RUF001
# What is left of it in a text of ASCII alone, which is read twice as fast.
_ASCII_END = re.compile(
    r"(?P<stop>(?<![.!?])[.!?]+[\"')\]}>*_]*(?:\[\d+\])*)(?=\s)|(?P<break>(?<![ \t\r])[ \t\r]*+\n\s*)"
)
_LETTERS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]?$|^[^\W\d_]$")
_TITLES_WORDS = "mr mrs ms dr prof mt ft rev hon gen lt sgt capt cmdr maj adm gov sen rep pres messrs mme mlle"
_TITLES = frozenset(_TITLES_WORDS.split())
_ABBREVIATIONS_WORDS = (
    "st col sr jr vs etc al cf ca approx est dept univ assn bros inc ltd co corp llc plc no nos vol vols pp p fig "
    "figs eq sec ch art ed eds trans jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat "
    "sun ave blvd rd hr hrs min max e.g i.e a.k.a viz op bzw usw z.b d.h u.a nr str bspw vgl evtl ggf inkl sra "
    "av ej núm pág"
)
_ABBREVIATIONS = frozenset(_ABBREVIATIONS_WORDS.split())
_GERMAN_MONTHS_WORDS = "januar jänner februar märz april mai juni juli august september oktober november dezember"
_GERMAN_MONTHS = frozenset(_GERMAN_MONTHS_WORDS.split())
_OPENERS_WORDS = (
    "the a an it he she they we you i in on at by for from this that these those there his her its their our "
    "my as but and or if when while after before during since although however because its who what which no "
    "yes with to also"
)
_OPENERS = frozenset(_OPENERS_WORDS.split())
_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[A-Za-z]")
_WRAPPED = range(45, 130)  # length of a line that goes on in the next


def sentences(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield where the sentences of a part of a text stand, without the blanks around them."""
    first = start
    whole = [match.span() for match in _WHOLE.finditer(text, start, end)]
    for match in (_ASCII_END if text.isascii() else _END).finditer(text, start, end):
        if not _is_inside(whole, match.end()) and _ends(text, first, match, end):
            yield from _cut(text, first, match.end())
            first = match.end()
    yield from _cut(text, first, end)


def _is_inside(whole: list[Span], place: int) -> bool:
    after = bisect_left(whole, place, key=lambda span: span[1])
    return after < len(whole) and whole[after][0] < place < whole[after][1]


def _ends(text: str, first: int, match: re.Match[str], end: int) -> bool:
    if match.lastgroup == "full":
        return True
    if match.lastgroup == "stop":
        return _is_stop(text, first, match, end)
    if match.lastgroup == "thai":
        return match.start() - first >= 30 and not _LATIN.search(text, first, match.start())
    if match.group().count("\n") > 1:
        return True
    line = match.start() - max(first, text.rfind("\n", first, match.start()) + 1)
    return line not in _WRAPPED or (text[match.end() : match.end() + 1].isupper() and line < 60)


def _is_stop(text: str, first: int, match: re.Match[str], end: int) -> bool:
    """Tell whether a stop ends a sentence, rather than an abbreviation, an initial or an ellipsis inside one."""
    after = match.end()
    while after < end and text[after].isspace():
        after += 1
    if after >= end or "\n" in text[match.end() : after]:
        return True
    follows = _WORD.match(text, after, end)
    if follows and follows[0][0].islower():
        return False
    if match.group()[0] != "." or len(match.group().rstrip("\"'’”»)]}*_")) > 1:  # noqa: RUF001
        return True
    before = text[max(first, match.start() - 24) : match.start()].split()
    word = before[-1].lstrip(_OPENING) if before else ""
    if word.casefold() in _TITLES:
        return False
    if word.isdigit() and len(word) < 3 and follows and follows[0].casefold() in _GERMAN_MONTHS:
        return False
    may_go_on = word.casefold() in _ABBREVIATIONS or _LETTERS.search(word)
    return not may_go_on or bool(follows and follows[0].casefold() in _OPENERS and len(follows[0]) > 1)


def _cut(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield a sentence, or the parts of one that is too long to be worth keeping for a word in it."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while end - start > _GIANT and (middle := _clause_end(text, start, end)):
        yield start, middle
        start = middle
        while text[start].isspace():
            start += 1
    if end > start:
        yield start, end


_CLAUSE_END = re.compile(r"(?<=[,;:、，；：–—])\s+(?=\D)")  # noqa: RUF001
_WORD_END = re.compile(r"(?<=\w)\s+(?=[^\W\d])|(?<=[^\W\d])\s+(?=\w)")
_IDEOGRAPHIC_CLAUSE = re.compile(r"[、，；：]")  # noqa: RUF001


def _clause_end(text: str, start: int, end: int) -> int:
    """Return where a clause ends after about `_CLAUSE` characters, never inside a word or number; 0 for nowhere."""
    low, high = start + _CLAUSE // 2, min(start + 2 * _CLAUSE, end)
    for pattern in (_CLAUSE_END, _IDEOGRAPHIC_CLAUSE, _WORD_END):
        if match := pattern.search(text, low, high):
            return match.start() if match.group().isspace() else match.end()
    return 0
