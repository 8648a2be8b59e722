"""Which questions are hard: rules that can be read, and the reason that each gives."""

import re
from dataclasses import dataclass

from llmcost_plugins.routing.validators import task
from llmcost_plugins.types import Request

_TASK = re.compile(
    r"\b(calculate|compute|work out|add up|compare|comparison|versus|trade-?offs?|step[- ]by[- ]step|explain why|prove|"
    r"derive|analy[sz]e|evaluate|debug|refactor|fix (?:this|the|my)|traceback|stack ?trace|draft|schedule|optimi[sz]e|"
    r"write (?:a|an|the) (?:function|query|script|regex|formal|reply|answer|letter|response|plan)|recommend|"
    r"plan (?:a|the|my|out)|which (?:one|option|of (?:these|them|the))|extract|json|schema|csv|table|exactly|"
    r"must (?:not|include|contain))\b",
    re.IGNORECASE,
)
_RISK = re.compile(
    r"\b(fire|smoke|smoking|burn(?:t|ing|ed)?|hissing|explo\w+|injur\w+|bleeding|accident|poison\w*|suicid\w*|overdose|"
    r"chest pain|lawsuit|lawyer|legal action|court|fraud\w*|stolen|theft)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:not|never|neither|except|without|unless|isn't|aren't|doesn't|don't|can't|cannot|won't)\b", re.I
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_LIST_ITEM = re.compile(r"(?m)^[ \t]*(?:\d+[.)]|[-*•])[ \t]|\(\d\)|\([a-d]\)")
_CODE = re.compile(r"```|[{}]\s*$|=>|\bdef \w+\(|\bSELECT\b|</\w+>", re.MULTILINE)
_LONG_WORDS = 30
_FOLLOW_UP_WORDS = 8
_HARD = 2
_READ = 600  # characters at either end of a long task in which signs are looked for


@dataclass(frozen=True, slots=True)
class Choice:
    """How hard a request looks from 0 to 1, and why."""

    difficulty: float
    reason: str


def difficulty(request: Request) -> Choice:
    """Judge a request by its task: what is asked for, how many things, with how many numbers, at what length.

    Two points make it hard; a short follow-up in a conversation and a question of safety or law have both at once, for
    neither can be judged by its words. Retrieved passages are not the task and do not count as length.
    """
    found = [(name, points) for name, points, applies in _signs(request, task(request)) if applies]
    score = sum(points for _, points in found)
    reason = ", ".join(name for name, _ in found) or "nothing hard about it"
    return Choice(min(1.0, score / _HARD / 2), reason)


difficulty.quick = True  # type: ignore[attr-defined]


def _signs(request: Request, text: str) -> list[tuple[str, int, bool]]:
    words = text.count(" ") + 1 if len(text) > 2 * _READ else len(text.split())
    text = text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:]}"
    follows = any(message.get("role") == "assistant" for message in request.messages)
    return [
        ("a task", 1, bool(_TASK.search(text))),
        ("several numbers", 1, len(_NUMBER.findall(text)) >= 3),
        ("several parts", 1, text.count("?") >= 3 or len(_LIST_ITEM.findall(text)) >= 3),
        ("a negation", 1, bool(_NEGATION.search(text))),
        ("code", 1, bool(_CODE.search(text))),
        ("length", 1, words >= _LONG_WORDS),
        ("great length", 1, words >= 4 * _LONG_WORDS),
        ("a short follow-up", 2, follows and words <= _FOLLOW_UP_WORDS),
        ("safety or law", 2, bool(_RISK.search(text))),
    ]
