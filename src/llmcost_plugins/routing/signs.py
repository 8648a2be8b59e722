"""What shows in an answer that tells wrong ones from right ones, whatever they are about."""

import math
import re
from collections.abc import Mapping, Sequence
from operator import add, mul, sub, truediv

from llmcost_plugins.routing.validators import breaks_off, repetition, shortcoming, task
from llmcost_plugins.types import Reply, Request

_LONGEST = 20_000  # characters of an answer that are read at either end


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LAST = 4  # numbers before its result that an answer is taken to have come to
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NUMERAL = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_SENTENCE_END = re.compile(r"[.!?](?=\s)")
_STATED = re.compile(
    r"(?:answer|choice|option)(?: is|:)?[:\s*$\\]*(?:boxed\{|text\{)*[({\[]*((?-i:[A-Z])|-?\d[\d.,]*)(?![A-Za-z])|"
    r"(?:####|\\boxed\{)\s*\$?((?-i:[A-Z])\b|-?\d[\d.,]*)",
    re.IGNORECASE,
)
_OPTION = re.compile(r"^\(?([A-Z])[.)]\)?[ \t]+(.*)$", re.MULTILINE)
_SUM = re.compile(
    r"(?<![\w.*/^+\u00d7\u00f7-])(\d+(?:\.\d+)?) ?([-+*/\u00d7\u00f7]) ?(\d+(?:\.\d+)?) ?= ?(-?\d+(?:\.\d+)?)"
    r"(?![\w^%(]|\.\d| ?[-+*/\u00d7\u00f7\\])"
)
_RESULTS = {"+": add, "-": sub, "*": mul, "\u00d7": mul, "/": truediv, "\u00f7": truediv}
_OFF = 0.02  # by which a result may differ: models round
_DOUBT = _words(
    "closest approximate approximately approximation approximated roughly discrepancy discrepancies rounding probably "
    "perhaps might maybe seem seems appears assume assuming assumed assumption likely estimate simplify guess"
)
_REDO = _words(
    "incorrect mistake mistakes error errors reexamine recalculate recheck reconsider wait actually wrong however "
    "instead different check again"
)
_AT_A_LOSS = _words(
    "none typo flawed missing insufficient unable cannot can't unclear unfortunately ambiguous doesn't possible given "
    "provided listed match matches"
)


def signs(request: Request, reply: Reply) -> dict[str, float]:
    """Return what shows in an answer, and in how it fits its question."""
    text = _ends(reply.text.strip())
    words = _WORD.findall(text.lower())
    asked = task(request)
    stated = stated_results(text)
    numbers = len(_NUMBER.findall(text))
    right, wrong = _sums(text)
    options, chosen = (dict(_OPTION.findall(asked)), stated[-1]) if stated else ({}, "")
    return {
        "words": math.log1p(len(words)),
        "numbers": numbers / (len(words) + 5),
        "doubt": float(sum(word in _DOUBT for word in words)),
        "redo": float(sum(word in _REDO for word in words)),
        "at a loss": float(sum(word in _AT_A_LOSS for word in words)),
        "states a result": float(bool(stated)),
        "results": float(len(set(stated))),
        "repetition": repetition(text),
        "lines": math.log1p(text.count("\n")),
        "equations": math.log1p(text.count("=")),
        "about equal": math.log1p(text.count("≈") + text.count("\\approx")),
        "formulas": math.log1p(text.count("\\")),
        "sentence length": math.log1p(len(words) / (1 + len(_SENTENCE_END.findall(text)))),
        "sums right": float(right),
        "sums wrong": float(wrong),
        "breaks off": float(breaks_off(text)),
        "faulty": float(shortcoming(request, reply) is not None),
        "unworked": _unworked(asked, len(words)),
        "borne out": _borne_out(options, chosen, text),
        "missed by": _missed_by(options, chosen, text),
    }


def stated_results(text: str) -> list[str]:
    """Return the letters and numbers that a text gives as its results, in their order."""
    return [(first or second).rstrip(".,").upper() for first, second in _STATED.findall(text)]


def _ends(text: str) -> str:
    return text if len(text) <= 2 * _LONGEST else f"{text[:_LONGEST]}\n{text[-_LONGEST:]}"


def _sums(text: str) -> tuple[int, int]:
    """Count the sums of two numbers in a text that hold, and those that do not."""
    results = [_holds(float(a), sign, float(b), float(c)) for a, sign, b, c in _SUM.findall(text)]
    return results.count(True), results.count(False)


def _holds(a: float, sign: str, b: float, result: float) -> bool:
    found = _RESULTS[sign](a, b) if b else a if sign in "+-" else 0.0
    return bool(abs(found - result) <= _OFF * max(abs(found), abs(result)))


def _unworked(asked: str, words: int) -> float:
    """Return how many numbers the question gives to an answer of a few words, which shows no working."""
    return math.log1p(len(_NUMBER.findall(asked))) if words <= 8 else -1.0


def _borne_out(options: Mapping[str, str], chosen: str, text: str) -> float:
    """Return how much more the answer speaks of the option it chose than of any other, from -1 to 1."""
    if len(options) < 2 or chosen not in options:
        return 0.0
    said = set(_tokens(text))
    shares = {letter: _share(_tokens(option), said) for letter, option in options.items()}
    return shares.pop(chosen) - max(shares.values())


def _missed_by(options: Mapping[str, str], chosen: str, text: str) -> float:
    """Return how far the number of the chosen option is from the nearest of the last that the answer came to.

    From 0 to 0.5 of the larger one; -1 where there is nothing to compare.
    """
    target = _values(options.get(chosen, ""))[:1]
    reached = _values(text[: text.lower().rfind("answer")])[-_LAST:]
    if not target or not reached:
        return -1.0
    return min(0.5, *(abs(target[0] - value) / (max(target[0], value) or 1.0) for value in reached))


def _values(text: str) -> list[float]:
    numbers = (float(number.replace(",", "")) for number in _NUMERAL.findall(text))
    return [number for number in numbers if number < math.inf]


def _tokens(text: str) -> list[str]:
    return _NUMBER.findall(text) + [word for word in _WORD.findall(text.lower()) if len(word) > 2]


def _share(tokens: Sequence[str], said: set[str]) -> float:
    return sum(token in said for token in tokens) / len(tokens) if tokens else 0.0


SIGNS = tuple(signs(Request(()), Reply(None)))
