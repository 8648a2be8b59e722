"""How a flow calls LlamaIndex's LLMs, and what it makes of them as tiers."""

import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools.types import BaseTool
from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags

from llmcost_plugins.flow import fault_of
from llmcost_plugins.llamaindex.convert import load, plain, selections_of_blocks, to_message, to_reply
from llmcost_plugins.llamaindex.usage import Native
from llmcost_plugins.plan import Ask
from llmcost_plugins.scope import within
from llmcost_plugins.tokens import count_messages, count_text
from llmcost_plugins.types import Fault, Message, Reply, Request, Tier, Usage

CALL_ID = "llmcost_call_id"  # instrument tag by which a flow door names the call that it reports itself
C = TypeVar("C")
_END: Any = object()


class Call(Protocol):
    """What is asked of an LLM, in each of the four ways to ask."""

    def plain(self) -> tuple[Message, ...]:
        """Return the messages in plain JSON."""
        ...

    def params(self) -> dict[str, Any]:
        """Return what else the answer depends on, in plain JSON where it has such a form."""
        ...

    def run(self, llm: Any) -> Native:
        """Ask and wait."""
        ...

    async def arun(self, llm: Any) -> Native:
        """Ask and wait without blocking."""
        ...

    def stream(self, llm: Any) -> Iterator[Any]:
        """Ask for chunks."""
        ...

    async def astream(self, llm: Any) -> AsyncIterator[Any]:
        """Ask for chunks without blocking."""
        ...


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat."""

    messages: list[ChatMessage]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> tuple[Message, ...]:
        """Return the messages in plain JSON."""
        return tuple(to_message(message) for message in self.messages)

    def params(self) -> dict[str, Any]:
        """Return what else the answer depends on."""
        return {"face": "chat", "settings": plain(self.settings)}

    def run(self, llm: LLM) -> ChatResponse:
        """Ask and wait."""
        return llm.chat([*self.messages], **self.settings)

    async def arun(self, llm: LLM) -> ChatResponse:
        """Ask and wait without blocking."""
        return await llm.achat([*self.messages], **self.settings)

    def stream(self, llm: LLM) -> Iterator[ChatResponse]:
        """Ask for chunks."""
        return llm.stream_chat([*self.messages], **self.settings)

    async def astream(self, llm: LLM) -> AsyncIterator[ChatResponse]:
        """Ask for chunks without blocking."""
        return await llm.astream_chat([*self.messages], **self.settings)


@dataclass(frozen=True, slots=True)
class ToolChat:
    """A chat with tools, which the LLM that is chosen puts into its own form."""

    messages: list[ChatMessage]
    tools: Sequence[BaseTool]
    settings: Mapping[str, Any]

    def plain(self) -> tuple[Message, ...]:
        """Return the messages in plain JSON."""
        return tuple(to_message(message) for message in self.messages)

    def params(self) -> dict[str, Any]:
        """Return the tools, and what else the answer depends on."""
        tools = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in self.tools]
        return {"face": "tools", "tools": plain(tools), "settings": plain(self.settings)}

    def run(self, llm: FunctionCallingLLM) -> ChatResponse:
        """Ask and wait."""
        return llm.chat_with_tools(self.tools, chat_history=[*self.messages], **self.settings)

    async def arun(self, llm: FunctionCallingLLM) -> ChatResponse:
        """Ask and wait without blocking."""
        return await llm.achat_with_tools(self.tools, chat_history=[*self.messages], **self.settings)

    def stream(self, llm: FunctionCallingLLM) -> Iterator[ChatResponse]:
        """Ask for chunks."""
        return llm.stream_chat_with_tools(self.tools, chat_history=[*self.messages], **self.settings)

    async def astream(self, llm: FunctionCallingLLM) -> AsyncIterator[ChatResponse]:
        """Ask for chunks without blocking."""
        return await llm.astream_chat_with_tools(self.tools, chat_history=[*self.messages], **self.settings)


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion of a prompt."""

    prompt: str
    formatted: bool
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> tuple[Message, ...]:
        """Return the prompt as the only message."""
        return ({"role": "user", "content": str(self.prompt)},)

    def params(self) -> dict[str, Any]:
        """Return what else the answer depends on."""
        return {"face": "completion", "formatted": self.formatted, "settings": plain(self.settings)}

    def run(self, llm: LLM) -> CompletionResponse:
        """Ask and wait."""
        return llm.complete(self.prompt, formatted=self.formatted, **self.settings)

    async def arun(self, llm: LLM) -> CompletionResponse:
        """Ask and wait without blocking."""
        return await llm.acomplete(self.prompt, formatted=self.formatted, **self.settings)

    def stream(self, llm: LLM) -> Iterator[CompletionResponse]:
        """Ask for chunks."""
        return llm.stream_complete(self.prompt, formatted=self.formatted, **self.settings)

    async def astream(self, llm: LLM) -> AsyncIterator[CompletionResponse]:
        """Ask for chunks without blocking."""
        return await llm.astream_complete(self.prompt, formatted=self.formatted, **self.settings)


