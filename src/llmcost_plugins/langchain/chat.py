"""The routing chat model: cache, tiers and ledger around any LangChain chat models."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr
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
from llmcost_plugins.langchain.callbacks import CostCallbackHandler
from llmcost_plugins.langchain.caller import BareCaller, Caller, as_chunk, bound
from llmcost_plugins.langchain.convert import BILLED, DOOR, question_in, tags_in, to_message, to_reply, whole_answer
from llmcost_plugins.langchain.tiers import prepared, profile_of
from llmcost_plugins.ledger import Ledger
from llmcost_plugins.plan import Plan, adrive, adrive_stream, drive, drive_stream
from llmcost_plugins.pricing import PriceBook
from llmcost_plugins.routing import Decision, Router
from llmcost_plugins.scope import current_scope, overlaid
from llmcost_plugins.tokens import count_messages, count_text
from llmcost_plugins.types import Reply, Request, Scope, Tier

# what code that builds any chat model may pass; the tiers have their own
_OF_CHAT_MODELS = frozenset({"temperature", "max_tokens", "timeout", "stop", "max_retries", "api_key", "streaming"})
_NAME = "CostAwareChatModel"
ROUTING = "routing"  # where `response_metadata` says how an answer came about


class CostAwareChatModel(BaseChatModel):
    """A chat model that answers from the cache where that is safe, and from the cheapest of its tiers where that does.

    ```python
    model = CostAwareChatModel(tiers=[ChatOpenAI(model="gpt-5.4-mini"), ChatOpenAI(model="gpt-5.4")], cache=True)
    ```

    It is a drop-in for any chat model, in agents as well. Its runs are chain runs around the runs of the model that
    serves, so tokens are counted once and streamed once. `response_metadata["model_name"]` is the model that served,
    `response_metadata["routing"]` says why and at what cost. `config["metadata"]` may carry `tenant`, `user`, `feature`
    and `user_tier` in place of `scope(...)`. `config["configurable"]` may say for one request: `threshold`; `tier`, to
    ask first; `force_model`, to ask alone; `budget`, the most that a call may cost in US dollars with an answer of the
    router's `output_reserve`, or of the request's own limit; `user_tier`.

    Args:
        model: The one model to call; or
        tiers: the models to choose from, the cheapest first. Chat models or `Tier`s.
        cache: A `Cache`, or True for one with default settings; False for none. Left out, LangChain's own cache
            setting applies to the models.
        router: A `Router`, for settings of its own; its tiers are used unless others are given.
        ledger: Where to record; the process's ledger otherwise.
        prices: What to price with.
    """

    is_cost_aware: ClassVar[bool] = True

    _router: Router = PrivateAttr()
    _cost_cache: Cache | None = PrivateAttr(default=None)
    _account: Account = PrivateAttr()
    _ledger: Ledger | None = PrivateAttr(default=None)

    def __init__(
        self,
        model: BaseChatModel | None = None,
        *,
        tiers: Sequence[BaseChatModel | Tier] | None = None,
        cache: Cache | bool | None = None,
        router: Router | None = None,
        ledger: Ledger | None = None,
        prices: PriceBook | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_unknown(_NAME, kwargs, {*type(self).model_fields, *_OF_CHAT_MODELS})
        models = models_of("model", model, tiers, router)
        super().__init__(cache=False, **kwargs)
        ready = prepared(models, cached=cache is not None, output_version=kwargs.get("output_version"))
        self._router = router_of(router, ready)
        self._cost_cache = cache_of(cache)
        self._ledger = ledger
        self._account = account_of(ledger, prices)
        if self.profile is None:
            self.profile = profile_of(self.tiers)

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The models to choose from, the cheapest first."""
        return self._router.tiers

    @property
    def router(self) -> Router:
        """What chooses among the tiers; `router.feedback` and `router.report` are for live traffic."""
        return self._router

    @property
    def cost_cache(self) -> Cache | None:
        """The cache that answers before the tiers do; `cache` is LangChain's own setting."""
        return self._cost_cache

    @property
    @override
    def _llm_type(self) -> str:
        return "llmcost-cost-aware"

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        models = [[model._get_llm_string() for model in tier.models] for tier in self.tiers]
        return {"tiers": models, "router": self._router.describe()}

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = DOOR
        params.setdefault("ls_model_name", " -> ".join(tier.name for tier in self.tiers))
        return params

    @override
    def get_num_tokens(self, text: str) -> int:
        """Count with the strongest tier's tokenizer where it is at hand, else estimate."""
        return count_text(text, self._router.strongest.model_name).tokens

    @override
    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Count with the strongest tier's tokenizer where it is at hand, else estimate."""
        return count_messages([to_message(m) for m in messages], self._router.strongest.model_name).tokens

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools, to be put into the form of whichever tier is chosen."""
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        with self._run(input, config, stop, kwargs) as run:
            message = _message(drive(self._plan(run)))
            run.shown.append(message)
            return message

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        async with self._arun(input, config, stop, kwargs) as run:
            message = _message(await adrive(self._plan(run)))
            run.shown.append(message)
            return message

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        return self._streamed(input, ensure_config(config), stop, kwargs, current_scope())

    @override
    def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        return self._astreamed(input, ensure_config(config), stop, kwargs, current_scope())

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(drive(self._plan(_Run(_bare(messages, stop, run_manager, kwargs)))))

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(await adrive(self._plan(_Run(_bare(messages, stop, run_manager, kwargs)))))

    @override
    def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Stream events; those of version 3 come from the chosen tier itself: no cache, no second tier, no retry."""
        if kwargs.get("version") != "v3":
            return super().stream_events(input, config, **kwargs)
        decision = drive(self._decision(input, config, kwargs))
        model, config, kwargs = self._forwarded(decision, config, kwargs)
        return model.stream_events(input, config, **kwargs)

    @override
    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Do as `stream_events` without blocking the event loop."""
        if kwargs.get("version") != "v3":
            return super().astream_events(input, config, **kwargs)
        return self._aforward(input, config, kwargs)

    async def _aforward(self, given: Any, config: RunnableConfig | None, kwargs: dict[str, Any]) -> Any:
        decision = await adrive(self._decision(given, config, kwargs))
        model, config, kwargs = self._forwarded(decision, config, kwargs)
        return await model.astream_events(given, config, **kwargs)

    def _decision(self, given: Any, config: RunnableConfig | None, kwargs: dict[str, Any]) -> Plan[Decision]:
        caller = Caller(self._convert_input(given).to_messages(), ensure_config(config), None, kwargs)
        return self._router.decide(self._request(caller, current_scope()), self._account.prices)

    def _forwarded(
        self, decision: Decision, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> tuple[BaseChatModel, RunnableConfig, dict[str, Any]]:
        place = self._router.health.places(decision.tiers[decision.first])[0]
        model, kwargs = bound(place.tier.model, kwargs)
        handler = CostCallbackHandler(ledger=self._ledger, prices=self._account.prices)
        return model, merge_configs(config, {"callbacks": [handler]}), kwargs

    def _streamed(
        self, given: LanguageModelInput, config: RunnableConfig, stop: list[str] | None, kwargs: Any, scope: Scope
    ) -> Generator[AIMessageChunk, None, None]:
        """Stream; `scope` is the one in force when the stream was asked for, not when it is first read."""
        with (
            self._run(given, config, stop, kwargs) as run,
            closing(drive_stream(self._plan(run, scope), _chunks)) as chunks,
        ):
            for chunk in chunks:
                run.shown.append(chunk)
                yield chunk
            yield from run.last_words()

    async def _astreamed(
        self, given: LanguageModelInput, config: RunnableConfig, stop: list[str] | None, kwargs: Any, scope: Scope
    ) -> AsyncGenerator[AIMessageChunk, None]:
        async with (
            self._arun(given, config, stop, kwargs) as run,
            aclosing(adrive_stream(self._plan(run, scope), _chunks)) as chunks,
        ):
            async for chunk in chunks:
                run.shown.append(chunk)
                yield chunk
            for chunk in run.last_words():
                yield chunk

    def warm(self, answers: Iterable[tuple[LanguageModelInput, str | AIMessage]]) -> int:
        """Keep answers that are known beforehand, as of an FAQ; tell how many were offered to the cache."""
        if self._cost_cache is None:
            raise ConfigurationError("there is no cache to warm; pass `cache=True` or a `Cache`")
        offered = 0
        for given, answer in answers:
            caller = Caller(self._convert_input(given).to_messages(), ensure_config(), None, {})
            message = whole_answer(answer)
            reply = to_reply(message, call_id="")
            drive(self._cost_cache.store(self._request(caller, current_scope()), reply, self._account.sink))
            offered += 1
        return offered

    def _plan(self, run: "_Run", scope: Scope | None = None) -> Plan[Reply]:
        """Return the plan of a request; whose it is, is settled now, not when a stream is first read."""
        request = self._request(run.caller, scope or current_scope())
        return self._served(request, run)

    def _served(self, request: Request, run: "_Run") -> Plan[Reply]:
        router, account = self._router, self._account
        reply = yield from serve(request, cache=self._cost_cache, router=router, caller=run.caller, account=account)
        run.reply = reply
        return reply

    def _request(self, caller: Caller, scope: Scope) -> Request:
        metadata = {**(self.metadata or {}), **(caller.config.get("metadata") or {})}
        wishes = caller.config.get("configurable") or {}
        overrides = overrides_in(wishes)
        caller.scope = overlaid(overlaid(scope, metadata), {"user_tier": wishes.get("user_tier")})
        request = Request(
            messages=tuple(to_message(message) for message in caller.messages),
            model=self._identity,
            params=caller.params(),
            dialect="langchain",
            scope=caller.scope,
            question=question_in(metadata),
            tags=tags_in(metadata),
            thread=str(wishes.get("thread_id") or metadata.get("thread_id") or ""),
            run_id=caller.run_id,
            overrides=overrides,
        )
        return replace(request, model=f"{self._identity}{self._router.variant(request)}")

    @cached_property
    def _identity(self) -> str:
        return json.dumps(self._identifying_params, default=str)

    @contextmanager
    def _run(
        self, given: LanguageModelInput, config: RunnableConfig | None, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Iterator["_Run"]:
        config = ensure_config(config)
        messages = self._convert_input(given).to_messages()
        manager = CallbackManager.configure(*self._callback_settings(config))
        chain = manager.on_chain_start({}, {"messages": messages}, **_naming(config))
        run = _Run(Caller(messages, {**config, "callbacks": chain.get_child()}, stop, kwargs, str(chain.run_id)))
        try:
            yield run
        except BaseException as error:
            chain.on_chain_error(error)
            raise
        chain.on_chain_end(run.output())

    @asynccontextmanager
    async def _arun(
        self, given: LanguageModelInput, config: RunnableConfig | None, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncIterator["_Run"]:
        config = ensure_config(config)
        messages = self._convert_input(given).to_messages()
        manager = AsyncCallbackManager.configure(*self._callback_settings(config))
        chain = await manager.on_chain_start({}, {"messages": messages}, **_naming(config))
        run = _Run(Caller(messages, {**config, "callbacks": chain.get_child()}, stop, kwargs, str(chain.run_id)))
        try:
            yield run
        except BaseException as error:
            await chain.on_chain_error(error)
            raise
        await chain.on_chain_end(run.output())

    def _callback_settings(self, config: RunnableConfig) -> tuple[Any, ...]:
        given = config.get("callbacks"), self.callbacks, self.verbose, config.get("tags"), self.tags
        return *given, config.get("metadata"), self.metadata


@dataclass(slots=True)
class _Run:
    """One chain run: how its tiers are called, and what its reader was shown."""

    caller: Caller
    shown: list[AIMessage] = field(default_factory=list)
    reply: Reply | None = None

    def last_words(self) -> Iterator[AIMessageChunk]:
        """Say after a stream how it came about; an answer that was whole says so itself."""
        first, reply = self.shown[0] if self.shown else None, self.reply
        if first is None or reply is None or reply.routing is None or ROUTING in first.response_metadata:
            return
        said = AIMessageChunk(
            content="", id=first.id, response_metadata={ROUTING: reply.routing}, chunk_position="last"
        )
        self.shown.append(said)
        yield said

    def output(self) -> AIMessage | None:
        chunks = [message for message in self.shown if isinstance(message, AIMessageChunk)]
        if chunks:
            return add_ai_message_chunks(chunks[0], *chunks[1:])
        return self.shown[0] if self.shown else None


def _config_of(run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> RunnableConfig:
    config = ensure_config()
    own = run.metadata if run is not None else {}
    return {**config, "metadata": {**(config.get("metadata") or {}), **own}}


def _bare(messages: list[BaseMessage], stop: list[str] | None, run_manager: Any, kwargs: dict[str, Any]) -> BareCaller:
    run_id = "" if run_manager is None else str(run_manager.run_id)
    return BareCaller(messages, _config_of(run_manager), stop, kwargs, run_id)


def _naming(config: RunnableConfig) -> dict[str, Any]:
    return {"name": config.get("run_name") or _NAME, "run_id": config.pop("run_id", None)}


def _message(reply: Reply) -> AIMessage:
    """Return the answer as a message, with how the router came to it."""
    message: AIMessage = reply.native
    if reply.routing is None:
        return message
    return message.model_copy(update={"response_metadata": {**message.response_metadata, ROUTING: reply.routing}})


def _chunks(reply: Reply) -> Iterator[AIMessageChunk]:
    """Replay a whole answer as a stream of one chunk."""
    yield as_chunk(_message(reply))


def _result(reply: Reply) -> ChatResult:
    """Return the answer for LangChain's own bookkeeping, naming the recorded call so that no handler bills another."""
    message = _message(reply)
    if reply.hit is None:
        message = message.model_copy(update={"response_metadata": {**message.response_metadata, BILLED: reply.call_id}})
    return ChatResult(generations=[ChatGeneration(message=message)])
