"""Asking the strongest tier behind the user's back: what is written, what it costs, and that nobody notices."""

import copy
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins import Ledger, Router, Tier
from llmcost_plugins.errors import TrafficError
from llmcost_plugins.events import Compared, ComponentFailed, Event
from llmcost_plugins.flow import Account, serve
from llmcost_plugins.plan import Ask, adrive, drive
from llmcost_plugins.routing import Choice, Shadow, read_records
from llmcost_plugins.types import Fault, Reply, Request, Usage

WEAK, STRONG = Tier("weak", None, "openai", "gpt-5.4-mini"), Tier("strong", None, "openai", "gpt-5.4")
REQUEST = Request(({"role": "system", "content": "Be short."}, {"role": "user", "content": "What is tea?"}))
USAGE = Usage(100, 10)


@dataclass
class House:
    """A door, a ledger, and a router with a shadow."""

    path: Path
    strong: Any = "Tea is a hot drink."
    ledger: Ledger = field(default_factory=Ledger)
    events: list[Event] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def ask(self, tier: Tier, call_id: str, *, shown: bool) -> Ask[Any, Reply]:
        def run() -> Reply:
            self.asked.append(tier.name)
            answer = self.strong if tier.name == "strong" else "Tea is a drink."
            if callable(answer):
                answer = answer()
            if isinstance(answer, Exception):
                raise answer
            return Reply({}, answer, usage=USAGE, model=tier.model_name)

        return Ask(run)

    def read(self, reply: Reply) -> None: ...

    def fault(self, error: Exception) -> Fault:
        return Fault("fatal" if isinstance(error, ValueError) else "unavailable")

    def estimate(self, tier: Tier, reply: Reply | None) -> Usage:
        return Usage(1, 1, estimated=True)

    def record(self, event: Event) -> None:
        self.events.append(event)
        self.ledger.record(event)

    def router(self, judge: Any = None, *, share: float = 1.0, **settings: Any) -> Router:
        shadow = Shadow(share, path=self.path, judge=judge)
        return Router([WEAK, STRONG], scorer=lambda _: Choice(0.0, ""), shadow=shadow, **settings)

    def plan(self, router: Router, request: Request = REQUEST) -> Any:
        return serve(request, cache=None, router=router, caller=self, account=Account(sink=self.record))

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


others: set[threading.Thread] = set()


@pytest.fixture
def house(tmp_path: Path) -> House:
    others.update(threading.enumerate())
    return House(tmp_path / "shadow.jsonl")


def settled() -> None:
    """Wait until no shadow is at work."""
    for thread in set(threading.enumerate()) - others:
        thread.join(10)


def test_both_answers_are_written_as_records_once_they_are_graded(house: House) -> None:
    reply = drive(house.plan(house.router(judge=lambda question, given, best: 0.25)))
    settled()
    assert reply.text == "Tea is a drink."
    (record,) = read_records(house.path)
    assert (record.weak_answer, record.strong_answer) == ("Tea is a drink.", "Tea is a hot drink.")
    assert (record.weak, record.strong, record.messages) == (0.25, 1.0, REQUEST.messages)


def test_the_judge_is_given_the_question_and_both_answers(house: House) -> None:
    seen: list[tuple[str, ...]] = []

    def judge(*texts: str) -> float:
        seen.append(texts)
        return 1.0

    drive(house.plan(house.router(judge)))
    settled()
    assert seen == [("What is tea?", "Tea is a drink.", "Tea is a hot drink.")]


def test_without_a_judge_the_grades_are_left_to_be_filled_in(house: House) -> None:
    drive(house.plan(house.router()))
    settled()
    with pytest.raises(TrafficError, match="weak_quality"):
        read_records(house.path)
    row = json.loads(house.path.read_text())
    house.path.write_text(json.dumps(row | {"weak_quality": 1, "strong_quality": 1}))
    assert read_records(house.path)[0].weak == 1


def test_the_shadow_is_overhead_and_no_request(house: House) -> None:
    drive(house.plan(house.router()))
    settled()
    sums = house.ledger.totals()
    strong = house.ledger.prices.cost("openai", "gpt-5.4", USAGE, at=1.79e9)
    assert strong is not None
    assert (sums.requests, sums.paid, sums.answered, sums.escalated_cost) == (1, 2, 1, strong.total)
    assert (sums.fallbacks, sums.retries, sums.escalations) == (0, 0, 0)
    assert [(event.tier, event.agrees) for event in house.told(Compared)] == [("strong", None)]


