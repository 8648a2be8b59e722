"""Anthropic's messages format."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

from llmcost_plugins.testing.openai_api import dated, invalid, positive_integer, required_messages, slices, words
from llmcost_plugins.testing.prefix_cache import FIVE_MINUTES, ONE_HOUR, MarkedCache
from llmcost_plugins.testing.records import Api, Clock
from llmcost_plugins.testing.wire import (
    Asked,
    Event,
    JsonObject,
    Output,
    Prompt,
    PromptWriter,
    RefusedError,
    Reply,
    Tool,
    Usage,
    count_tokens,
)

_MAX_MARKERS = 4
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class AnthropicMessages:
    """Reads messages requests and writes the replies.

    Args:
        clock: Ages the prompt cache.
        model_suffix: What a reply's model name has after the requested one, the dashes of a date aside.
    """

    api: Api = "anthropic"

    def __init__(self, clock: Clock, model_suffix: str | None) -> None:
        self._cache = MarkedCache(clock)
        self._suffix = None if model_suffix is None else "-" + model_suffix.replace("-", "")

    def read(self, body: JsonObject) -> Asked:
        """Understand a request, or raise `RefusedError`."""
        for name in ("model", "max_tokens", "messages"):
            if body.get(name) is None:
                raise invalid(f"{name}: Field required", name)
        turns = required_messages(body)
        _check_tool_results(turns)
        tool_choice = body.get("tool_choice") or {}
        return Asked(
            model=str(body["model"]),
            messages=list(_openai_messages(body.get("system"), turns)),
            prompt=_prompt(body),
            max_tokens=positive_integer(body, "max_tokens"),
            stop=tuple(body.get("stop_sequences") or ()),
            tools=_tools(body),
            tool_choice=_tool_choice(tool_choice),
            output_schema=_output_schema(body),
            stream=bool(body.get("stream")),
        )

    def overflow(self, asked: Asked, window: int) -> RefusedError | None:
        """Return the refusal of a request that does not fit the context window."""
        prompt, completion = asked.prompt.tokens, asked.max_tokens or 0
        if prompt > window:
            return invalid(f"prompt is too long: {prompt} tokens > {window} maximum")
        if prompt + completion > window:
            return invalid(
                f"input length and `max_tokens` exceed context limit: {prompt} + {completion} > {window}, "
                "decrease input length or `max_tokens` and try again"
            )
        return None

    def count_input(self, account: str, asked: Asked) -> Usage:
        """Count the input tokens, using and filling the account's prompt cache."""
        return self._cache.use(f"{account}\n{asked.model}", asked.prompt)

    def body(self, reply: Reply) -> JsonObject:
        """Write a reply in one piece."""
        output = reply.outputs[0]
        return {
            **self._head(reply),
            "content": [_block(output, output.text)] if output.tool or output.text else [],
            "stop_reason": _stop_reason(output),
            "stop_sequence": output.stop_sequence,
            "usage": _usage(reply.usage, reply.usage.output),
        }

    def events(self, reply: Reply) -> list[Event]:
        """Write a reply as stream events."""
        output = reply.outputs[0]
        started = {**self._head(reply), "content": [], "stop_reason": None, "stop_sequence": None}
        started["usage"] = _usage(reply.usage, 1)
        ended = {"stop_reason": _stop_reason(output), "stop_sequence": output.stop_sequence}
        return [
            _event("message_start", 0, message=started),
            *_block_events(output),
            _event("message_delta", output.tokens, delta=ended, usage=_usage(reply.usage, reply.usage.output)),
            _event("message_stop", output.tokens),
        ]

    def error(self, refused: RefusedError) -> JsonObject:
        """Write an error."""
        fallback = "api_error" if refused.status >= 500 else "invalid_request_error"
        error = {"type": _KINDS.get(refused.status, fallback), "message": refused.message}
        return {"type": "error", "error": error, "request_id": f"req_{secrets.token_hex(12)}"}

    def limit_headers(self, kind: str, limit: int, remaining: int, reset: float) -> dict[str, str]:
        """Write the state of a rate limit; `kind` is `requests` or `tokens`."""
        prefix = f"anthropic-ratelimit-{kind}"
        return {f"{prefix}-limit": str(limit), f"{prefix}-remaining": str(remaining)}

    def forget(self) -> None:
        """Empty the prompt cache."""
        self._cache.clear()

    def _head(self, reply: Reply) -> JsonObject:
        return {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": dated(reply.asked.model, self._suffix),
        }


def _blocks(content: Any) -> list[JsonObject]:
    """Read content, which may be a bare text, as blocks."""
    return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]


def _check_tool_results(turns: list[JsonObject]) -> None:
    """Check that tool results answer the tool uses right before them, and that every use is answered."""
    used: set[str] = set()
    for index, turn in enumerate([*turns, {"role": "end", "content": []}]):
        blocks = _blocks(turn.get("content"))
        answered = {block["tool_use_id"] for block in blocks if block.get("type") == "tool_result"}
        if used - answered:
            raise invalid(
                f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(sorted(used - answered))}. Each `tool_use` block must have a corresponding `tool_result` "
                "block in the next message."
            )
        if answered - used:
            raise invalid(
                f"messages.{index}.content: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{', '.join(sorted(answered - used))}. Each `tool_result` block must have a corresponding `tool_use` "
                "block in the previous message."
            )
        used = {block["id"] for block in blocks if block.get("type") == "tool_use"}


