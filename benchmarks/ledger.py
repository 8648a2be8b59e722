"""What keeping the books costs, and whether they are right.

python -m benchmarks.ledger [--quick] [--json]
"""

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import genai_prices
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from benchmarks.harness import ainterleaved, interleaved, options, reference_us, report
from llmcost_plugins import Cache, Ledger, PriceBook, Router, Tier
from llmcost_plugins.flow import Account, serve
from llmcost_plugins.langchain import CostCallbackHandler
from llmcost_plugins.plan import Ask, drive
from llmcost_plugins.types import Reply, Request, Usage

INPUT, OUTPUT = 1_000, 50
THREADS, CALLS, TASKS, PROCESSES, CANCELS = 16, 500, 3_000, 8, 1_000


class NullModel(BaseChatModel):
    """Answers at once, with usage."""

    @property
    def _llm_type(self) -> str:
        return "null"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-5.4-mini", "ls_model_type": "chat"}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        usage = {"input_tokens": INPUT, "output_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
        meta = {"model_name": "gpt-5.4-mini", "finish_reason": "stop"}
        message = AIMessage("answer", usage_metadata=usage, response_metadata=meta)
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model_name": "gpt-5.4-mini"})

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages)


class HangingModel(NullModel):
    """Never answers an async call."""

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        await asyncio.Event().wait()
        raise AssertionError


class NoOp(BaseCallbackHandler):
    """What LangChain's own dispatch costs."""

    run_inline = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None: ...

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None: ...


def handler_times(repeats: int) -> dict[str, float]:
    model = NullModel()
    with_handler = {"callbacks": [CostCallbackHandler(ledger=Ledger())]}
    no_op, usage = {"callbacks": [NoOp()]}, {"callbacks": [UsageMetadataCallbackHandler()]}
    sync = interleaved(
        {
            "bare": lambda: model.invoke("hi"),
            "no_op": lambda: model.invoke("hi", no_op),
            "usage": lambda: model.invoke("hi", usage),
            "handler": lambda: model.invoke("hi", with_handler),
        },
        repeats,
    )
    apart = ainterleaved(
        {"bare": lambda: model.ainvoke("hi"), "handler": lambda: model.ainvoke("hi", with_handler)}, repeats
    )
    return {
        "handler_sync_us": sync["handler"] - sync["bare"],
        "no_op_handler_sync_us": sync["no_op"] - sync["bare"],
        "usage_handler_sync_us": sync["usage"] - sync["bare"],
        "handler_async_us": apart["handler"] - apart["bare"],
    }


def pricing_times(repeats: int) -> dict[str, float]:
    """Price the same call with the price book and with its peers; an absent peer's time is NaN."""
    book, usage = PriceBook(), Usage(INPUT, OUTPUT, cached_tokens=200)
    theirs = genai_prices.Usage(input_tokens=INPUT, output_tokens=OUTPUT, cache_read_tokens=200)
    calls: dict[str, Callable[[], Any]] = {
        "pricing_us": lambda: book.cost("openai", "gpt-4o", usage, 1.79e9),
        "genai_prices_us": lambda: genai_prices.calc_price(theirs, "gpt-4o", provider_id="openai"),
    }
    if find_spec("tokencost"):
        from tokencost import calculate_cost_by_tokens

        calls["tokencost_us"] = lambda: calculate_cost_by_tokens(INPUT, "gpt-4o", "input")
    return {"tokencost_us": float("nan"), **interleaved(calls, repeats)}


class NullCaller:
    """A door whose model answers at once."""

    reply = Reply({"content": "answer"}, text="answer", usage=Usage(INPUT, OUTPUT), model="gpt-5.4-mini")

    def ask(self, tier: Tier, call_id: str, *, shown: bool) -> Ask[Any, Reply]:
        return Ask(lambda: self.reply)

    def read(self, reply: Reply) -> None:
        return None

    def retryable(self, error: Exception) -> bool:
        return False

    def estimate(self, tier: Tier, reply: Reply | None) -> Usage:
        return Usage()


def flow_times(repeats: int) -> dict[str, float]:
    """Time a request through `serve`, less what cache and router take when called alone."""
    caller, sink, cache = NullCaller(), Ledger().record, Cache()
    router = Router([Tier("small", None, "openai", "gpt-5.4-mini"), Tier("large", None, "openai", "gpt-5.4")])
    account = Account(sink=sink)
    known = Request(({"role": "user", "content": "what is a cache?"},), model="m")
    drive(serve(known, cache=cache, router=router, caller=caller, account=account))
    numbers = iter(range(10**9))

    def fresh() -> Request:
        return Request(({"role": "user", "content": f"what is {next(numbers)}?"},), model="m")

    def alone() -> None:
        found = drive(cache.find(request := fresh(), sink))
        router.choose(request)
        drive(cache.keep(found, caller.reply))

    times = interleaved(
        {
            "hit": lambda: drive(serve(known, cache=cache, router=router, caller=caller, account=account)),
            "cache_hit": lambda: drive(cache.find(known, sink)),
            "miss": lambda: drive(serve(fresh(), cache=cache, router=router, caller=caller, account=account)),
            "parts": alone,
        },
        repeats,
    )
    return {
        "flow_hit_us": times["hit"] - times["cache_hit"],
        "flow_miss_us": times["miss"] - times["parts"],
        "flow_hit_total_us": times["hit"],
        "flow_miss_total_us": times["miss"],
    }


