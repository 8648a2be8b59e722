"""What is visibly wrong with an answer: checks that need no training, with hardly a false alarm."""

import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmcost_plugins.routing.schemas import violation
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Reply, Request

_HEDGE = re.compile(
    r"\b(?:i(?:'m| am) not (?:sure|certain|able)|i (?:don't|do not) (?:have (?:enough|access)|know)|not enough "
    r"information|as an ai\b[^.!?]{0,60}\b(?:can't|cannot|unable)|"
    r"i (?:can't|cannot|am unable to) (?:help|answer|determine|say|assist|tell|provide (?:an?|the)(?: \w+)? answer)|"
    r"i(?:'m| am) sorry, (?:but )?i (?:can't|cannot|couldn't|could not|don't))",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"[^"\n]*"|“[^“”\n]*”')
_REFUSAL_ZONE = 200  # characters at either end: what stands further inside is a caveat, or a role that is played
_WANTS_JSON = re.compile(
    r"\b(?:as|in|into|return|output|reply with|respond with|give me|only)\b[^.?!]{0,30}\bjson\b", re.I
)
_QUESTION = re.compile(r"\n[ \t]*question:", re.IGNORECASE)
_OPEN_ENDS = frozenset(",\u060c\u3001-\u2013\u2014([{/\\&+<=")  # commas and dashes of several scripts
_OPEN_WORDS = frozenset({"a", "an", "the", "and", "or", "but", "of", "in", "to", "with", "from", "your", "our", "my"})
_PROSE_WORDS = 6
_JSON_START = re.compile(r"[{\[]")
_JSON_TRIES = 20
_LOOP_TAIL = 3_000  # characters
_LOOP_RATIO = 10  # prose packs to a half or a third; recorded answers that loop to a twentieth and less


def shortcoming(request: Request, reply: Reply) -> str | None:
    """Say what is visibly wrong with an answer, or None.

    Found are answers that are empty, cut off, refusals, caught in a loop, not the JSON asked for (in words or by
    `params["response_format"]`), and calls of tools that are unknown or whose arguments do not fit
    `params["tools"]`. The first fault found is told.
    """
    calls = _tool_calls(reply.body)
    if reply.calls_tools or calls:
        return _cut(request, reply, "") or _tool_fault(request, calls)
    text = reply.text.strip()
    return next((fault for check in _CHECKS if (fault := check(request, reply, text))), None)


def repetition(text: str) -> float:
    """Return how many times shorter the end of a text is once what it repeats is said only once."""
    tail = text[-_LOOP_TAIL:].encode("utf-8", "surrogatepass")
    return len(tail) / len(zlib.compress(tail, 1)) if tail else 1.0


def breaks_off(text: str) -> bool:
    """Tell whether the last line is a sentence without an end; lines of lists, tables and equations need none."""
    last = text.rstrip().splitlines()[-1].strip() if text.strip() else ""
    listed = "|" in last or "=" in last or "," in last[:12] or last[:1] in "-*•#" or last[:1].isdigit()
    words = last.split()
    left_open = bool(words) and words[-1].lower() in _OPEN_WORDS
    return len(words) >= _PROSE_WORDS and (left_open or not listed) and not _ended(last)


def task(request: Request) -> str:
    """Return what the user wants done: the question given by the door, or the last user turn after its context."""
    if request.question is not None:
        return request.question
    for message in reversed(request.messages):
        if message.get("role") == "user":
            return _after_context(message_text(message))
    return ""


def _ended(line: str) -> bool:
    return line[-1] not in _OPEN_ENDS and unicodedata.category(line[-1])[0] in "PS"


def _after_context(text: str) -> str:
    """Return what follows the last line that starts with "Question:", or the whole text."""
    found = list(_QUESTION.finditer(text))
    return text[found[-1].end() :].strip() if found else text


# --- Texts


def _empty(request: Request, reply: Reply, text: str) -> str | None:
    return None if text else "empty answer"


def _cut(request: Request, reply: Reply, text: str) -> str | None:
    return "answer cut at its token limit" if reply.finish == "length" else None


def _looping(request: Request, reply: Reply, text: str) -> str | None:
    return "answer repeats itself" if len(text) >= _LOOP_TAIL / 2 and repetition(text) > _LOOP_RATIO else None


def _refusal(request: Request, reply: Reply, text: str) -> str | None:
    said = _QUOTED.sub('""', text)
    zones = (said[:_REFUSAL_ZONE], said[-_REFUSAL_ZONE:])
    return "the answer says that it does not know" if any(map(_HEDGE.search, zones)) else None


