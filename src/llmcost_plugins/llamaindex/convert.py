"""Between LlamaIndex's messages and responses and the plain JSON of `Request` and `Reply`."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import uuid4

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json
from pydantic import BaseModel

from llmcost_plugins.llamaindex.usage import Native, finish_of, get, model_of, price_context, usage_of
from llmcost_plugins.types import Hit, Message, Reply

MARK = "llmcost"  # what a hit says of itself in `raw` and `additional_kwargs`
_ROLES = {"chatbot": "assistant", "model": "assistant"}
_DRAWN = frozenset(
    {
        "usage",
        "stop_reason",
        "thinking_delta",
        "refusal",
        "parsed",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
    }
)
_IDS = frozenset({"id", "call_id", "tool_id", "tool_call_id"})
_ARGUMENTS = frozenset({"arguments", "args", "input", "tool_kwargs"})


def to_message(message: ChatMessage) -> Message:
    """Return what of a message bears on the answer: no usage or finish reason of its own making."""
    role, extras = str(message.role.value), dict(message.additional_kwargs)
    body: dict[str, Any] = {"role": _ROLES.get(role, role), "content": _content(message)}
    if calls := _calls(message):
        body["tool_calls"] = calls
        extras.pop("tool_calls", None)
    if "tool_call_id" in extras:
        body["tool_call_id"] = extras.pop("tool_call_id")
    if lasting := {name: plain(value) for name, value in extras.items() if name not in _DRAWN and value is not None}:
        body["extras"] = lasting
    return body


def to_reply(responses: Sequence[Native], select: Callable[[ChatResponse], list[ToolSelection]]) -> Reply:
    """Return a response, or the chunks of one that was streamed, as a `Reply`; `select` reads its tool calls."""
    response = joined(responses)
    selections = select(response) if isinstance(response, ChatResponse) else []
    calls = bool(selections) or bool(_calls_of(response))
    finish = finish_of(responses)
    lost = calls and not selections  # calls that could not be given again must not be kept
    return Reply(
        _dumped(response, selections),
        text=text_of(response),
        usage=usage_of(responses),
        model=model_of(responses),
        price_context=price_context(responses),
        finish="other" if lost and finish is not None else finish,
        calls_tools=calls,
        native=response,
    )


def joined(responses: Sequence[Native]) -> Native:
    """Return the whole of a stream's chunks: the last one, whose text is all that came before it."""
    last = responses[-1]
    told = "".join(chunk.delta or "" for chunk in responses)
    if len(text_of(last)) >= len(told):
        return last.model_copy(update={"delta": None}) if len(responses) > 1 else last
    if isinstance(last, CompletionResponse):
        return last.model_copy(update={"text": told, "delta": None})
    others = [block for block in last.message.blocks if not isinstance(block, TextBlock)]
    message = last.message.model_copy(update={"blocks": [TextBlock(text=told), *others]})
    return last.model_copy(update={"message": message, "delta": None})


def text_of(response: Native) -> str:
    """Return the text of a response."""
    return response.text if isinstance(response, CompletionResponse) else response.message.content or ""


def replayed(reply: Reply) -> Iterator[Any]:
    """Yield a whole answer as a stream of one chunk; nothing where the LLM's own stream was empty."""
    response = reply.native
    if response is not None:
        yield response if response.delta else response.model_copy(update={"delta": text_of(response)})


def load(reply: Reply) -> Native:
    """Return a stored answer as a new response: fresh tool-call ids, and how it was found."""
    body = _with_fresh_ids(reply.body)
    mark = hit_mark(reply.hit)
    about: dict[str, Any] = {"raw": {MARK: mark}, "additional_kwargs": {MARK: mark}}
    if body["logprobs"]:
        about["logprobs"] = [[LogProb.model_validate(one) for one in each] for each in body["logprobs"]]
    if "text" in body:
        return CompletionResponse(text=body["text"], **about)
    if body["tools"]:
        about["additional_kwargs"] = {MARK: {**mark, "tool_calls": body["tools"]}}
    return ChatResponse(message=ChatMessage.model_validate(body["message"]), **about)


def legible(chunk: ChatResponse) -> ChatResponse:
    """Return a chunk with its tool calls where LlamaIndex looks for them when it reads objects out of streams."""
    message = chunk.message
    selected = selections_of_blocks(chunk)
    if not selected or message.additional_kwargs.get("tool_calls"):
        return chunk
    extras = {**message.additional_kwargs, "tool_calls": [call.model_dump() for call in selected]}
    return chunk.model_copy(update={"message": message.model_copy(update={"additional_kwargs": extras})})