def test_the_shadow_is_no_part_of_how_the_answer_came_about(house: House) -> None:
    reply = drive(house.plan(house.router()))
    settled()
    assert reply.routing is not None
    assert [attempt["tier"] for attempt in reply.routing["attempts"]] == ["weak"]
    weak = house.ledger.prices.cost("openai", "gpt-5.4-mini", USAGE, at=1.79e9)
    assert weak is not None
    assert reply.routing["cost"] == pytest.approx(weak.total / 1e12)


@pytest.mark.parametrize("error", [TimeoutError("slow"), ValueError("bad")])
def test_a_shadow_that_fails_is_told_and_disturbs_nobody(house: House, error: Exception) -> None:
    house.strong = error
    reply = drive(house.plan(house.router()))
    settled()
    assert (reply.text, reply.degraded) == ("Tea is a drink.", False)
    assert [event.error for event in house.told(ComponentFailed)] == [f"{type(error).__name__}: {error}"]
    assert not house.path.exists()


def broken(*_: str) -> float:
    raise ZeroDivisionError


def test_a_judge_that_fails_is_told_and_its_call_is_booked(house: House) -> None:
    drive(house.plan(house.router(broken)))
    settled()
    assert [event.error for event in house.told(ComponentFailed)] == ["ZeroDivisionError: "]
    assert house.ledger.totals().escalated_cost > 0


def test_a_path_that_cannot_be_written_is_told(house: House, tmp_path: Path) -> None:
    house.path = tmp_path / "missing" / "shadow.jsonl"
    assert drive(house.plan(house.router())).text == "Tea is a drink."
    settled()
    assert "FileNotFoundError" in house.told(ComponentFailed)[0].error


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_nobody_waits_for_a_slow_shadow(house: House, face: str) -> None:
    release = threading.Event()

    def slow() -> str:
        release.wait(10)
        return "Tea."

    house.strong = slow
    plan = house.plan(house.router())
    reply = drive(plan) if face == "sync" else await adrive(plan)
    assert (reply.text, house.told(Compared)) == ("Tea is a drink.", [])
    release.set()
    settled()
    assert len(house.told(Compared)) == 1


def test_a_resting_tier_is_left_alone_by_shadows(house: House) -> None:
    house.strong = TimeoutError()
    router = house.router()
    for _ in range(10):
        drive(house.plan(router))
        settled()
    assert house.asked.count("strong") == 3


@pytest.mark.parametrize(("share", "draws", "shadows"), [(0.25, (0.24, 0.25, 0.9, 0.0), 2), (1.0, (0.0, 0.999), 2)])
def test_a_share_of_the_answers_is_compared(house: House, share: float, draws: tuple[float, ...], shadows: int) -> None:
    left = list(draws)
    router = house.router(share=share, draw=lambda: left.pop(0))
    for _ in draws:
        drive(house.plan(router))
        settled()
    assert house.asked.count("strong") == shadows


def test_answers_of_the_strongest_and_calls_of_tools_have_no_shadow(house: House) -> None:
    router = Router([WEAK, STRONG], scorer=lambda _: Choice(1.0, ""), shadow=Shadow(1, path=house.path))
    drive(house.plan(router))
    settled()
    assert house.asked == ["strong"]


def test_many_shadows_write_whole_lines(house: House) -> None:
    shadow = Shadow(1, path=house.path, judge=lambda *_: 1.0)
    reply = Reply({}, "long " * 5_000)

    def keep() -> None:
        for _ in range(20):
            shadow.keep(REQUEST, "?", reply, reply)

    run_together(keep)
    assert len(read_records(house.path)) == 80


def run_together(call: Callable[[], None]) -> None:
    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_copy_writes_to_the_same_place(house: House) -> None:
    shadow = copy.deepcopy(Shadow(0.5, path=house.path))
    shadow.keep(REQUEST, "?", Reply({}, "a"), Reply({}, "b"))
    assert (shadow.share, house.path.exists()) == (0.5, True)
