"""The cost callback handler, and `track` for LangChain."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import register_configure_hook

from llmcost_plugins.context import restore
from llmcost_plugins.events import CacheHit, Status, emit
from llmcost_plugins.langchain.convert import BILLED, DOOR, finish_of, hit_of, price_context, to_message, usage_of
from llmcost_plugins.ledger import Ledger, track, watch_with
from llmcost_plugins.ledger.billing import bill
from llmcost_plugins.pricing import STANDARD, Context, PriceBook, default_prices
from llmcost_plugins.scope import current_scope
from llmcost_plugins.tokens import count_messages, count_text
from llmcost_plugins.types import Hit, Scope, Usage

CALL_ID = "llmcost_call_id"  # metadata key by which a flow door names the call that it reports itself
_RETRY_TAG = "retry:attempt:"
_FALLBACKS = "RunnableWithFallbacks"
_NO_METADATA: Mapping[str, Any] = {}


class _Open(NamedTuple):
    """A run that has started and not ended; `among` is the chain of fallbacks that it is one of."""

    call_id: str
    time: float
    started: float
    parent: UUID | None
    among: UUID | None
    provider: str
    model: str
    scope: Scope
    tags: tuple[str, ...]
    attempt: int
    fallback: bool
    prompt: Sequence[Any]


class CostCallbackHandler(BaseCallbackHandler):
    """Records what every LangChain model call costs, and what caches saved.

    Pass it in `callbacks=[...]`, or use `track()`, which needs no passing. Thread- and async-safe; runs inline, so that
    async calls make no detour through a thread. A model that calls another model inside its own run is a wrapper: only
    the inner call is billed.

    Args:
        ledger: Where to record; the process's ledger and the enclosing `track` blocks' otherwise.
        prices: What to price with.
        open_ttl: Seconds after which a run that never ended (a cancelled task) is swept and recorded as `abandoned`.
        max_open: How many open runs are kept before the oldest are swept early.
        clock: Seconds since the epoch.
    """

    run_inline = True

    def __init__(
        self,
        *,
        ledger: Ledger | None = None,
        prices: PriceBook | None = None,
        open_ttl: float = 600.0,
        max_open: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sink = ledger.record if ledger is not None else None
        self._prices = prices or (ledger.prices if ledger is not None else default_prices())
        self._open_ttl = open_ttl
        self._max_open = max_open
        self._clock = clock
        self._open: dict[UUID, _Open] = {}
        self._swept: dict[UUID, _Open] = {}
        self._sweep_due = time.perf_counter() + open_ttl
        self._inside: dict[UUID, UUID] = {}
        self._wrappers: set[UUID] = set()
        self._failures: dict[UUID, int] = {}

    @property
    def open_runs(self) -> int:
        """How many runs have started and not ended."""
        return len(self._open)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the start of a chat model's run."""
        meta = metadata or _NO_METADATA
        among, failed = self._fallbacks(parent_run_id) if self._failures else (None, 0)
        started = time.perf_counter()
        self._open[run_id] = _Open(
            meta.get(CALL_ID) or run_id.hex,
            self._clock(),
            started,
            parent_run_id,
            among,
            meta.get("ls_provider") or "",
            meta.get("ls_model_name") or "",
            current_scope(meta),
            tuple(tags) if tags else (),
            (_attempt(tags) if tags else None) or 1 + failed,
            failed > 0,
            messages[0] if messages else (),
        )
        if parent_run_id is not None:
            self._mark_wrappers(parent_run_id)
        if len(self._open) > self._max_open:
            self._sweep(_oldest(self._open, self._max_open))
        elif started > self._sweep_due:
            self.sweep()

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the start of a completion model's run."""
        prompt: Any = [prompts]
        self.on_chat_model_start(
            serialized, prompt, run_id=run_id, parent_run_id=parent_run_id, tags=tags, metadata=metadata
        )

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Bill the run, or record the cache hit that it was."""
        run = self._finish(run_id)
        if run is None:
            return
        try:
            generation = response.generations[0][0]
        except IndexError:
            self._bill(run, _estimated(run, ""))
            return
        if isinstance(generation, ChatGeneration):
            self._end_chat(run, generation, response.llm_output)
        else:
            self._end_completion(run, response)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Record the failure; what a broken-off stream had shown by then was paid for, and is estimated."""
        run = self._finish(run_id)
        if run is None or run.provider == DOOR:  # a flow door has recorded the calls that failed inside this run
            return
        if run.among in self._failures:
            self._failures[run.among] += 1
        partial = _partial_text(kwargs.get("response"))
        left = not isinstance(error, Exception)
        status: Status = "cut" if left or partial else "error"
        usage = _estimated(run, partial) if status == "cut" else Usage()
        self._bill(run, usage, status, f"{type(error).__name__}: {error}")

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember chains inside a model's run, whose models are inside it too, and chains that fall back."""
        if parent_run_id is not None and (parent_run_id in self._open or parent_run_id in self._inside):
            self._inside[run_id] = parent_run_id
        if kwargs.get("name") == _FALLBACKS:
            self._failures[run_id] = 0

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget what was remembered of the chain."""
        self._forget_chain(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget what was remembered of the chain."""
        self._forget_chain(run_id)

    def sweep(self, *, older_than: float | None = None) -> int:
        """Close runs that never ended, as calls of cancelled tasks do; their prompts are billed as an estimate.

        Runs that started over `older_than` seconds ago (`open_ttl` by default) are swept. Returns how many were.
        """
        now = time.perf_counter()
        self._sweep_due = now + self._open_ttl
        limit = now - (self._open_ttl if older_than is None else older_than)
        return self._sweep([run_id for run_id, run in list(self._open.items()) if run.started <= limit])

    def _sweep(self, late: Sequence[UUID]) -> int:
        for run_id in late:
            run = self._finish(run_id)
            if run is not None:
                self._swept[run_id] = run
                self._bill(run, _estimated(run, ""), "abandoned")
        for known in (self._swept, self._failures, self._inside):
            for run_id in _oldest(known, self._max_open):
                known.pop(run_id, None)
        return len(late)

    def _fallbacks(self, parent: UUID | None) -> tuple[UUID | None, int]:
        """Return the chain of fallbacks that a run is one of, and how many of them failed before it."""
        among = _enclosing_run(parent)
        return among, self._failures.get(among, 0) if among is not None else 0

    def _mark_wrappers(self, parent: UUID) -> None:
        above: UUID | None = parent
        while above is not None:
            if above in self._open:
                self._wrappers.add(above)
                above = self._open[above].parent
            else:
                above = self._inside.get(above)

    def _finish(self, run_id: UUID) -> _Open | None:
        run = self._open.pop(run_id, None) or self._swept.pop(run_id, None)
        if self._wrappers and run_id in self._wrappers:
            self._wrappers.discard(run_id)
            return None
        return run

    def _forget_chain(self, run_id: UUID) -> None:
        self._inside.pop(run_id, None)
        self._failures.pop(run_id, None)

    def _end_chat(self, run: _Open, generation: ChatGeneration, output: dict[str, Any] | None) -> None:
        message = generation.message
        meta = message.response_metadata
        usage = usage_of(getattr(message, "usage_metadata", None))
        if run.provider == DOOR:  # a flow door has recorded the call made inside this run, if any was, under its id
            run = run._replace(
                call_id=meta.get(BILLED) or run.call_id, provider=meta.get("model_provider") or run.provider
            )
        hit = hit_of(message, call_id=run.call_id)
        if hit is not None:
            self._record_hit(run, meta, usage or Usage(), hit)
            return
        if usage is None:
            usage = _estimated(run, str(message.text), message)
        broken = output is None and finish_of(message, generation.generation_info) is None
        named = meta.get("model_name") or (output and output.get("model_name")) or run.model
        self._bill(run, usage, "cut" if broken else "ok", "", named, price_context(meta))

    def _record_hit(self, run: _Open, meta: Mapping[str, Any], usage: Usage, hit: Hit) -> None:
        event = CacheHit(
            call_id=hit.id,
            time=run.time,
            hit=hit,
            provider=run.provider,
            model=meta.get("model_name") or run.model,
            usage=usage,
            scope=run.scope,
        )
        emit(event, self._sink)

    def _end_completion(self, run: _Open, response: LLMResult) -> None:
        output = response.llm_output or {}
        counts = output.get("token_usage")
        if counts is None:
            usage = _estimated(run, "".join(generation.text for generation in response.generations[0]))
        else:  # of several prompts in one call LangChain reports the usage with the first, and {} with the others
            usage = Usage(counts.get("prompt_tokens") or 0, counts.get("completion_tokens") or 0)
        self._bill(run, usage, model=output.get("model_name") or run.model)

    def _bill(
        self,
        run: _Open,
        usage: Usage,
        status: Status = "ok",
        error: str = "",
        model: str = "",
        context: Context = STANDARD,
    ) -> None:
        call = bill(
            self._prices,
            usage,
            run.call_id,
            run.time,
            run.provider,
            model,
            run.model,
            run.scope,
            context,
            time.perf_counter() - run.started,
            status,
            error,
            run.attempt,
            tags=run.tags,
            fallback=run.fallback,
        )
        emit(call, self._sink)


