"""How a flow calls LangChain's chat models, and what it makes of them as tiers."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel
from typing_extensions import override

from llmcost_plugins.flow import fault_of
from llmcost_plugins.langchain.callbacks import CALL_ID
from llmcost_plugins.langchain.convert import load_message, to_message, to_reply
from llmcost_plugins.plan import Ask
from llmcost_plugins.scope import within
from llmcost_plugins.tokens import count_messages, count_text
from llmcost_plugins.types import Fault, Reply, Scope, Tier, Usage

_BINDING = ("tool_choice", "strict", "parallel_tool_calls")
_HIDDEN = "nostream"  # LangGraph leaves runs with this tag out of its message streams
_TRACED_FORMAT = "ls_structured_output_format"  # for traces; the schema itself stands in `tools` or `response_format`


class Caller:
    """Calls one tier's LangChain model as a child of the router's run."""

    def __init__(
        self,
        messages: list[BaseMessage],
        config: RunnableConfig,
        stop: list[str] | None,
        kwargs: dict[str, Any],
        run_id: str = "",
    ) -> None:
        self.messages = messages
        self.config = config
        self.run_id = run_id
        self.scope = Scope()
        self._stop = stop
        self._kwargs = kwargs

    def params(self) -> dict[str, Any]:
        """Return what else the answer depends on, in plain JSON where it has such a form."""
        params = {name: _plain(value) for name, value in self._kwargs.items() if name != _TRACED_FORMAT}
        return {**params, "stop": self._stop} if self._stop else params

    def ask(self, tier: Tier, call_id: str, *, shown: bool) -> Ask[AIMessageChunk, Reply]:
        """Return the step that calls the tier; a call that is not shown is hidden from LangGraph's streams too."""
        model, kwargs = bound(tier.model, {**self._kwargs, "stop": self._stop})
        config = self._config(call_id, shown)

        def run() -> Reply:
            with within(self.scope):  # what the model asks on its own account, such as LangChain's cache, goes by it
                return to_reply(model.invoke(self.messages, config, **kwargs), call_id=call_id)

        async def arun() -> Reply:
            with within(self.scope):
                return to_reply(await model.ainvoke(self.messages, config, **kwargs), call_id=call_id)

        def stream() -> Generator[AIMessageChunk, None, None]:
            with closing(_closable(model.stream(self.messages, config, **kwargs))) as source:
                with within(self.scope):
                    first = next(source, None)
                if first is not None:
                    yield as_chunk(first)
                    yield from source

        async def astream() -> AsyncGenerator[AIMessageChunk, None]:
            async with aclosing(_aclosable(model.astream(self.messages, config, **kwargs))) as source:
                with within(self.scope):
                    first = await anext(source, None)
                if first is not None:
                    yield as_chunk(first)
                    async for chunk in source:
                        yield chunk

        def join(chunks: list[AIMessageChunk]) -> Reply:
            if not chunks:
                return replace(to_reply(AIMessage(""), call_id=call_id), finish=None)
            whole = message_chunk_to_message(add_ai_message_chunks(chunks[0], *chunks[1:]))
            return to_reply(whole, call_id=call_id)

        return Ask(run, arun, stream, astream, join) if shown else Ask(run, arun)

    def read(self, reply: Reply) -> AIMessage:
        """Return a stored answer as a new message."""
        return load_message(reply.body, reply)

    def fault(self, error: Exception) -> Fault:
        """Say what an error means for other models."""
        return fault_of(error)

    def estimate(self, tier: Tier, reply: Reply | None) -> Usage:
        """Count the prompt, and the answer as far as it came."""
        read = count_messages([to_message(message) for message in self.messages], tier.model_name).tokens
        written = count_text(reply.text, tier.model_name).tokens if reply is not None else 0
        return Usage(read, written, estimated=True)

    def _config(self, call_id: str, shown: bool) -> RunnableConfig:
        config = self.config
        metadata = {**(config.get("metadata") or {}), CALL_ID: call_id}
        tags = config.get("tags") or []
        inner = {name: value for name, value in config.items() if name != "run_name"}
        return {**inner, "metadata": metadata, "tags": tags if shown else [*tags, _HIDDEN]}  # type: ignore[typeddict-item]


class BareCaller(Caller):
    """Calls one tier's LangChain model inside a run that LangChain has opened for the router itself."""

    @override
    def ask(self, tier: Tier, call_id: str, *, shown: bool) -> Ask[AIMessageChunk, Reply]:
        model, kwargs = bound(tier.model, self._kwargs)

        def run() -> Reply:
            return to_reply(_only(model._generate(self.messages, stop=self._stop, **kwargs)), call_id=call_id)

        async def arun() -> Reply:
            result = await model._agenerate(self.messages, stop=self._stop, **kwargs)
            return to_reply(_only(result), call_id=call_id)

        return Ask(run, arun)


def bound(model: BaseChatModel, kwargs: Mapping[str, Any]) -> tuple[BaseChatModel, dict[str, Any]]:
    """Put bound tools into the form of the model that was chosen."""
    if "tools" not in kwargs:
        return model, dict(kwargs)
    given = {name: kwargs[name] for name in _BINDING if name in kwargs}
    if "tool_choice" in given:
        given["tool_choice"] = _common_choice(given["tool_choice"])
    binding: Any = model.bind_tools(kwargs["tools"], **given)
    rest = {name: value for name, value in kwargs.items() if name not in ("tools", *_BINDING)}
    return binding.bound, {**binding.kwargs, **rest}


def _common_choice(choice: Any) -> Any:
    """Return a tool choice in the words that every integration knows, one that has none as it is."""
    if choice is True or choice == "required":
        return "any"
    match choice:
        case {"type": "function", "function": {"name": str(name)}, **rest} if not rest:
            return name
        case {"type": "tool", "name": str(name), **rest} if not rest:
            return name
        case {"type": "any" | "auto" as kind, **rest} if not rest:
            return kind
    return choice


def _closable(source: Iterator[AIMessageChunk]) -> Generator[AIMessageChunk, None, None]:
    """Return a stream that ends its source when it is closed, whatever kind of iterator that is."""
    yield from source


async def _aclosable(source: AsyncIterator[AIMessageChunk]) -> AsyncGenerator[AIMessageChunk, None]:
    """Do as `_closable` with an async stream."""
    try:
        async for chunk in source:
            yield chunk
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


def _plain(value: Any) -> Any:
    return value.model_json_schema() if isinstance(value, type) and issubclass(value, BaseModel) else value


def as_chunk(message: AIMessage) -> AIMessageChunk:
    """Return a whole message as one chunk: models that cannot stream yield such in place of chunks."""
    if isinstance(message, AIMessageChunk):
        return message
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(message.tool_calls)
    ]
    return AIMessageChunk(
        content=message.content,
        name=message.name,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=calls,
        id=message.id,
        chunk_position="last",
    )


def _only(result: ChatResult) -> BaseMessage:
    generation = result.generations[0]
    message = generation.message
    message.response_metadata = {
        **(result.llm_output or {}),
        **(generation.generation_info or {}),
        **message.response_metadata,
    }
    return message
