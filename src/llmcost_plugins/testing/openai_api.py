"""OpenAI's chat completions format."""

import json
import math
import re
import secrets
import time
from collections.abc import Iterator
from typing import Any

from llmcost_plugins.testing.prefix_cache import AutomaticCache
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

_DATED = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
_ARGUMENT_CHARACTERS = 12
_ANY_OBJECT: JsonObject = {"type": "object", "properties": {"answer": {"type": "string"}}}
_KINDS = {429: "requests", 503: "service_unavailable_error"}
_FINISH_REASONS = {"stop_sequence": "stop"}
DONE = b"data: [DONE]\n\n"


def dated(model: str, suffix: str | None) -> str:
    """Name the snapshot that a model name stands for."""
    return model if suffix is None or _DATED.search(model) else model + suffix


def words(text: str) -> list[str]:
    """Cut a text into the pieces it is streamed in."""
    return re.findall(r"\s*\S+\s*", text) or ([text] if text else [])


def slices(text: str) -> list[str]:
    """Cut JSON arguments into the pieces they are streamed in."""
    return [text[start : start + _ARGUMENT_CHARACTERS] for start in range(0, len(text), _ARGUMENT_CHARACTERS)]


def invalid(message: str, param: str | None = None, code: str | None = None) -> RefusedError:
    """Make the error for a request that is not well formed."""
    return RefusedError(400, message, code=code, param=param)


def positive_integer(body: JsonObject, name: str) -> int | None:
    """Read an optional field that must be a positive integer."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise invalid(f"Invalid '{name}': expected an integer above 0, but got {json.dumps(value)} instead.", name)
    return value


def required_model(body: JsonObject) -> str:
    """Read the model's name."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("you must provide a model parameter", "model")
    return model


