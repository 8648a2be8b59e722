"""Which questions are hard: rules that can be read, and the reason that each gives."""

import json
import re
import unicodedata
from dataclasses import dataclass

from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Reply, Request

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
_QUESTION = re.compile(r"\n[ \t]*question:", re.IGNORECASE)
_LONG_WORDS = 30
_FOLLOW_UP_WORDS = 8
_HARD = 2
_READ = 1_000  # characters at either end of a long task in which signs are looked for

_HEDGE = re.compile(
    r"\b(?:i(?:'m| am) not (?:sure|certain|able)|i (?:don't|do not) (?:have (?:enough|access)|know)|not enough "
    r"information|as an ai\b|i (?:can't|cannot|am unable to) (?:help|answer|determine|say|assist|tell)|"
    r"i(?:'m| am) sorry, (?:but )?i (?:can't|cannot|couldn't|could not|don't))",
    re.IGNORECASE,
)
_WANTS_JSON = re.compile(
    r"\b(?:as|in|into|return|output|reply with|respond with|give me|only)\b[^.?!]{0,30}\bjson\b", re.I
)
_OPEN_ENDS = frozenset(",\u060c\u3001-\u2013\u2014([{/\\&+<=")  # commas and dashes of several scripts
_PROSE_WORDS = 6
_JSON_START = re.compile(r"[{\[]")
_JSON_TRIES = 20


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
    found = [(name, points) for name, points, applies in _signs(request, _task(request)) if applies]
    score = sum(points for _, points in found)
    reason = ", ".join(name for name, _ in found) or "nothing hard about it"
    return Choice(min(1.0, score / _HARD / 2), reason)


difficulty.quick = True  # type: ignore[attr-defined]


def shortcoming(request: Request, reply: Reply) -> str | None:
    """Say what is visibly wrong with an answer (empty, cut off, a refusal, not the JSON asked for), or None."""
    text = reply.text.strip()
    if reply.calls_tools:
        return None
    if not text:
        return "empty answer"
    if reply.finish == "length":
        return "answer cut at its token limit"
    if _HEDGE.search(text):
        return "the answer says that it does not know"
    if _WANTS_JSON.search(_task(request)) and not _holds_json(text):
        return "JSON was asked for and did not come"
    return "answer ends in mid-sentence" if _breaks_off(text) else None


def _signs(request: Request, task: str) -> list[tuple[str, int, bool]]:
    words = task.count(" ") + 1 if len(task) > 2 * _READ else len(task.split())
    task = task if len(task) <= 2 * _READ else f"{task[:_READ]}\n{task[-_READ:]}"
    follows = any(message.get("role") == "assistant" for message in request.messages)
    return [
        ("a task", 1, bool(_TASK.search(task))),
        ("several numbers", 1, len(_NUMBER.findall(task)) >= 3),
        ("several parts", 1, task.count("?") >= 3 or len(_LIST_ITEM.findall(task)) >= 3),
        ("a negation", 1, bool(_NEGATION.search(task))),
        ("code", 1, bool(_CODE.search(task))),
        ("length", 1, words >= _LONG_WORDS),
        ("great length", 1, words >= 4 * _LONG_WORDS),
        ("a short follow-up", 2, follows and words <= _FOLLOW_UP_WORDS),
        ("safety or law", 2, bool(_RISK.search(task))),
    ]


def _task(request: Request) -> str:
    """Return what the user wants done: the question given by the door, or the last user turn after its context."""
    if request.question is not None:
        return request.question
    for message in reversed(request.messages):
        if message.get("role") == "user":
            return _after_context(message_text(message))
    return ""


def _breaks_off(text: str) -> bool:
    """Tell whether the last line is a sentence without an end; lines of lists and tables need none."""
    last = text.splitlines()[-1].strip()
    listed = "|" in last or "," in last[:12] or last[:1] in "-*•#" or last[:1].isdigit()
    ended = last[-1] not in _OPEN_ENDS and unicodedata.category(last[-1])[0] in "PS"
    return len(last.split()) >= _PROSE_WORDS and not listed and not ended


def _after_context(text: str) -> str:
    """Return what follows the last line that starts with "Question:", or the whole text."""
    found = list(_QUESTION.finditer(text))
    return text[found[-1].end() :].strip() if found else text


def _holds_json(text: str) -> bool:
    starts = [match.start() for match in _JSON_START.finditer(text)]
    return any(_is_json(text[start:]) for start in starts[:_JSON_TRIES])


def _is_json(text: str) -> bool:
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True
