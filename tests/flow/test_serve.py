"""The one way of a request, with scripted models: what is asked, what is billed, and that nothing stays held."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from llmcost_plugins import Cache, Ledger, Router, Tier
from llmcost_plugins.errors import NoTierAnswered
from llmcost_plugins.flow import Account, serve
from llmcost_plugins.plan import Ask, Plan, adrive, adrive_stream, drive, drive_stream
from llmcost_plugins.types import Fault, Reply, Request, Usage

SMALL, LARGE = Tier("small", None, "openai", "gpt-5.4-mini"), Tier("large", None, "openai", "gpt-5.4")
USAGE = Usage(100, 10)


class Refused(Exception):
    """An error that no other tier can mend."""


@dataclass
class Models:
    """A door whose tiers answer by script: a text, an error to raise, or an event to wait for."""

    small: str | Exception | asyncio.Event = "small says so."
    large: str | Exception | asyncio.Event = "large says so."
    asked: list[str] = field(default_factory=list)
    breaks_at: int | None = None
    reports_usage: bool = True
    barrier: threading.Event | None = None

    def ask(self, tier: Tier, call_id: str, *, shown: bool) -> Ask[str, Reply]:
        script = self.small if tier is SMALL or tier.name == "small" else self.large

        def run() -> Reply:
            self.asked.append(tier.name)
            if self.barrier is not None:
                self.barrier.wait(5)
            if isinstance(script, Exception):
                raise script
            return self.reply(str(script), tier)

        async def arun() -> Reply:
            if isinstance(script, asyncio.Event):
                self.asked.append(tier.name)
                script.set()
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return run()

        def stream() -> Generator[str, None, None]:
            reply = run()
            for n, word in enumerate(reply.text.split()):
                if n == self.breaks_at:
                    raise ConnectionError("broke off")
                yield word + " "

        async def astream() -> AsyncGenerator[str, None]:
            for chunk in stream():
                yield chunk
                await asyncio.sleep(0)

        def join(chunks: list[str]) -> Reply:
            whole = "".join(chunks).strip()
            done = whole.endswith(".")
            return self.reply(whole, tier, finished=done)

        return Ask(run, arun, stream, astream, join) if shown else Ask(run, arun)

    def reply(self, text: str, tier: Tier, *, finished: bool = True) -> Reply:
        usage = USAGE if finished and self.reports_usage else None
        finish = "stop" if finished else None
        return Reply({"content": text}, text=text, usage=usage, model=tier.model_name, finish=finish)

    def read(self, reply: Reply) -> str:
        return reply.text

    def fault(self, error: Exception) -> Fault:
        return Fault("fatal" if isinstance(error, Refused) else "unavailable")

    def estimate(self, tier: Tier, reply: Reply | None) -> Usage:
        return Usage(90, len(reply.text.split()) if reply else 0, estimated=True)


@dataclass
class House:
    """Cache, router and ledger for a test."""

    cache: Cache | None = field(default_factory=Cache)
    router: Router = field(default_factory=lambda: Router([SMALL, LARGE]))
    ledger: Ledger = field(default_factory=Ledger)

    def plan(self, models: Models, question: str = "what is a cache?") -> Plan[Reply]:
        request = Request(({"role": "user", "content": question},), model="m")
        account = Account(sink=self.ledger.record)
        return serve(request, cache=self.cache, router=self.router, caller=models, account=account)

    def nothing_held(self) -> bool:
        return self.cache is None or self.cache.turns_held == 0


def words(reply: Reply) -> list[str]:
    return [reply.text]


def test_a_miss_is_paid_once_and_then_found() -> None:
    house, models = House(), Models()
    first, second = drive(house.plan(models)), drive(house.plan(models, "What is a cache"))
    assert (first.text, first.hit) == ("small says so.", None)
    assert second.text == "small says so."
    assert second.hit is not None
    assert second.hit.tier == "normalised"
    sums = house.ledger.totals()
    assert (sums.requests, sums.paid, sums.hits, sums.misses) == (2, 1, 1, 1)
    assert (sums.input_tokens, sums.output_tokens, models.asked) == (100, 10, ["small"])
    assert sums.cache_saved == sums.cost > 0
    assert house.nothing_held()


def test_routing_saves_the_difference_to_the_strongest_tier() -> None:
    house = House()
    drive(house.plan(Models()))
    sums = house.ledger.totals()
    small, large = (house.ledger.prices.cost("openai", name, USAGE, 1.79e9) for name in ("gpt-5.4-mini", "gpt-5.4"))
    assert small is not None
    assert large is not None
    assert sums.routing_saved == large.total - small.total


def test_a_draft_that_falls_short_costs_and_does_not_save() -> None:
    house, models = House(), Models(small="I'm not sure.")
    assert drive(house.plan(models)).text == "large says so."
    sums = house.ledger.totals()
    assert (models.asked, sums.requests, sums.paid, sums.escalations) == (["small", "large"], 1, 2, 1)
    small = house.ledger.prices.cost("openai", "gpt-5.4-mini", USAGE, 1.79e9)
    assert small is not None
    assert (sums.escalated_cost, sums.routing_saved, sums.saved) == (small.total, 0, -small.total)


def test_a_failed_tier_is_recorded_and_bills_nothing() -> None:
    house, models = House(), Models(small=ConnectionError("down"))
    assert drive(house.plan(models)).text == "large says so."
    sums = house.ledger.totals()
    assert (sums.failed, sums.fallbacks, sums.paid, sums.requests, sums.unpriced) == (1, 1, 1, 1, 0)


@pytest.mark.parametrize(
    ("models", "error"),
    [
        (Models(small=Refused("no")), Refused),
        (Models(small=ConnectionError("a"), large=ConnectionError("b")), NoTierAnswered),
    ],
)
def test_a_request_that_fails_leaves_nothing(models: Models, error: type[Exception]) -> None:
    house = House()
    with pytest.raises(error):
        drive(house.plan(models))
    assert house.nothing_held()
    assert drive(house.plan(Models())).text == "small says so."


def test_a_broken_stream_is_billed_for_what_was_shown_and_never_kept() -> None:
    house, models = House(router=Router([LARGE])), Models(breaks_at=2)
    source = drive_stream(house.plan(models), words)
    assert [next(source), next(source)] == ["large ", "says "]
    with pytest.raises(ConnectionError):
        next(source)
    sums = house.ledger.totals()
    assert (sums.cut, sums.estimated, sums.input_tokens, sums.output_tokens) == (1, 1, 90, 2)
    assert house.nothing_held()
    assert drive(house.plan(Models())).hit is None


def test_a_reader_that_leaves_is_billed_for_what_it_saw() -> None:
    house = House(router=Router([LARGE]))
    source = drive_stream(house.plan(Models()), words)
    next(source)
    source.close()
    sums = house.ledger.totals()
    assert (sums.cut, sums.estimated, sums.output_tokens, house.nothing_held()) == (1, 1, 1, True)


async def test_a_cancelled_call_is_recorded_as_abandoned() -> None:
    house, started = House(), asyncio.Event()
    task = asyncio.ensure_future(adrive(house.plan(Models(small=started))))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    sums = house.ledger.totals()
    assert (sums.abandoned, sums.estimated, sums.input_tokens, house.nothing_held()) == (1, 1, 90, True)


def test_unreported_usage_is_estimated_and_marked() -> None:
    house = House()
    drive(house.plan(Models(reports_usage=False)))
    sums = house.ledger.totals()
    assert (sums.estimated, sums.paid, sums.input_tokens) == (1, 1, 90)


def test_a_hit_is_replayed_as_a_stream() -> None:
    house = House()
    drive(house.plan(Models()))
    assert list(drive_stream(house.plan(Models()), words)) == ["small says so."]


def test_identical_requests_of_many_threads_make_one_call() -> None:
    house, models = House(), Models(barrier=threading.Event())
    with ThreadPoolExecutor(16) as pool:
        replies = [pool.submit(drive, house.plan(models)) for _ in range(16)]
        assert models.barrier is not None
        models.barrier.set()
        assert {reply.result().text for reply in replies} == {"small says so."}
    sums = house.ledger.totals()
    assert (models.asked, sums.paid, sums.hits, sums.requests) == (["small"], 1, 15, 16)
    assert house.nothing_held()


async def test_identical_requests_of_many_tasks_and_streams_make_one_call() -> None:
    house, models = House(), Models()

    async def streamed() -> str:
        return "".join([chunk async for chunk in adrive_stream(house.plan(models), words)])

    async def asked() -> str:
        return (await adrive(house.plan(models))).text

    texts = await asyncio.gather(*(streamed() if n % 2 else asked() for n in range(64)))
    assert {text.strip() for text in texts} == {"small says so."}
    assert (models.asked, house.nothing_held()) == (["small"], True)


async def test_when_the_leader_is_cancelled_the_next_leads() -> None:
    house, started = House(), asyncio.Event()
    leader = asyncio.ensure_future(adrive(house.plan(Models(small=started))))
    await started.wait()
    models = Models()
    followers = [asyncio.ensure_future(adrive(house.plan(models))) for _ in range(5)]
    await asyncio.sleep(0)
    leader.cancel()
    texts = {(await follower).text for follower in followers}
    assert (texts, models.asked, house.nothing_held()) == ({"small says so."}, ["small"], True)


async def test_a_cancelled_follower_does_not_disturb_the_leader() -> None:
    house, models = House(), Models()
    leader = asyncio.ensure_future(adrive(house.plan(models)))
    follower = asyncio.ensure_future(adrive(house.plan(models)))
    await asyncio.sleep(0)
    follower.cancel()
    assert (await leader).text == "small says so."
    with pytest.raises(asyncio.CancelledError):
        await follower
    assert house.nothing_held()


def test_without_a_cache_every_request_is_asked() -> None:
    house, models = House(cache=None), Models()
    drive(house.plan(models))
    drive(house.plan(models))
    assert models.asked == ["small", "small"]


THREE = Router([SMALL, Tier("middle", None, "openai", "gpt-5.4-nano"), LARGE])


def test_of_several_drafts_only_the_one_given_is_an_answer() -> None:
    house, models = House(router=THREE), Models(small="I'm not sure.", large="I'm not sure.")
    asked = models.ask

    def ask(tier: Tier, call_id: str, *, shown: bool) -> Ask[str, Reply]:
        models.large = ConnectionError("down") if tier is LARGE else "I'm not sure."
        return asked(tier, call_id, shown=shown)

    models.ask = ask  # type: ignore[method-assign]
    reply = drive(house.plan(models))
    sums = house.ledger.totals()
    assert reply.degraded
    assert (models.asked, sums.requests, sums.answered, sums.escalations) == (["small", "middle", "large"], 1, 1, 1)
    assert drive(house.plan(Models())).hit is None


async def test_a_draft_that_nobody_gets_is_no_answer() -> None:
    house, started = House(), asyncio.Event()
    models = Models(small="I'm not sure.", large=started)
    task = asyncio.ensure_future(adrive(house.plan(models)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    sums = house.ledger.totals()
    assert (sums.requests, sums.answered, sums.abandoned, sums.escalations) == (1, 0, 1, 1)
    assert sums.routing_saved == 0
    assert house.nothing_held()
