"""Makes up the reply to a request: the answer's text, a tool call or a JSON object."""

import hashlib
import json
import random
from typing import Any

from llmcost_plugins.testing.records import Answer
from llmcost_plugins.testing.sample_json import sample
from llmcost_plugins.testing.wire import Asked, JsonObject, Output, Tool, encode, truncate

_QUOTED_CHARACTERS = 160
_ADJECTIVES = ("brief", "careful", "common", "exact", "gentle", "honest", "modern", "plain", "quiet", "useful")
_NOUNS = ("bridge", "garden", "harbour", "ladder", "library", "market", "meadow", "orchard", "river", "workshop")


def last_user_text(messages: list[JsonObject]) -> str:
    """Return the text of the last message from the user."""
    asked = [message for message in messages if message.get("role") == "user"]
    return _text_of(asked[-1].get("content")) if asked else ""


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def default_answer(model: str, messages: list[JsonObject]) -> str:
    """Answer with a sentence that depends on nothing but the model and the last user text."""
    question = last_user_text(messages)
    digest = hashlib.blake2b(encode(f"{model}\n{question}"), digest_size=8).hexdigest()
    pick = random.Random(digest)  # noqa: S311 - not a secret
    words = (
        f"the {pick.choice(_ADJECTIVES)} {pick.choice(_NOUNS)} and the {pick.choice(_ADJECTIVES)} {pick.choice(_NOUNS)}"
    )
    quoted = question if len(question) <= _QUOTED_CHARACTERS else question[:_QUOTED_CHARACTERS] + "..."
    return f'To "{quoted}" the answer is {words} (reference {digest}).'


def generate(asked: Asked, answer: Answer, room: int | None) -> list[Output]:
    """Return one output per choice asked for, each at most `room` tokens long."""
    tool = _tool_to_call(asked)
    if tool is not None:
        arguments = json.dumps(sample(tool.schema, last_user_text(asked.messages)), ensure_ascii=False)
        return [_call(tool.name, arguments, room)] * asked.n
    text = answer(asked.model, asked.messages)
    if asked.output_schema is not None:
        text = _as_json(text, asked)
        return [_cut(text, (), room)] * asked.n
    variants = (text if index == 0 else f"{text} (variant {index + 1})" for index in range(asked.n))
    return [_cut(variant, asked.stop, room) for variant in variants]


def _tool_to_call(asked: Asked) -> Tool | None:
    """Choose the tool: a forced one always, an offered one in reply to the user only."""
    if not asked.tools or asked.tool_choice == "none":
        return None
    if asked.tool_choice.startswith(":"):
        named = (tool for tool in asked.tools if tool.name == asked.tool_choice[1:])
        return next(named, None)
    if asked.tool_choice == "required" or asked.messages[-1].get("role") == "user":
        return asked.tools[0]
    return None


def _as_json(text: str, asked: Asked) -> str:
    """Keep an answer that is a JSON object already; make one up for the schema otherwise."""
    try:
        if isinstance(json.loads(text), dict):
            return text
    except json.JSONDecodeError:
        pass
    return json.dumps(sample(asked.output_schema or {}, last_user_text(asked.messages)), ensure_ascii=False)


def _call(name: str, arguments: str, room: int | None) -> Output:
    whole = Output(arguments, "tool_calls", tool=name)
    if room is None or whole.tokens <= room:
        return whole
    kept = truncate(whole.head + arguments, room)[len(whole.head) :]
    return Output(kept, "length", tool=name) if kept else Output("", "length")


def _cut(text: str, stop: tuple[str, ...], room: int | None) -> Output:
    """End a text at the first stop sequence or where the room ends, whichever comes first."""
    found = min(((text.find(mark), mark) for mark in stop if mark and mark in text), default=None)
    kept = text if found is None else text[: found[0]]
    if room is not None and len(shortened := truncate(kept, room)) < len(kept):
        return Output(shortened, "length")
    return Output(kept, "stop") if found is None else Output(kept, "stop_sequence", stop_sequence=found[1])