def required_messages(body: JsonObject) -> list[JsonObject]:
    """Read the messages."""
    messages = body.get("messages")
    if messages is None:
        raise invalid("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    if not isinstance(messages, list) or not messages:
        raise invalid("Invalid 'messages': expected an array with at least one message.", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid(f"Missing required parameter: 'messages[{index}].role'.", f"messages[{index}].role")
    return messages


class OpenAIChat:
    """Reads chat-completion requests and writes the replies.

    Args:
        clock: Ages the prompt cache.
        model_suffix: What a reply's model name has after the requested one.
    """

    api: Api = "openai"

    def __init__(self, clock: Clock, model_suffix: str | None) -> None:
        self._cache = AutomaticCache(clock)
        self._suffix = model_suffix

    def read(self, body: JsonObject) -> Asked:
        """Understand a request, or raise `RefusedError`."""
        stop = body.get("stop") or ()
        stream = bool(body.get("stream"))
        return Asked(
            model=required_model(body),
            messages=_paired(required_messages(body)),
            prompt=_prompt(body),
            max_tokens=positive_integer(body, "max_completion_tokens") or positive_integer(body, "max_tokens"),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            n=positive_integer(body, "n") or 1,
            tools=_tools(body),
            tool_choice=_tool_choice(body),
            output_schema=_output_schema(body),
            stream=stream,
            include_usage=not stream or bool((body.get("stream_options") or {}).get("include_usage")),
        )

    def overflow(self, asked: Asked, window: int) -> RefusedError | None:
        """Return the refusal of a request that does not fit the context window."""
        prompt, completion = asked.prompt.tokens, asked.max_tokens or 0
        if prompt + completion <= window:
            return None
        limit = f"This model's maximum context length is {window} tokens. However, "
        if completion:
            text = (
                f"{limit}you requested {prompt + completion} tokens ({prompt} in the messages, {completion} in the "
                "completion). Please reduce the length of the messages or completion."
            )
        else:
            text = f"{limit}your messages resulted in {prompt} tokens. Please reduce the length of the messages."
        return invalid(text, "messages", "context_length_exceeded")

    def count_input(self, account: str, asked: Asked) -> Usage:
        """Count the input tokens, using and filling the account's prompt cache."""
        return self._cache.use(f"{account}\n{asked.model}", asked.prompt)

    def body(self, reply: Reply) -> JsonObject:
        """Write a reply in one piece."""
        choices = [_choice(index, output) for index, output in enumerate(reply.outputs)]
        return {**self._head("chat.completion", reply), "choices": choices, "usage": _usage(reply.usage)}

    def events(self, reply: Reply) -> list[Event]:
        """Write a reply as stream events, the last of which is the end marker alone."""
        with_usage = reply.asked.include_usage
        head = self._head("chat.completion.chunk", reply)
        empty: JsonObject = {"usage": None} if with_usage else {}
        events = []
        before = 0
        for index, output in enumerate(reply.outputs):
            sent = ""
            for delta, text, finish in _deltas(output):
                sent += text
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
                chunk = {**head, "choices": [choice], **empty}
                shown = text if index == 0 else ""
                events.append(Event(_sse(chunk), before + count_tokens(sent), shown))
            before += output.tokens
        if with_usage:
            events.append(Event(_sse({**head, "choices": [], "usage": _usage(reply.usage)}), before, usage=True))
        return [*events, Event(DONE, before)]

    def error(self, refused: RefusedError) -> JsonObject:
        """Write an error."""
        fallback = "server_error" if refused.status >= 500 else "invalid_request_error"
        kind = refused.kind or _KINDS.get(refused.status, fallback)
        return {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}}

    def limit_headers(self, kind: str, limit: int, remaining: int, reset: float) -> dict[str, str]:
        """Write the state of a rate limit; `kind` is `requests` or `tokens`."""
        return {
            f"x-ratelimit-limit-{kind}": str(limit),
            f"x-ratelimit-remaining-{kind}": str(remaining),
            f"x-ratelimit-reset-{kind}": f"{math.ceil(reset * 1000)}ms",
        }

    def forget(self) -> None:
        """Empty the prompt cache."""
        self._cache.clear()

    def _head(self, kind: str, reply: Reply) -> JsonObject:
        return {
            "id": f"chatcmpl-{secrets.token_hex(14)}",
            "object": kind,
            "created": int(time.time()),
            "model": dated(reply.asked.model, self._suffix),
            "service_tier": "default",
            "system_fingerprint": f"fp_{secrets.token_hex(5)}",
        }


def _paired(messages: list[JsonObject]) -> list[JsonObject]:
    """Check that tool messages answer the tool calls right before them, and that every call is answered."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise invalid(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    f"messages[{index}].role",
                )
            open_calls.discard(message["tool_call_id"])
            continue
        _refuse_open(open_calls, index)
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
    _refuse_open(open_calls, len(messages))
    return messages


def _refuse_open(open_calls: set[str], index: int) -> None:
    if open_calls:
        raise invalid(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_calls)}",
            f"messages[{index}].role",
        )


def _prompt(body: JsonObject) -> Prompt:
    writer = PromptWriter()
    for part in (body.get("tools"), body.get("response_format")):
        if part:
            writer.json(part)
    for message in body["messages"]:
        writer.role(message["role"])
        if message.get("name"):
            writer.text(message["name"])
        _write_content(writer, message.get("content"))
        for call in message.get("tool_calls") or ():
            writer.json(call.get("function"))
    return writer.finish()


def _write_content(writer: PromptWriter, content: Any) -> None:
    if content is None:
        return
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
        if isinstance(text, str):
            writer.text(text)
        else:
            writer.attachment(part)


def _tools(body: JsonObject) -> tuple[Tool, ...]:
    functions = (tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function")
    return tuple(Tool(function["name"], function.get("parameters") or {"type": "object"}) for function in functions)


def _tool_choice(body: JsonObject) -> str:
    choice = body.get("tool_choice") or "auto"
    return str(choice) if isinstance(choice, str) else ":" + str(choice.get("function", {}).get("name"))


def _output_schema(body: JsonObject) -> JsonObject | None:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return dict(wanted["json_schema"].get("schema") or _ANY_OBJECT)
    return _ANY_OBJECT if wanted.get("type") == "json_object" else None


def _usage(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _finish_reason(output: Output) -> str:
    return _FINISH_REASONS.get(output.reason, output.reason)


def _call(output: Output, arguments: str) -> JsonObject:
    function = {"name": output.tool, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _choice(index: int, output: Output) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": output.text, "refusal": None, "annotations": []}
    if output.tool is not None:
        message |= {"content": None, "tool_calls": [_call(output, output.text)]}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _finish_reason(output)}


def _deltas(output: Output) -> Iterator[tuple[JsonObject, str, str | None]]:
    """Yield the deltas of a choice, the text that each adds to it, and how it finished."""
    if output.tool is None:
        yield {"role": "assistant", "content": "", "refusal": None}, "", None
        for word in words(output.text):
            yield {"content": word}, word, None
    else:
        call = {"index": 0, **_call(output, "")}
        yield {"role": "assistant", "content": None, "tool_calls": [call]}, output.head, None
        for piece in slices(output.text):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, piece, None
    yield {}, "", _finish_reason(output)


def _sse(chunk: JsonObject) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