def _not_json(request: Request, reply: Reply, text: str) -> str | None:
    wanted = _format(request)
    if wanted is not None:
        return _format_fault(text, wanted)
    if _WANTS_JSON.search(task(request)) and not _holds_json(text):
        return "JSON was asked for and did not come"
    return None


def _unfinished(request: Request, reply: Reply, text: str) -> str | None:
    return "answer ends in mid-sentence" if breaks_off(text) else None


_CHECKS: Sequence[Callable[[Request, Reply, str], str | None]] = (
    _empty,
    _cut,
    _looping,
    _not_json,
    _refusal,
    _unfinished,
)


# --- JSON


def _format(request: Request) -> Mapping[str, Any] | None:
    """Return the schema that an answer must follow, {} where any object will do, None where none was set."""
    wanted = _settings(request).get("response_format")
    if not isinstance(wanted, Mapping):
        return None
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    named = wanted.get("json_schema")
    schema = named.get("schema") if isinstance(named, Mapping) else wanted if "properties" in wanted else None
    return schema if isinstance(schema, Mapping) else None


def _settings(request: Request) -> Mapping[str, Any]:
    """Return the call's parameters; LlamaIndex's doors keep them one level deeper."""
    settings = request.params.get("settings")
    return settings if isinstance(settings, Mapping) else request.params


def _format_fault(text: str, schema: Mapping[str, Any]) -> str | None:
    try:
        value = json.loads(_unfenced(text))
    except (ValueError, RecursionError):
        return "JSON was asked for and did not come"
    fault = violation(value, schema)
    return f"JSON does not fit its schema: {fault}" if fault else None


def _unfenced(text: str) -> str:
    """Return what stands inside a fence of three backticks, where all of the text is one."""
    fenced = text.startswith("```") and text.endswith("```") and "\n" in text
    return text[text.index("\n") : -3] if fenced else text


def _holds_json(text: str) -> bool:
    starts = [match.start() for match in _JSON_START.finditer(text)]
    return any(_is_json(text[start:]) for start in starts[:_JSON_TRIES])


def _is_json(text: str) -> bool:
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


# --- Tools


def _tool_calls(body: Any) -> list[tuple[str, Any]]:
    """Return the names and arguments of an answer's tool calls, in LangChain's, LlamaIndex's or OpenAI's own form."""
    if not isinstance(body, Mapping):
        return []
    found = [body.get(key) for key in ("tool_calls", "invalid_tool_calls", "tools")]
    return [_named_call(call) for calls in found if isinstance(calls, list) for call in calls if _is_call(call)]


def _is_call(call: Any) -> bool:
    return isinstance(call, Mapping)


def _named_call(call: Mapping[str, Any]) -> tuple[str, Any]:
    function = call.get("function")
    inner = function if isinstance(function, Mapping) else call
    name = inner.get("name") or inner.get("tool_name")
    arguments = next((inner[key] for key in ("args", "arguments", "tool_kwargs") if key in inner), None)
    return str(name or ""), arguments


def _tool_fault(request: Request, calls: Sequence[tuple[str, Any]]) -> str | None:
    tools = request.params.get("tools", _settings(request).get("tools"))
    offered = dict(_offered(tools)) if isinstance(tools, list) else {}
    closed = isinstance(tools, list) and len(offered) == len(tools)  # no tools among them that only the provider knows
    return next((fault for name, given in calls if (fault := _call_fault(name, given, offered, closed=closed))), None)


def _offered(tools: Sequence[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the names and parameters of tools in OpenAI's form or Anthropic's."""
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            schema = function.get("parameters", function.get("input_schema"))
            if isinstance(schema, Mapping):
                yield function["name"], schema


def _call_fault(name: str, given: Any, offered: Mapping[str, Mapping[str, Any]], *, closed: bool) -> str | None:
    if closed and name not in offered:
        return f"call of an unknown tool {name!r}"
    arguments = _parsed(given)
    if not isinstance(arguments, Mapping):
        return f"arguments of {name!r} are not JSON"
    fault = violation(arguments, offered[name]) if name in offered else None
    return f"arguments of {name!r} do not fit: {fault}" if fault else None


def _parsed(given: Any) -> Any:
    if not isinstance(given, str):
        return {} if given is None else given
    try:
        return json.loads(given or "{}")
    except (ValueError, RecursionError):
        return None
