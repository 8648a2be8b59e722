"""A question as the vetoes read it: its words, and what among them can turn an answer around."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from llmcost_plugins.cache.vetoes import english
from llmcost_plugins.cache.vetoes.numerals import counted
from llmcost_plugins.cache.vetoes.plain import plain
from llmcost_plugins.cache.vetoes.words import Word, words_of

__all__ = ["LONGEST", "Reading", "Word", "read"]

LONGEST = 1200  # characters of a question that is read

_GLUED = "|".join(sorted({"st", "nd", "rd", "th", "s", "am", "pm", "h", *english.UNITS, *english.MULTIPLIERS}))
_CODE = re.compile(
    r"`[^`]+`|\"[^\"]+\"|\u201c[^\u201c\u201d]+\u201d|\u201e[^\u201c\u201e]+\u201c|\u00ab[^\u00ab\u00bb]+\u00bb"
    r"|(?<!\w)'[^']+'(?!\w)|(?<!\w)\w++://\S+|(?<![\w.+-])[\w.+-]++@[\w-]++\.\w+|(?<!\w)\w++\("
    r"|(?<![\w-])(?![\d.,:/-]++(?:" + _GLUED + r")?\b)[\w-]++(?:(?:[.\\]++\w++)+|(?:/[\w.-]++){2,})"
    r"|\b[^\W_]++_\w++|(?<!\S)--?[A-Za-z]\w*|#\w+|[{}<>=^|~]+|(?<!\w)[A-Za-z](?:\+\+|#)|\b[a-z]++[A-Z]\w*"
    r"|\b(?=\w*\d)(?=\w*[^\W\d_])(?!\d++(?:" + _GLUED + r")\b)\w++"
)
_MAY_BE_CODE = re.compile(r"[^\w\s,.?!'$%-]|[\d_]|\w\.\w|[a-z][A-Z]|\B['-]\w")
_SIGN = re.compile(r"[\u2190-\u21ff\u2600-\u27bf\U0001f000-\U0001faff]")
_QUOTES = "`\"'\u201c\u201d\u201e\u00ab\u00bb"


@dataclass(frozen=True, slots=True)
class Reading:
    """A question, read.

    `words` are all of it but for politeness, contractions spelled out; `content` those that carry the topic, and
    `topic` the keys of these in the order of the alphabet. `units` stand behind numbers. `names` are written with a
    capital where no sentence begins; `codes` are quotes, identifiers, addresses and markup, `signs` emoji and arrows.
    `negations` counts `not` but for `or not`; `denied` are the words that a negation denies. `asks` says what is asked
    for (a reason, a time, a place, an amount ...), `modality` whether the question is what is possible, advisable or
    required. Of a question longer than `LONGEST`, `too_long`, nothing but the text is kept.
    """

    text: str
    words: tuple[Word, ...] = ()
    content: tuple[Word, ...] = ()
    topic: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    numbers: tuple[str, ...] = ()
    units: frozenset[str] = frozenset()
    dates: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    signs: frozenset[str] = frozenset()
    negations: int = 0
    denied: frozenset[str] = frozenset()
    asks: frozenset[str] = frozenset()
    modality: str | None = None
    english: bool = True
    too_long: bool = False


def read(text: str) -> Reading:
    """Return the reading of a question."""
    return _read(text) if len(text) <= LONGEST else Reading(text, too_long=True)


@lru_cache(maxsize=4096)
def _read(text: str) -> Reading:
    bare = plain(text)
    if len(bare) > LONGEST:
        return Reading(text, too_long=True)
    words = tuple(counted(words_of(bare)))
    texts = tuple(word.text for word in words)
    content = tuple(word for word in words if word.topical)
    return Reading(
        text=text,
        words=words,
        content=content,
        topic=tuple(sorted(word.key for word in content)),
        keys=frozenset(word.key for word in words),
        numbers=tuple(sorted(number for word in words if (number := word.number) is not None and number != _ONE)),
        units=frozenset(_units(words)),
        dates=frozenset(_dates(words)),
        names=frozenset(word.key for word in words if word.name and not _is_date(word)),
        codes=frozenset(_codes(bare)),
        signs=frozenset() if text.isascii() else frozenset(_SIGN.findall(text)),
        negations=_negations(texts) if "not" in texts else 0,
        denied=frozenset(_denied(words)) if "not" in texts else frozenset(),
        asks=frozenset(_asks(texts)),
        modality=english.MODALS.get(texts[0]) if texts and "you" not in texts[1:2] else None,
        english=_is_english(texts, bare),
    )


_ONE = "1"  # `a`, `one` and `1` are the same


def _codes(text: str) -> Iterator[str]:
    if _MAY_BE_CODE.search(text):
        for code in _CODE.findall(text):
            yield code.strip(_QUOTES).lower()


def _units(words: Sequence[Word]) -> Iterator[str]:
    for before, word in pairwise(words):
        if before.number is not None:
            if word.text in english.UNITS:
                yield english.UNITS[word.text]
            elif word.text in english.SYMBOLS:
                yield word.key


def _is_date(word: Word) -> bool:
    return word.key == english.DATES.get(word.text)


def _dates(words: Sequence[Word]) -> Iterator[str]:
    for position, word in enumerate(words):
        if word.text in english.DATES:
            if _is_date(word):
                yield word.key
        elif word.text in english.TIME_SHIFTS and position + 1 < len(words):
            following = words[position + 1].text
            if what := english.UNITS.get(following) or english.DATES.get(following):
                yield f"{english.TIME_SHIFTS[word.text]} {what}"
        elif word.text in ("pm", "bc", "ad", "am") and position and words[position - 1].number is not None:
            yield word.text


def _negations(texts: Sequence[str]) -> int:
    return sum(text == "not" and before != "or" for before, text in pairwise(("", *texts)))


def _denied(words: Sequence[Word]) -> Iterator[str]:
    """Yield for each negation the word that it denies: the next of its clause that says something."""
    clause = -1
    denied: str | None = None
    wanted: str | None = None
    for word in reversed(words):
        if word.clause != clause:
            clause, denied, wanted = word.clause, None, None
        if word.text == "not" and (key := denied or wanted) is not None:
            yield key
        elif word.text not in english.PASSED_OVER:
            denied = word.key
        elif word.text not in english.FUNCTION_WORDS:
            wanted = word.key


def _asks(texts: Sequence[str]) -> Iterator[str]:
    for position, text in enumerate(texts):
        if text == "how":
            following = texts[position + 1 : position + 3]
            if kind := english.AMOUNTS.get(following[0] if following else ""):
                yield "duration" if english.UNITS.get(following[-1]) in english.DURATIONS else kind
        elif text in english.QUESTION_WORDS:
            yield english.QUESTION_WORDS[text]


def _is_english(texts: Sequence[str], text: str) -> bool:
    if not text.isascii():
        letters = [letter for letter in text if letter.isalpha()]
        if any(letter > "\u024f" for letter in letters):
            return False
    known = sum(text in english.FUNCTION_WORDS for text in texts)
    return sum(text in english.FOREIGN and text not in english.FUNCTION_WORDS for text in texts) <= known
