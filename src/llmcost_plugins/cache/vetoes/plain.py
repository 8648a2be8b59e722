"""A question's text without what says nothing: politeness, quotes around all of it, ways to write one sign."""

import re
import unicodedata
from collections.abc import Iterable

from llmcost_plugins.cache.vetoes import english

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u2044": "/", "\u2212": "-"})
_DOTTED = re.compile(r"(?<![\w.])([A-Za-z](?:\.[A-Za-z])+)\b\.?")
_BRACKETED = re.compile(r"(?<=\d)\((\w)\)")
_DEGREES = re.compile(r"\u00b0[ ]?([CF]?)\b")
_OPERATION = re.compile(
    r"(?<![^\W\d_]{2})(?<=[\w)])( [-/x] |[ ]?[+*\u00f7][ ]?|(?<=[A-Za-z])-(?=[A-Za-z]\b))(?=[\d(]|[A-Za-z]\b)"
)
_OPERATION_SIGNS = ("-", "+", "*", "\u00f7", " / ", " x ")
_OPERATORS = {"-": "minus", "/": "divided by", "+": "plus", "\u00f7": "divided by"}
_DEGREE = {"C": " degrees celsius ", "F": " degrees fahrenheit ", "": " degrees "}
_WRAPPED = re.compile(r"[\"\u201c\u00ab']([^\"\u201c\u201d\u00ab\u00bb']*)[\"\u201d\u00bb'][?.!]?")
_ENDS = 90  # characters at the end of a text in which it may take its leave


def _any_of(phrases: Iterable[str]) -> str:
    return "|".join(sorted((phrase.replace(" ", "[ ]").replace("'", "['\u2019]") for phrase in phrases), reverse=True))


_OPENING = re.compile(rf"(?:(?:{_any_of(english.OPENINGS)})\b[\s,.!:;?-]*)+(?:(?:if|whether)\b\s*)?", re.IGNORECASE)
_CLOSING = re.compile(
    rf"(?:[,.!?;-]\s*|\s)(?:(?:{_any_of(english.CLOSINGS)})\b[\s,.!?:;)]*)+(?:(?<=[,.!]\s)[^\W\d_]+[\s.!]*)?$",
    re.IGNORECASE,
)
_OPENERS = frozenset(phrase.split()[0] for phrase in english.OPENINGS)
_CLOSERS = frozenset(phrase.split()[0] for phrase in english.CLOSINGS)
_FIRST_WORD = re.compile(r"[\w']+")


def plain(text: str) -> str:
    """Return a text in plain signs, without politeness at its start and end."""
    text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.replace("\u00d7", "*")).translate(_APOSTROPHES)
        text = _DEGREES.sub(lambda match: _DEGREE[match[1]], text)
    if wrapped := _WRAPPED.fullmatch(text):
        text = wrapped[1]
    if "." in text:
        text = _DOTTED.sub(lambda match: match[1].replace(".", ""), text)
    if "(" in text:
        text = _BRACKETED.sub(r"\1", text)
    if any(sign in text for sign in _OPERATION_SIGNS):
        text = _OPERATION.sub(lambda match: f" {_operator(match[1])} ", text)
    return _without_politeness(text)


def _operator(sign: str) -> str:
    return _OPERATORS.get(sign.strip(), "times")


def _without_politeness(text: str) -> str:
    rest = text
    first = _FIRST_WORD.search(rest)
    if first and first.group().lower() in _OPENERS and (opening := _OPENING.match(rest, first.start())):
        rest = rest[opening.end() :]
    if not _CLOSERS.isdisjoint(re.split(r"\W+", rest[-_ENDS:].lower())):
        start = max(0, len(rest) - _ENDS)
        if closing := _CLOSING.search(rest, start):
            rest = rest[: closing.start()] + ("?" if "?" in closing.group() else "")
    return rest if any(map(str.isalnum, rest)) else text