def off_by(ledger: Ledger, calls: int) -> int:
    """Return by how many pico-USD and tokens a ledger of so many calls is wrong."""
    cost = PriceBook().cost("openai", "gpt-5.4-mini", Usage(INPUT, OUTPUT), at=1.79e9)
    assert cost is not None
    sums = ledger.totals()
    expected = (calls, calls * INPUT, calls * OUTPUT, calls * cost.total)
    return sum(
        abs(a - b) for a, b in zip((sums.paid, sums.input_tokens, sums.output_tokens, sums.cost), expected, strict=True)
    )


def threads_error() -> int:
    ledger = Ledger()
    model, config = NullModel(), {"callbacks": [CostCallbackHandler(ledger=ledger)]}
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: [model.invoke("hi", config) for _ in range(CALLS)], range(THREADS)))
    return off_by(ledger, THREADS * CALLS)


def tasks_error() -> int:
    ledger = Ledger()
    model, config = NullModel(), {"callbacks": [CostCallbackHandler(ledger=ledger)]}

    async def run() -> None:
        await asyncio.gather(*(model.ainvoke("hi", config) for _ in range(TASKS)))

    asyncio.run(run())
    return off_by(ledger, TASKS)


def one_process(calls: int) -> dict[str, Any]:
    ledger = Ledger()
    model, config = NullModel(), {"callbacks": [CostCallbackHandler(ledger=ledger)]}
    for _ in range(calls):
        model.invoke("hi", config)
    return ledger.to_dict()


def processes_error() -> int:
    merged = Ledger()
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for state in pool.map(one_process, [CALLS] * PROCESSES):
            merged.merge(state)
    return off_by(merged, PROCESSES * CALLS)


def cancels() -> tuple[int, int]:
    """Cancel calls that hang; return the runs left open after a sweep, and those recorded as abandoned."""
    ledger = Ledger()
    handler = CostCallbackHandler(ledger=ledger)

    async def run() -> None:
        model = HangingModel()
        tasks = [asyncio.ensure_future(model.ainvoke("hi", {"callbacks": [handler]})) for _ in range(CANCELS)]
        while handler.open_runs < CANCELS:  # noqa: ASYNC110 - the handler has no event to wait for
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    handler.sweep(older_than=0)
    return handler.open_runs, ledger.totals().abandoned


def main() -> None:
    given = options("What keeping the books costs, and whether they are right.")
    repeats = 300 if given.quick else 2_000
    handler, flow, pricing = handler_times(repeats), flow_times(repeats), pricing_times(repeats)
    left, abandoned = cancels()
    errors = threads_error() + tasks_error() + processes_error()
    rows = [
        ("reference_us", reference_us(), "a fixed loop, to compare machines by"),
        ("handler_sync_us", handler["handler_sync_us"], "<= 15, added to a sync call"),
        ("no_op_handler_sync_us", handler["no_op_handler_sync_us"], "LangChain's own share of it"),
        ("handler_async_us", handler["handler_async_us"], "<= 40, added to an async call"),
        ("usage_handler_sync_us", handler["usage_handler_sync_us"], "LangChain's token counter, without money"),
        ("pricing_us", pricing["pricing_us"], "<= 3, warm"),
        ("genai_prices_us", pricing["genai_prices_us"], "peer: the same price from genai-prices itself"),
        ("tokencost_us", pricing["tokencost_us"], "peer: input tokens only; nan: absent, run `make bench-setup`"),
        ("flow_miss_us", flow["flow_miss_us"], "<= 30, beside cache, router and model"),
        ("flow_hit_us", flow["flow_hit_us"], "<= 15, beside the cache"),
        ("flow_miss_total_us", flow["flow_miss_total_us"], "with cache and router, model at once"),
        ("flow_hit_total_us", flow["flow_hit_total_us"], "with the cache"),
        ("totals_error", errors, f"0: {THREADS} threads x {CALLS}, {TASKS} tasks, {PROCESSES} processes x {CALLS}"),
        ("open_runs_left", left, f"0 after {CANCELS} cancelled calls and a sweep"),
        ("abandoned_recorded", abandoned, "of those"),
    ]
    report("ledger: what keeping the books costs, in microseconds (best median of five rounds)", rows, given)


if __name__ == "__main__":
    main()