def _oldest(known: Mapping[UUID, object], keep: int) -> list[UUID]:
    """Return the first keys of a dict that are too many."""
    return list(islice(known, max(0, len(known) - keep)))


def _attempt(tags: Sequence[str]) -> int | None:
    """Return which attempt of `with_retry` a run is, by the tag that LangChain gives it."""
    return next((int(tag.removeprefix(_RETRY_TAG)) for tag in tags if tag.startswith(_RETRY_TAG)), None)


def _enclosing_run(parent: UUID | None) -> UUID | None:
    """Return the run that truly surrounds one: `with_fallbacks` gives its models its own parent for theirs."""
    config = var_child_runnable_config.get()
    enclosing = None if config is None else getattr(config.get("callbacks"), "parent_run_id", None)
    return enclosing or parent


def _estimated(run: _Open, text: str, message: BaseMessage | None = None) -> Usage:
    """Count what nobody reported: the prompt, and the answer as far as it came."""
    if run.prompt and isinstance(run.prompt[0], BaseMessage):
        read = count_messages([to_message(part) for part in run.prompt], run.model).tokens
    else:
        read = sum(count_text(str(part), run.model).tokens for part in run.prompt)
    calls = getattr(message, "tool_calls", None) or ()
    written = count_text(text + "".join(f"{call['name']}{call['args']}" for call in calls), run.model).tokens
    return Usage(read, written, estimated=True)


def _partial_text(response: LLMResult | None) -> str:
    if response is None or not response.generations or not response.generations[0]:
        return ""
    return response.generations[0][0].text


_handler: ContextVar[CostCallbackHandler | None] = ContextVar("llmcost_handler", default=None)
register_configure_hook(_handler, inheritable=True)


@contextmanager
def _watch(prices: PriceBook | None) -> Iterator[None]:
    handler = CostCallbackHandler(prices=prices)
    token = _handler.set(handler)
    try:
        yield
    finally:
        restore(_handler, token)
        handler.sweep(older_than=0)


watch_with(_watch)

__all__ = ["CALL_ID", "CostCallbackHandler", "track"]
