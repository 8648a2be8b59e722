"""Between LangChain's messages and the plain JSON of `Request` and `Reply`."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage

from llmcost_plugins.flow import finish_named
from llmcost_plugins.pricing import STANDARD, Context
from llmcost_plugins.types import Finish, Hit, Message, Reply, Usage

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "HumanMessageChunk": "user"}
_VOLATILE_EXTRAS = frozenset({"refusal", "parsed"})
_RAW_CALLS = frozenset({"tool_calls"})
_SAID_BY = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
_NO_DETAILS: Mapping[str, Any] = {}
_ANSWER_FIELDS = ("content", "name", "tool_calls", "invalid_tool_calls", "additional_kwargs", "response_metadata")
DOOR = "llmcost"  # what a flow door calls itself where LangChain asks for a provider
QUESTION = "llmcost_query"  # metadata keys
TAGS = "llmcost_tags"
BILLED = "llmcost_billed"  # marks answers in `response_metadata` that a flow door has recorded already
_REPORTS_FINISH = frozenset({"openai", "azure", "anthropic"})


def usage_of(metadata: Mapping[str, Any] | None) -> Usage | None:
    """Return LangChain's `usage_metadata` as `Usage`, None where none was reported."""
    if not metadata or not ("input_tokens" in metadata or "output_tokens" in metadata):
        return None
    read = metadata.get("input_token_details") or _NO_DETAILS
    written = metadata.get("output_token_details") or _NO_DETAILS
    if not read and not written:
        return Usage(metadata.get("input_tokens") or 0, metadata.get("output_tokens") or 0)
    hour = read.get("ephemeral_1h_input_tokens") or 0
    # langchain-anthropic reports the total as 0 once it splits it by TTL
    writes = (read.get("cache_creation") or 0) or (read.get("ephemeral_5m_input_tokens") or 0) + hour
    return Usage(
        input_tokens=metadata.get("input_tokens") or 0,
        output_tokens=metadata.get("output_tokens") or 0,
        cached_tokens=_first(read, "cache_read", "priority_cache_read", "flex_cache_read"),
        cache_write_tokens=writes,
        cache_write_1h_tokens=hour,
        reasoning_tokens=_first(written, "reasoning", "priority_reasoning", "flex_reasoning"),
        input_audio_tokens=read.get("audio") or 0,
        output_audio_tokens=written.get("audio") or 0,
    )


def price_context(response_metadata: Mapping[str, Any]) -> Context:
    """Return what else the price of a call depends on: the service tier that the provider reports."""
    tier = response_metadata.get("service_tier")
    return (("service_tier", tier),) if tier in ("flex", "priority") else STANDARD


def finish_of(message: BaseMessage, generation_info: Mapping[str, Any] | None = None) -> Finish | None:
    """Return how an answer ended, None for one that broke off.

    A model that never says how it ended (local and scripted ones) is taken to have stopped; OpenAI's and Anthropic's
    always say. A reason that is not known is `other`: such answers are not kept.
    """
    meta = message.response_metadata
    said = next((meta[key] for key in _SAID_BY if meta.get(key)), None) or (generation_info or {}).get("finish_reason")
    if said == "incomplete":
        said = (meta.get("incomplete_details") or {}).get("reason") or said
    if said:
        return finish_named(said)
    if meta.get("model_provider") in _REPORTS_FINISH:
        return None
    return "tool_calls" if getattr(message, "tool_calls", None) else "stop"


def to_reply(message: BaseMessage, *, call_id: str) -> Reply:
    """Return the answer of a model's call as a `Reply`."""
    meta = message.response_metadata
    return Reply(
        dump_message(message),
        text=str(message.text),
        usage=usage_of(getattr(message, "usage_metadata", None)),
        provider=meta.get("model_provider") or "",
        model=meta.get("model_name") or meta.get("model") or "",
        price_context=price_context(meta),
        finish=finish_of(message),
        calls_tools=bool(getattr(message, "tool_calls", None)),
        native=message,
        hit=hit_of(message, call_id=call_id),
    )


def whole_answer(answer: str | AIMessage) -> AIMessage:
    """Return an answer that is known beforehand as a message that ended properly."""
    return AIMessage(answer, response_metadata={"finish_reason": "stop"}) if isinstance(answer, str) else answer


def to_message(message: BaseMessage) -> Message:
    """Return what of a message bears on the answer: no ids, usage or response metadata."""
    role = _ROLES.get(message.type, message.type)
    body: dict[str, Any] = {"role": role, "content": message.content}
    if message.name:
        body["name"] = message.name
    calls = getattr(message, "tool_calls", None)
    if extras := _lasting(message.additional_kwargs, calls):
        body["extras"] = extras
    if calls:
        body["tool_calls"] = [{"name": call["name"], "args": call["args"], "id": call["id"]} for call in calls]
    if message.type == "tool":
        body["tool_call_id"] = getattr(message, "tool_call_id", "")
        body["status"] = getattr(message, "status", "success")
    return body


