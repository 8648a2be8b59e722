"""What can be counted in a request within microseconds: how much there is to keep in mind, and what kind it is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log1p
from typing import Final

from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Message, Request

FEATURES: Final = (
    "words",
    "sentences",
    "commas",
    "numbers",
    "capitals",
    "repeated words",
    "negations",
    "conditions",
    "quantities",
    "reasoning words",
    "persons",
    "brackets",
    "formulas",
    "code",
    "quotes",
    "questions",
    "earlier turns",
    "earlier words",
    "re-asks",
    "tools bound",
    "tool results",
    "tool errors",
)
"""What `Reading.values` counts, in its order. All say that there is more to do: none makes a request easier."""

CLOSED: Final = ("choice", "quantity")
"""The kinds of request that have one right answer; the others are "open", "conversation" and "agent"."""

_READ = 4_000  # characters
_GLANCE = 300
_RECENT = 10  # messages; older trouble has been dealt with, and agents' histories are long
_CHARACTERS_PER_WORD = 6  # of English prose, its space included

_NEGATIONS = (
    "not no never except least neither nor none nobody nothing without cannot false incorrect untrue unless isn't "
    "don't doesn't can't didn't won't wasn't aren't weren't couldn't shouldn't wouldn't hasn't haven't"
)
_CONDITIONS = (
    "if suppose assume given assuming when whenever provided otherwise then therefore thus hence because since until "
    "while whether although however"
)
_QUANTITIES = (
    "each every total altogether twice half double triple thrice quarter third times percent percentage more less "
    "fewer than per ratio rate average remaining left much many rest equal both combined two three four five six seven "
    "eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million dozen"
)
_REASONING = (
    "calculate compute find determine solve evaluate estimate prove derive explain compare analyze analyse how why "
    "probability equation value sum difference increase decrease increases decreases change changes"
)
_PERSONS = "i my me he she his her him they them their we our us you your"
_GROUPS = (_NEGATIONS, _CONDITIONS, _QUANTITIES, _REASONING, _PERSONS)
_GROUP_OF: Final = {word: group for group, words in enumerate(_GROUPS) for word in words.split()}
_ASKING = {"how", "what", "what's", "find", "calculate", "compute", "solve"}
_MAKING_WORDS = (
    "write compose draft imagine pretend act roleplay brainstorm poem story essay email blog translate summarize "
    "summarise rewrite paraphrase implement function code program script html sql regex extract json csv design"
)
_MAKING = frozenset(_MAKING_WORDS.split())
_SOME_NUMBERS = 3

_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?|\d")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OPTION = re.compile(r"\n[ \t]{0,4}\(?([A-J])[.)] ")
_RE_ASK = re.compile(
    r"\b(?:that'?s (?:wrong|not )|(?:is|are|was|still) (?:wrong|incorrect)\b|try again|not what i |doesn'?t work|"
    r"you (?:forgot|missed|ignored)|still (?:not|fails|failing|broken)|i (?:already )?(?:said|asked|told)\b)",
    re.IGNORECASE,
)
_FAILURE = re.compile(r"(?:error|exception|traceback|failed|timed? ?out|not found|denied|invalid)\b", re.IGNORECASE)
_NUMBERS, _QUANTITY_WORDS, _EARLIER, _TOOLS, _RESULTS = map(
    FEATURES.index, ("numbers", "quantities", "earlier turns", "tools bound", "tool results")
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in a request: its kind, its words in lower case, and the logarithms of the counts."""

    kind: str
    words: list[str]
    values: tuple[float, ...]


def read(request: Request) -> Reading:
    """Count what makes a request heavy.

    All that the user has said counts, for a "yes" is as hard as what it answers. Where the door names the user's
    question (`Request.question`), the passages around it do not count. Of long texts the first and the last 2,000
    characters are read.
    """
    said = [message_text(message) for message in request.messages if message.get("role") == "user"]
    whole = "\n".join(said) if request.question is None else request.question
    text = whole if len(whole) <= _READ else f"{whole[: _READ // 2]}\n{whole[-_READ // 2 :]}"
    words = _WORD.findall(text.lower().replace("\u2019", "'"))
    unread = (len(whole) - len(text)) // _CHARACTERS_PER_WORD
    counts = (*_in_text(text, words, max(0, unread)), *_in_conversation(request, said))
    return Reading(_kind(text, words, counts), words, tuple(map(log1p, counts)))


def _in_text(text: str, words: Sequence[str], unread: int) -> tuple[int, ...]:
    spaced = text.split()
    count = text.count
    return (
        len(spaced) + unread,
        count(". ") + count("? ") + count("! ") + count(".\n"),
        count(","),
        len(_NUMBER.findall(text)),
        sum([word[0].isupper() for word in spaced]),
        len(words) - len(set(words)),
        *_in_groups(words),
        count("(") + count("["),
        sum(map(count, "=+^\\<>*")),
        sum(map(count, "{};`")),
        sum(map(count, '"\u201c|')),
        count("?"),
    )


def _in_groups(words: Sequence[str]) -> list[int]:
    counts = [0] * len(_GROUPS)
    for group in map(_GROUP_OF.get, words):
        if group is not None:
            counts[group] += 1
    return counts


def _in_conversation(request: Request, said: Sequence[str]) -> tuple[int, ...]:
    tools = len(request.params.get("tools") or ())
    if len(request.messages) == 1:
        return (0, 0, 0, tools, 0, 0)
    results = [message for message in request.messages if message.get("role") == "tool"]
    answers = [message_text(message) for message in request.messages if message.get("role") == "assistant"]
    return (
        max(len(answers), len(said) - 1),
        sum(map(len, answers)) // _CHARACTERS_PER_WORD,
        sum(_RE_ASK.search(text[:_GLANCE]) is not None for text in said[1:][-_RECENT:]),
        tools,
        len(results),
        sum(map(_failed, results[-_RECENT:])),
    )


def _failed(result: Message) -> bool:
    return result.get("status") == "error" or _FAILURE.search(message_text(result)[:_GLANCE]) is not None


def _kind(text: str, words: Sequence[str], counts: Sequence[int]) -> str:
    if counts[_TOOLS] or counts[_RESULTS]:
        return "agent"
    if counts[_EARLIER]:
        return "conversation"
    if len(set(_OPTION.findall(text))) >= 2:
        return "choice"
    numbers = counts[_NUMBERS] + counts[_QUANTITY_WORDS] >= _SOME_NUMBERS
    return "quantity" if numbers and not _ASKING.isdisjoint(words) and _MAKING.isdisjoint(words) else "open"
