"""The routing LLM: cache, tiers and ledger around any LlamaIndex LLMs."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, ClassVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index_instrumentation.dispatcher import active_instrument_tags
from typing_extensions import override

from llmcost_plugins.cache import Cache
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.flow import (
    Account,
    account_of,
    cache_of,
    models_of,
    overrides_in,
    refuse_unknown,
    router_of,
    serve,
)
from llmcost_plugins.ledger import Ledger
from llmcost_plugins.llamaindex.caller import Call, Caller, Chat, Completion, ToolChat, selections
from llmcost_plugins.llamaindex.convert import legible, replayed, selections_of_blocks, selections_of_hit
from llmcost_plugins.llamaindex.identity import Identity, calls_functions, merged, shared_settings
from llmcost_plugins.llamaindex.tiers import prepared
from llmcost_plugins.plan import Plan, adrive, adrive_stream, drive, drive_stream
from llmcost_plugins.pricing import PriceBook
from llmcost_plugins.routing import Router
from llmcost_plugins.scope import current_scope
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Message, Reply, Request, Tier

_NAME = "CostAwareLLM"
_QUESTION_VARIABLE = "query_str"  # what LlamaIndex's templates call the user's question
_QUESTION = "llmcost_question"
_TOOLS = "llmcost_tools"
_OBJECT = "llmcost_object"  # set where an object is to be read out of a stream
_OWN = frozenset({_QUESTION, _TOOLS, _OBJECT})
_OF_TIERS = frozenset({"rate_limiter"})  # a field of every LLM that only the ones that call act on


class CostAwareLLM(FunctionCallingLLM):
    """An LLM that answers from the cache where that is safe, and from the cheapest of its tiers where that does.

    ```python
    Settings.llm = CostAwareLLM(tiers=[OpenAI(model="gpt-5.4-mini"), OpenAI(model="gpt-5.4")], cache=True)
    ```

    It is a drop-in for any LLM: in indexes, query and chat engines, structured prediction and agents. LlamaIndex's
    events come from the tier that serves, so an answer from the cache sends none. Such an answer says so in
    `raw["llmcost"]` and `additional_kwargs["llmcost"]`; one that was not streamed says how it was routed in
    `additional_kwargs["routing"]`. Instrument tags may carry `tenant`, `user`, `feature` and `user_tier` in place of
    `scope(...)`, and what one request asks of the router: `threshold`, `tier`, `force_model` and `budget`.

    Args:
        llm: The one LLM to call; or
        tiers: the LLMs to choose from, the cheapest first. LLMs or `Tier`s.
        cache: A `Cache`, or True for one with default settings.
        router: A `Router`, for settings of its own; its tiers are used unless others are given.
        ledger: Where to record; the process's ledger otherwise.
        prices: What to price with.
        options: The fields that every LLM has, such as `system_prompt`; the tiers' own where left out.
    """

    is_cost_aware: ClassVar[bool] = True

    _router: Router = PrivateAttr()
    _cost_cache: Cache | None = PrivateAttr(default=None)
    _account: Account = PrivateAttr()
    _identity: Identity = PrivateAttr()

    def __init__(
        self,
        llm: LLM | None = None,
        *,
        tiers: Sequence[LLM | Tier] | None = None,
        cache: Cache | bool | None = None,
        router: Router | None = None,
        ledger: Ledger | None = None,
        prices: PriceBook | None = None,
        **options: Any,
    ) -> None:
        refuse_unknown(_NAME, options, type(self).model_fields.keys() - _OF_TIERS)
        chosen = router_of(router, prepared(models_of("llm", llm, tiers, router)))
        super().__init__(**shared_settings(chosen.tiers, tuple(options)), **options)
        self._router = chosen
        self._identity = Identity(chosen)
        self._cost_cache = cache_of(cache)
        self._account = account_of(ledger, prices)
        if "callback_manager" in options:
            self._hand_on(self.callback_manager)

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; a callback manager is handed on to the tiers, whose calls it is to hear of."""
        hand_on = name == "callback_manager" and value is not self.callback_manager
        super().__setattr__(name, value)
        if hand_on:
            self._hand_on(value)

    @override
    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle; LlamaIndex leaves out of it what cannot be pickled, such as a cache in memory."""
        super().__setstate__(state)
        private = state.get("__pydantic_private__") or {}
        if "_router" not in private:
            raise ConfigurationError("this `CostAwareLLM` has tiers or a rule that no pickle can hold; make one anew")
        self._router = private["_router"]
        self._identity = Identity(self._router)
        self._cost_cache = private.get("_cost_cache")
        self._account = private.get("_account") or Account()

    @classmethod
    @override
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows the component under."""
        return _NAME

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The LLMs to choose from, the cheapest first."""
        return self._router.tiers

    @property
    def router(self) -> Router:
        """What chooses among the tiers; `router.feedback` and `router.report` are for live traffic."""
        return self._router

    @property
    @override
    def metadata(self) -> LLMMetadata:
        """What holds for every tier."""
        return merged(self.tiers)

    @override
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation."""
        response: ChatResponse = _told(drive(self._chat(messages, kwargs)))
        return response

    @override
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation without blocking the event loop."""
        response: ChatResponse = _told(await adrive(self._chat(messages, kwargs)))
        return response

    @override
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a conversation chunk by chunk."""
        chunks = _stream(self._chat(messages, kwargs))
        return _legible(chunks) if _OBJECT in kwargs else chunks

    @override
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer a conversation chunk by chunk without blocking the event loop."""
        chunks = _astream(self._chat(messages, kwargs))
        return _alegible(chunks) if _OBJECT in kwargs else chunks

    @override
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt."""
        response: CompletionResponse = _told(drive(self._complete(prompt, formatted, kwargs)))
        return response

    @override
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Complete a prompt without blocking the event loop."""
        response: CompletionResponse = _told(await adrive(self._complete(prompt, formatted, kwargs)))
        return response

    @override
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Complete a prompt chunk by chunk."""
        return _stream(self._complete(prompt, formatted, kwargs))

    @override
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Complete a prompt chunk by chunk without blocking the event loop."""
        return _astream(self._complete(prompt, formatted, kwargs))

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the tool calls of an answer, of the cache's or of any tier's."""
        calls = selections_of_hit(response)
        if calls is None and len(self.tiers) == 1 and calls_functions(self.tiers[0]):
            only: FunctionCallingLLM = self.tiers[0].models[0]
            return only.get_tool_calls_from_response(response, error_on_no_tool_call, **kwargs)
        if calls is None:
            calls = selections_of_blocks(response) or self._selections(response)
        if not calls and error_on_no_tool_call:
            raise ValueError("Expected at least one tool call, but got 0 tool calls.")
        return calls

    @override
    def structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Answer a prompt with an object of a class."""
        return super().structured_predict(output_cls, prompt, _asking(llm_kwargs, prompt, prompt_args), **prompt_args)

    @override
    async def astructured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Do as `structured_predict` without blocking the event loop."""
        asking = _asking(llm_kwargs, prompt, prompt_args)
        return await super().astructured_predict(output_cls, prompt, asking, **prompt_args)

    @override
    def _structured_stream_call(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        asking = {**_asking(llm_kwargs, prompt, prompt_args), _OBJECT: True}
        return super()._structured_stream_call(output_cls, prompt, asking, **prompt_args)

    @override
    async def _structured_astream_call(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        asking = {**_asking(llm_kwargs, prompt, prompt_args), _OBJECT: True}
        return await super()._structured_astream_call(output_cls, prompt, asking, **prompt_args)

    @override
    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        return _Messages(super()._get_messages(prompt, **prompt_args), question=_question(prompt, prompt_args))

    @override
    def _get_prompt(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        return _Prompt(super()._get_prompt(prompt, **prompt_args), question=_question(prompt, prompt_args))

    @override
    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments for `chat`; the tools are put into the form of whichever tier is chosen."""
        unable = [tier.name for tier in self.tiers if not calls_functions(tier)]
        if unable:
            raise ConfigurationError(f"{', '.join(unable)}: no function calling LLM; tools need one in every tier")
        own = [ChatMessage(user_msg) if isinstance(user_msg, str) else user_msg] if user_msg else []
        settings = {"verbose": verbose, "allow_parallel_tool_calls": allow_parallel_tool_calls}
        settings |= {"tool_required": tool_required}
        return {"messages": [*(chat_history or ()), *own], _TOOLS: (tuple(tools), settings), **kwargs}

    def _chat(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> Plan[Reply]:
        question = kwargs.get(_QUESTION) or getattr(messages, "question", None)
        rest = {name: value for name, value in kwargs.items() if name not in _OWN}
        if _TOOLS not in kwargs:
            return self._plan(Chat([*messages], rest), question)
        tools, settings = kwargs[_TOOLS]
        forced = {"tool_required": True} if _OBJECT in kwargs else {}  # LlamaIndex does so where it does not stream
        return self._plan(ToolChat([*messages], tools, {**settings, **rest, **forced}), question)

    def _complete(self, prompt: str, formatted: bool, kwargs: Mapping[str, Any]) -> Plan[Reply]:
        question = kwargs.get(_QUESTION) or getattr(prompt, "question", None)
        rest = {name: value for name, value in kwargs.items() if name not in _OWN}
        return self._plan(Completion(str(prompt), formatted, rest), question)

    def _plan(self, call: Call, question: str | None) -> Plan[Reply]:
        """Return the plan of a request; whose it is, is settled now, not when a stream is first read."""
        messages, tags = call.plain(), active_instrument_tags.get()
        scope, overrides = current_scope(tags), overrides_in(tags)
        request = Request(
            messages=messages,
            model=self._identity(),
            params=call.params(),
            dialect="llamaindex",
            scope=scope,
            question=question if question and _stands_in(question, messages) else None,
            overrides=overrides,
        )
        request = replace(request, model=f"{request.model}{self._router.variant(request)}")
        caller = Caller(call, request)
        return serve(request, cache=self._cost_cache, router=self._router, caller=caller, account=self._account)

    def _selections(self, response: ChatResponse) -> list[ToolSelection]:
        """Return the tool calls that any of the tiers reads out of an answer in a form of its own."""
        found = (selections(model, response) for tier in self.tiers for model in tier.models)
        return next((calls for calls in found if calls), [])

    def _hand_on(self, callback_manager: Any) -> None:
        for tier in self.tiers:
            for model in tier.models:
                model.callback_manager = callback_manager


class _Messages(list[ChatMessage]):
    """The messages that a template makes, and the question in them."""

    def __init__(self, messages: Sequence[ChatMessage], *, question: str | None) -> None:
        super().__init__(messages)
        self.question = question


class _Prompt(str):
    """The prompt that a template makes, and the question in it."""

    __slots__ = ("question",)
    question: str | None

    def __new__(cls, prompt: str, *, question: str | None) -> "_Prompt":
        made = super().__new__(cls, prompt)
        made.question = question
        return made


def _question(prompt: BasePromptTemplate, given: Mapping[str, Any]) -> str | None:
    value = {**prompt.kwargs, **given}.get(_QUESTION_VARIABLE)
    return value if isinstance(value, str) and value.strip() else None


def _asking(llm_kwargs: dict[str, Any] | None, prompt: BasePromptTemplate, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an LLM with the question of a template among them."""
    question = _question(prompt, given)
    return {**(llm_kwargs or {}), **({_QUESTION: question} if question else {})}


def _stands_in(question: str, messages: Sequence[Message]) -> bool:
    return any(question in message_text(message) for message in messages if message["role"] == "user")


def _told(reply: Reply) -> Any:
    """Return the answer, with how the router came to it."""
    if reply.routing is None:
        return reply.native
    extras = {**reply.native.additional_kwargs, "routing": reply.routing}
    return reply.native.model_copy(update={"additional_kwargs": extras})


def _stream(plan: Plan[Reply]) -> Generator[Any, None, None]:
    return drive_stream(plan, replayed)


def _astream(plan: Plan[Reply]) -> AsyncGenerator[Any, None]:
    return adrive_stream(plan, replayed)


def _legible(chunks: Generator[Any, None, None]) -> Generator[Any, None, None]:
    with closing(chunks):
        for chunk in chunks:
            yield legible(chunk)


async def _alegible(chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield legible(chunk)