def hit_mark(hit: Hit | None) -> dict[str, Any]:
    """Return what a hit says of itself."""
    if hit is None:
        return {}
    found = {"cache": hit.tier, "age": hit.age, "entry_id": hit.entry_id, "hit_id": hit.id}
    return {**found, "similarity": hit.similarity}


def selections_of_hit(response: ChatResponse) -> list[ToolSelection] | None:
    """Return the tool calls of an answer that came from the cache, None for one that did not."""
    mark = response.additional_kwargs.get(MARK)
    if mark is None:
        return None
    return [ToolSelection.model_validate(call) for call in mark.get("tool_calls", ())]


def selections_of_blocks(response: ChatResponse) -> list[ToolSelection]:
    """Return the tool calls in the form that every current integration gives them."""
    blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
    return [
        ToolSelection(tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=_arguments(block))
        for block in blocks
    ]


def plain(value: Any) -> Any:
    """Return a value in a form that lasts, as far as it has one: bytes and files by their hash, classes by schema."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value.model_json_schema()
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    return _plain_leaf(value)


def _plain_leaf(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return _hash(value.read_bytes())
    if isinstance(value, bytes):
        return _hash(value)
    return str(value) if type(value).__name__.endswith("Url") else value


def _hash(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _content(message: ChatMessage) -> Any:
    blocks = [block for block in message.blocks if not isinstance(block, ToolCallBlock)]
    if not blocks:
        return ""
    if len(blocks) == 1 and isinstance(blocks[0], TextBlock):
        return blocks[0].text
    return [_part(block) for block in blocks]


def _part(block: BaseModel) -> dict[str, Any]:
    fields = {name: value for name, value in plain(block).items() if value is not None}
    return {"type": fields.pop("block_type", type(block).__name__), **fields}


def _calls_of(response: Native) -> list[dict[str, Any]]:
    return _calls(response.message) if isinstance(response, ChatResponse) else []


def _calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Return the tool calls of a message, of older integrations out of `additional_kwargs`."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [{"name": b.tool_name, "args": plain(b.tool_kwargs), "id": b.tool_call_id} for b in blocks]
    return [_raw_call(call) for call in message.additional_kwargs.get("tool_calls") or ()]


def _raw_call(call: Any) -> dict[str, Any]:
    function = get(call, "function")
    if function is None:
        return {"raw": plain(call), "id": get(call, "id")}
    return {"name": get(function, "name"), "args": plain(get(function, "arguments")), "id": get(call, "id")}


def _arguments(block: ToolCallBlock) -> dict[str, Any]:
    if isinstance(block.tool_kwargs, dict):
        return block.tool_kwargs
    try:
        return parse_partial_json(block.tool_kwargs)
    except ValueError:
        return {}


def _dumped(response: Native, selections: Iterable[ToolSelection]) -> dict[str, Any]:
    """Return an answer as plain JSON for the cache; what has no such form stays as it is, and will not be kept."""
    logprobs = [[one.model_dump() for one in each] for each in response.logprobs or ()]
    if isinstance(response, CompletionResponse):
        return {"text": response.text, "logprobs": logprobs}
    message = response.message
    extras = {name: value for name, value in message.additional_kwargs.items() if name not in _DRAWN}
    tools = [selection.model_dump() for selection in selections]
    try:
        lasting = message.model_copy(update={"additional_kwargs": extras}).model_dump(mode="json")
    except Exception:  # noqa: BLE001 - the answer is paid for, and the cache says that it could not keep it
        return {"message": message, "tools": tools, "logprobs": logprobs}
    return {"message": lasting, "tools": tools, "logprobs": logprobs}


def _with_fresh_ids(body: Any) -> Any:
    """Return a stored answer with new ids for its tool calls; where the tool's name serves as the id, it stays."""
    given = [(call["tool_id"], call["tool_name"]) for call in body.get("tools", ())]
    new = {old: f"call_{uuid4().hex[:24]}" for old, name in given if old and old != name}
    return _renamed(body, new) if new else body


def _renamed(value: Any, new: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(part, new) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: _field_renamed(name, part, new) for name, part in value.items()}


def _field_renamed(name: str, value: Any, new: Mapping[str, str]) -> Any:
    if name in _ARGUMENTS:
        return value
    return new.get(value, value) if name in _IDS and isinstance(value, str) else _renamed(value, new)