def _openai_messages(system: Any, turns: list[JsonObject]) -> Iterator[JsonObject]:
    """Put the messages in OpenAI's format; blocks that it has no place for stay as they are."""
    if system:
        yield {"role": "system", "content": _content(_blocks(system))}
    for turn in turns:
        rest = []
        calls = []
        for block in _blocks(turn.get("content")):
            if block.get("type") == "tool_result":
                content = _content(_blocks(block.get("content")))
                yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}
            elif block.get("type") == "tool_use":
                function = {"name": block["name"], "arguments": json.dumps(block["input"])}
                calls.append({"id": block["id"], "type": "function", "function": function})
            else:
                rest.append(block)
        if calls:
            yield {"role": turn["role"], "content": _content(rest), "tool_calls": calls}
        elif rest:
            yield {"role": turn["role"], "content": _content(rest)}


def _content(blocks: list[JsonObject]) -> str | list[JsonObject]:
    if all(block.get("type") == "text" for block in blocks):
        return "\n".join(block["text"] for block in blocks)
    return blocks


def _prompt(body: JsonObject) -> Prompt:
    writer = PromptWriter()
    markers = _Markers(automatic=body.get("cache_control"))
    for tool in body.get("tools") or ():
        writer.json({key: value for key, value in tool.items() if key != "cache_control"})
        writer.end_block(markers.ttl(tool))
    if body.get("system"):
        writer.role("system")
        for block in _blocks(body["system"]):
            writer.text(str(block.get("text")))
            writer.end_block(markers.ttl(block))
    turns = body["messages"]
    for turn in turns:
        writer.role(turn["role"])
        blocks = _blocks(turn.get("content"))
        for block in blocks:
            _write_block(writer, block)
            writer.end_block(markers.ttl(block, last=turn is turns[-1] and block is blocks[-1]))
    return writer.finish()


class _Markers:
    """Reads the cache markers of a request, of which only so many are allowed."""

    def __init__(self, automatic: JsonObject | None) -> None:
        self._automatic = automatic
        self._found = 0

    def ttl(self, block: JsonObject, *, last: bool = False) -> float | None:
        """Return how long the prompt is to be cached up to this block, if at all."""
        marker = block.get("cache_control") or (self._automatic if last else None)
        if not marker:
            return None
        self._found += 1
        if self._found > _MAX_MARKERS:
            raise invalid(f"A maximum of {_MAX_MARKERS} blocks with cache_control may be provided.")
        return ONE_HOUR if marker.get("ttl") == "1h" else FIVE_MINUTES


def _write_block(writer: PromptWriter, block: JsonObject) -> None:
    kind = block.get("type")
    if kind in ("text", "thinking"):
        writer.text(str(block[kind]))
    elif kind == "tool_use":
        writer.json([block["name"], block["input"]])
    elif kind == "tool_result":
        for part in _blocks(block.get("content")):
            _write_block(writer, part)
    else:
        writer.attachment({key: value for key, value in block.items() if key != "cache_control"})


def _tools(body: JsonObject) -> tuple[Tool, ...]:
    return tuple(Tool(tool["name"], tool["input_schema"]) for tool in body.get("tools") or () if "input_schema" in tool)


def _tool_choice(choice: JsonObject) -> str:
    kind = choice.get("type", "auto")
    return {"any": "required", "tool": f":{choice.get('name')}"}.get(kind, str(kind))


def _output_schema(body: JsonObject) -> JsonObject | None:
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
    return dict(wanted.get("schema") or {}) if wanted.get("type") == "json_schema" else None


def _usage(usage: Usage, output_tokens: int) -> JsonObject:
    written = usage.written_5m + usage.written_1h
    return {
        "input_tokens": usage.input - usage.cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.written_5m,
            "ephemeral_1h_input_tokens": usage.written_1h,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _stop_reason(output: Output) -> str:
    return _STOP_REASONS.get(output.reason, output.reason)


def _block(output: Output, text: str) -> JsonObject:
    if output.tool is None:
        return {"type": "text", "text": text}
    # Arguments that were cut short are no JSON, and the API shows none of them.
    arguments = json.loads(text) if text and output.reason != "length" else {}
    return {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": output.tool, "input": arguments}


def _block_events(output: Output) -> Iterator[Event]:
    sent = output.head
    pieces = words(output.text) if output.tool is None else slices(output.text)
    if not sent and not pieces:
        return
    yield _event("content_block_start", count_tokens(sent), sent, index=0, content_block=_block(output, ""))
    for piece in pieces:
        sent += piece
        if output.tool is None:
            delta = {"type": "text_delta", "text": piece}
        else:
            delta = {"type": "input_json_delta", "partial_json": piece}
        yield _event("content_block_delta", count_tokens(sent), piece, index=0, delta=delta)
    yield _event("content_block_stop", output.tokens, index=0)


def _event(kind: str, tokens: int, answer: str = "", **fields: Any) -> Event:
    data = json.dumps({"type": kind, **fields})
    return Event(f"event: {kind}\ndata: {data}\n\n".encode(), tokens, answer, usage=kind == "message_delta")