class Caller:
    """Calls one tier's LLM, whose own decorated methods emit LlamaIndex's events."""

    def __init__(self, call: Call, request: Request) -> None:
        self._call = call
        self._request = request

    def ask(self, tier: Tier, call_id: str, *, shown: bool) -> Ask[Native, Reply]:
        """Return the step that calls the tier."""
        call, llm, inside = self._call, tier.model, partial(self._inside, call_id)

        def run() -> Reply:
            with inside():
                return reply_of(llm, [call.run(llm)])

        async def arun() -> Reply:
            with inside():
                return reply_of(llm, [await call.arun(llm)])

        def stream() -> Generator[Native, None, None]:
            with inside():
                source = call.stream(llm)
            yield from _stepped(source, inside)

        async def astream() -> AsyncGenerator[Native, None]:
            with inside():
                source = await call.astream(llm)
            async for chunk in _astepped(source, inside):
                yield chunk

        return Ask(run, arun, stream, astream, partial(reply_of, llm)) if shown else Ask(run, arun)

    def read(self, reply: Reply) -> Native:
        """Return a stored answer as a new response."""
        return load(reply)

    def fault(self, error: Exception) -> Fault:
        """Say what an error means for other models."""
        return fault_of(error)

    def estimate(self, tier: Tier, reply: Reply | None) -> Usage:
        """Count the prompt with its tools, and the answer as far as it came."""
        tools = self._request.params.get("tools")
        read = count_messages(self._request.messages, tier.model_name).tokens
        read += count_text(json.dumps(tools), tier.model_name).tokens if tools else 0
        written = count_text(_written(reply), tier.model_name).tokens if reply is not None else 0
        return Usage(read, written, estimated=True)

    @contextmanager
    def _inside(self, call_id: str) -> Iterator[None]:
        """Put the request's scope in force, and name the call in the events that LlamaIndex sends."""
        with within(self._request.scope), instrument_tags({**active_instrument_tags.get(), CALL_ID: call_id}):
            yield


def reply_of(llm: LLM, responses: Sequence[Native]) -> Reply:
    """Return a response, or the chunks of one, as a `Reply`."""
    return to_reply(responses, partial(selections, llm)) if responses else Reply({}, finish=None)


def selections(llm: Any, response: ChatResponse) -> list[ToolSelection]:
    """Return the tool calls of a response as its LLM reads them, or in the common form."""
    if not isinstance(llm, FunctionCallingLLM):
        return selections_of_blocks(response)
    try:
        return llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    except Exception:  # noqa: BLE001 - what its own integration cannot read is not kept, but is the caller's to see
        return []


def _written(reply: Reply) -> str:
    calls = reply.body.get("tools") if isinstance(reply.body, dict) else None
    return reply.text + "".join(f"{call['tool_name']}{json.dumps(call['tool_kwargs'])}" for call in calls or ())


def _stepped(source: Iterator[C], inside: Callable[[], AbstractContextManager[None]]) -> Generator[C, None, None]:
    """Yield what a stream yields; only its own steps are taken inside, not what its reader does between them."""
    with ExitStack() as stack:
        stack.callback(getattr(source, "close", lambda: None))
        while True:
            with inside():
                chunk = next(source, _END)
            if chunk is _END:
                return
            yield chunk


async def _astepped(
    source: AsyncIterator[C], inside: Callable[[], AbstractContextManager[None]]
) -> AsyncGenerator[C, None]:
    """Do as `_stepped` with an async stream."""
    try:
        while True:
            with inside():
                chunk = await anext(source, _END)
            if chunk is _END:
                return
            yield chunk
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()
