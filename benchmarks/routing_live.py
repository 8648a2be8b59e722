"""The router at work: what a decision takes, whether every token is billed once, and calls that must not fail."""

import asyncio
import time
from typing import Any

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_openai import ChatOpenAI

from benchmarks.harness import interleaved, reference_us
from llmcost_plugins import Ledger, Router, Tier
from llmcost_plugins.langchain import CostAwareChatModel
from llmcost_plugins.plan import drive
from llmcost_plugins.testing import FakeProvider, Latency, Limits
from llmcost_plugins.types import Deployment, Request

Rows = list[tuple[str, float, str]]
WEAK, STRONG = "gpt-5.4-mini", "gpt-5.4"
COMPARISON = """Compare the three plans below by price, storage and support, and recommend one for a team of 12 people.
Plan A: $12 a seat, 100 GB, e-mail. Plan B: $20 a seat, 1 TB, chat. Plan C: $35 a seat, 5 TB, phone."""
CHOICE = """A train leaves at 9:40 and arrives at 13:05. It stops 4 times for 6 minutes. How long does it move?
A. 2 h 41 min
B. 3 h 1 min
C. 3 h 25 min
D. 3 h 49 min
Answer:"""
QUESTIONS = ("How do I reset my password?", COMPARISON, CHOICE)
CONCURRENCY = 8  # calls that one deployment takes at a time
REPLY_SECONDS = 0.2


def metrics(quick: bool) -> Rows:
    """Return the metrics of the router at work; they need no data."""
    return [*_decisions(quick), *_usage(), *_overload(quick)]


def _decisions(quick: bool) -> Rows:
    """Time whole decisions: what each tier can do, the score, stickiness and guard."""
    tiers = [
        Tier("small", None, "openai", WEAK, context_window=400_000, tools=True, vision=True),
        Tier("strong", None, "openai", STRONG, context_window=1_050_000, tools=True, vision=True),
    ]
    router = Router(tiers)
    requests = [Request(({"role": "user", "content": question},)) for question in QUESTIONS]
    long = Request(({"role": "user", "content": QUESTIONS[1] * 100},))
    calls = {str(n): (lambda request=request: drive(router.decide(request))) for n, request in enumerate(requests)}
    times = interleaved(calls, 200 if quick else 2_000)
    every = sorted(_once(router, request) for _ in range(50 if quick else 500) for request in (*requests, long))
    return [
        ("decision_p50_us", sorted(times.values())[1], "< 100; LiteLLM 270-770"),
        ("decision_p95_us", every[int(0.95 * len(every))], "< 1,000"),
        ("reference_loop_us", reference_us(), ""),
    ]


def _once(router: Router, request: Request) -> float:
    started = time.perf_counter_ns()
    drive(router.decide(request))
    return (time.perf_counter_ns() - started) / 1e3


def _usage() -> Rows:
    """Count the tokens that handler or ledger see more or less than were served, over all ways to ask."""
    off = 0
    for way in ("invoke", "stream", "batch", "ainvoke", "astream", "abatch"):
        for answer in (None, lambda model, messages: "" if model == WEAK else "A whole answer."):
            with FakeProvider(answer) as provider:
                off += _off(provider, way)
    return [("usage_error_tokens", float(off), "0; naive wrapping counts twice")]


def _off(provider: FakeProvider, way: str) -> int:
    ledger, handler = Ledger(), UsageMetadataCallbackHandler()
    model = CostAwareChatModel(tiers=[_openai(provider, WEAK), _openai(provider, STRONG)], ledger=ledger)
    asyncio.run(_ask(model, way, handler))
    served = provider.billed()
    totals = served.input_tokens + served.output_tokens
    seen = sum(usage["total_tokens"] for usage in handler.usage_metadata.values())
    booked = ledger.totals()
    return abs(seen - totals) + abs(booked.input_tokens + booked.output_tokens - totals)


async def _ask(model: Any, way: str, handler: Any) -> None:
    config: Any = {"callbacks": [handler]}
    for question in QUESTIONS:
        if way == "stream":
            list(model.stream(question, config))
        elif way == "astream":
            [chunk async for chunk in model.astream(question, config)]
        else:
            asked = [question] if "batch" in way else question
            answered = getattr(model, way)(asked, config)
            if way.startswith("a"):
                await answered


def _overload(quick: bool) -> Rows:
    """Offer twice what one deployment takes: to it alone, and to three that share the load."""
    seconds = 3 if quick else 8
    return [
        ("direct_success_rate", asyncio.run(_offered(seconds, deployments=0)), "92.4 % reported in the field"),
        ("overload_success_rate", asyncio.run(_offered(seconds, deployments=3)), ">= 0.999"),
    ]


async def _offered(seconds: float, *, deployments: int) -> float:
    """Return the share of calls that succeed of those offered, evenly spread."""
    limits, latency = Limits(concurrency=CONCURRENCY), Latency(median=REPLY_SECONDS, sigma=0.0)
    rate = 2 * CONCURRENCY / REPLY_SECONDS
    with FakeProvider(limits=limits, latency=latency) as provider:
        model = _shared(provider, deployments) if deployments else _openai(provider, "east")
        calls = [asyncio.create_task(_called(model, n, n / rate)) for n in range(round(rate * seconds))]
        done = await asyncio.gather(*calls, return_exceptions=True)
    return sum(not isinstance(result, BaseException) for result in done) / len(done)


async def _called(model: Any, number: int, at: float) -> None:
    await asyncio.sleep(at)
    await model.ainvoke(f"Question {number}")


def _shared(provider: FakeProvider, count: int) -> CostAwareChatModel:
    places = ("east", "west", "north")[:count]
    deployments = tuple(Deployment(_openai(provider, name), name=name) for name in places)
    tier = Tier("mini", deployments=deployments, provider="openai", model_name=WEAK)
    return CostAwareChatModel(router=Router([tier]), ledger=Ledger())


def _openai(provider: FakeProvider, model: str, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=provider.url, api_key="none", stream_usage=True, **settings)


if __name__ == "__main__":
    for row in metrics(quick=True):
        print(row)
