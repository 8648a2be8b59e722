"""What a request asks, apart from the setting it asks it in."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Message, Request

Context: TypeAlias = Literal["strict", "version"]

_AROUND = "around the question"  # in place of the last message; no message has this key
_FIELDS = re.compile(r"\{(\w+)\}")
_GOES_ON = re.compile(
    r"^\W*(?:and|or|but|also|then|what about|how about|more|again|same|else|another|continue|go on|yes|no"
    r"|the (?:first|second|third|last|other|former|latter))\b",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"\b(?:it|its|that|this|these|those|they|them|their|he|him|his|she|her|one|ones|there|above|previous|earlier"
    r"|instead|too|as well|you said|you mentioned)\b",
    re.IGNORECASE,
)
_OF_TEXTS = frozenset({"type", "text", "cache_control"})
_FEW_WORDS = 4  # too few to ask something of one's own in the middle of a conversation


class Asked(NamedTuple):
    """The question of a request, None where nothing of it may be compared loosely, and the messages around it."""

    question: str | None
    frame: tuple[Message, ...]


class Template:
    """A prompt's text with its fields, by which prompts made from it are taken apart again.

    Args:
        text: The template, with `{question}` and, for retrieved passages, `{context}` or other fields.
    """

    def __init__(self, text: str) -> None:
        first, *rest = _FIELDS.split(text)
        fields, parts = rest[::2], rest[1::2]
        if fields.count("question") != 1 or len(set(fields)) != len(fields):
            raise ConfigurationError(f"`template` has the fields {fields}; expected `{{question}}` once, others once")
        if not all(parts[:-1]):
            raise ConfigurationError(f"`template` has the fields {fields} side by side; expected text between them")
        self._fields = fields
        self._first, self._between, self._last = first, parts[:-1], parts[-1]

    def question(self, prompt: str) -> str | None:
        """Return the question of a prompt, "" where it cannot be told for sure, None for one of no such template.

        A text between fields that comes twice, as where a user quotes it, leaves open where the question ends.
        """
        if not (prompt.startswith(self._first) and prompt.endswith(self._last)):
            return None
        values = [prompt[len(self._first) : len(prompt) - len(self._last)]]
        for text in self._between:
            *before, after = values
            parts = after.split(text, 2)
            if len(parts) != 2:
                return None if len(parts) == 1 else ""
            values = [*before, *parts]
        return values[self._fields.index("question")].strip()


def asked_in(request: Request, *, templates: Sequence[Template] = (), context: Context = "strict") -> Asked:
    """Return what a request asks, and what of it must be the same for two to share an answer.

    The question is the whole of the last turn, if that is the user's and text alone; where the request names its
    question, or a template finds it, the text around it belongs to the frame. With `context="version"` that text is
    left out: retrieved passages may then differ, and the cache's `version` stands for them.
    """
    messages = request.messages
    text = _last_text(messages)
    if text is None:
        return Asked(None, messages)
    question = request.question or next((q for t in templates if (q := t.question(text)) is not None), None)
    if question is None:
        return Asked(text, messages[:-1])
    if not question:
        return Asked(None, messages)
    if question not in text:
        return Asked(question, messages)
    around = [] if context == "version" else text.rsplit(question, 1)
    return Asked(question, (*messages[:-1], {_AROUND: around}))


def leans_on_context(question: str, *, first: bool) -> bool:
    """Tell whether a question is none by itself (`and for two?`); `first` says that nothing was said before it."""
    few = len(question.split()) <= _FEW_WORDS
    goes_on = _GOES_ON.match(question) is not None
    return few and goes_on if first else few or goes_on or _POINTS_BACK.search(question) is not None


def _last_text(messages: Sequence[Message]) -> str | None:
    """Return the text of the last turn if it is the user's and only text, else None."""
    last = messages[-1] if messages else None
    if last is None or last.keys() != {"role", "content"} or last["role"] != "user":
        return None
    content: Any = last["content"]
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    return message_text(last) if parts and all(map(_is_plain_text, parts)) else None


def _is_plain_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and part.keys() <= _OF_TEXTS