def from_serialised(message: Mapping[str, Any]) -> Message:
    """Do as `to_message` on one message of LangChain's JSON, without making an object of it."""
    body = message["kwargs"]
    role = _ROLES.get(body.get("type", ""), body.get("type") or message["id"][-1])
    plain: dict[str, Any] = {"role": role, "content": body.get("content")}
    if body.get("name"):
        plain["name"] = body["name"]
    if extras := _lasting(body.get("additional_kwargs") or {}, body.get("tool_calls")):
        plain["extras"] = extras
    if body.get("tool_calls"):
        plain["tool_calls"] = [{"name": c["name"], "args": c["args"], "id": c["id"]} for c in body["tool_calls"]]
    if role == "tool":
        plain["tool_call_id"] = body.get("tool_call_id", "")
        plain["status"] = body.get("status", "success")
    return plain


def dump_message(message: BaseMessage) -> dict[str, Any]:
    """Return an answer as plain JSON for the cache: everything of it but its ids and its usage, which is kept apart."""
    body = {name: getattr(message, name, None) for name in _ANSWER_FIELDS}
    extras = _lasting(message.additional_kwargs, getattr(message, "tool_calls", None))
    body["additional_kwargs"] = {name: _jsonable(value) for name, value in extras.items()}
    return body


def load_message(body: Mapping[str, Any], reply: Reply) -> AIMessage:
    """Return a stored answer as a new message: fresh ids, the usage it first took, and how it was found."""
    new_ids = {call["id"]: f"call_{uuid4().hex[:24]}" for call in body.get("tool_calls") or ()}
    return AIMessage(
        content=_with_ids(body.get("content") or "", new_ids),
        name=body.get("name"),
        tool_calls=[{**call, "id": new_ids[call["id"]], "type": "tool_call"} for call in body.get("tool_calls") or ()],
        invalid_tool_calls=[{**call, "type": "invalid_tool_call"} for call in body.get("invalid_tool_calls") or ()],
        additional_kwargs=dict(body.get("additional_kwargs") or {}),
        response_metadata={**(body.get("response_metadata") or {}), "llmcost": hit_mark(reply.hit)},
        usage_metadata=to_usage_metadata(reply.usage or Usage()),
        id=f"lc_run--{uuid4()}",
    )


def hit_of(message: BaseMessage, *, call_id: str) -> Hit | None:
    """Return the cache hit that a message came from: ours by its mark, another cache's by LangChain's zero cost."""
    mark = message.response_metadata.get("llmcost")
    if mark is not None and "hit_id" in mark:
        return Hit(mark["cache"], mark["entry_id"], mark["age"], mark.get("similarity", 1.0), mark["hit_id"])
    usage = getattr(message, "usage_metadata", None)
    return Hit("foreign", "", id=call_id) if usage is not None and usage.get("total_cost") == 0 else None


def question_in(metadata: Mapping[str, Any]) -> str | None:
    """Return the user's own question where `metadata` names it, in prompts that hold retrieved passages as well."""
    question = metadata.get(QUESTION)
    return question if isinstance(question, str) and question else None


def tags_in(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names by which the answer may be invalidated later."""
    tags = metadata.get(TAGS) or ()
    return (tags,) if isinstance(tags, str) else tuple(str(tag) for tag in tags)


def hit_mark(hit: Hit | None) -> dict[str, Any]:
    """Return what a hit says of itself in `response_metadata["llmcost"]`."""
    if hit is None:
        return {}
    return {
        "cache": hit.tier,
        "similarity": hit.similarity,
        "age": hit.age,
        "entry_id": hit.entry_id,
        "hit_id": hit.id,
    }


def to_usage_metadata(usage: Usage) -> Any:
    """Return `Usage` in LangChain's form, details included where there are any."""
    metadata: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    read = {
        "cache_read": usage.cached_tokens,
        "cache_creation": usage.cache_write_tokens,
        "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        "audio": usage.input_audio_tokens,
    }
    written = {"reasoning": usage.reasoning_tokens, "audio": usage.output_audio_tokens}
    if any(read.values()):
        metadata["input_token_details"] = {name: count for name, count in read.items() if count}
    if any(written.values()):
        metadata["output_token_details"] = {name: count for name, count in written.items() if count}
    return metadata


def _first(details: Mapping[str, Any], *names: str) -> Any:
    return next((details[name] for name in names if details.get(name)), 0)


def _lasting(extras: Mapping[str, Any], tool_calls: Any = None) -> dict[str, Any]:
    """Return what of `additional_kwargs` bears on the answer; raw tool calls only say again what `tool_calls` does."""
    dropped = _VOLATILE_EXTRAS | _RAW_CALLS if tool_calls else _VOLATILE_EXTRAS
    return {name: value for name, value in extras.items() if name not in dropped and value is not None}


def _jsonable(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _with_ids(content: Any, new_ids: Mapping[str, str]) -> Any:
    """Return the content with the ids of its tool-use blocks renamed as those of the tool calls are."""
    if not new_ids or not isinstance(content, list):
        return content
    return [_renamed(block, new_ids) if isinstance(block, dict) else block for block in content]


def _renamed(block: Mapping[str, Any], new_ids: Mapping[str, str]) -> dict[str, Any]:
    ids = {key: new_ids[block[key]] for key in ("id", "call_id") if block.get(key) in new_ids}
    return {**block, **ids}
