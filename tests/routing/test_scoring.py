"""Asking scorers: fast and slow ones, sync and async, and those that fail; the rules stand in."""

import asyncio
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from llmcost_plugins.events import ComponentFailed, Event
from llmcost_plugins.plan import Plan, adrive, drive
from llmcost_plugins.routing import Choice, Decision, Router, difficulty
from llmcost_plugins.routing.scoring import ask_answer_scorer, ask_scorer
from llmcost_plugins.types import Reply, Request, Tier

REQUEST = Request(({"role": "user", "content": "Compare tea and coffee."},))
RULES = difficulty(REQUEST)
TIERS = [Tier("weak", None), Tier("strong", None)]
NEVER = threading.Event()


def run(plan: Plan[Any]) -> Any:
    return asyncio.run(adrive(plan))


faces = pytest.mark.parametrize("face", [drive, run], ids=["sync", "async"])


def sync(_: Request) -> float:
    return 0.75


async def async_(_: Request) -> float:
    await asyncio.sleep(0)
    return 0.75


class Object:
    async def __call__(self, _: Request) -> float:
        return 0.75


def quick(_: Request) -> float:
    return 0.75


quick.quick = True  # type: ignore[attr-defined]


@faces
@pytest.mark.parametrize("scorer", [sync, async_, Object(), quick, lambda request: async_(request)])
def test_scorers_of_any_kind_are_asked(face: Callable[[Plan[Any]], Any], scorer: Any) -> None:
    assert face(ask_scorer(scorer, REQUEST, 5.0)) == Choice(0.75, "the scorer says so")


@faces
@pytest.mark.parametrize("said", [0, 1, 0.5, np.float32(0.25), np.float64(0.25), Fraction(1, 4)])
def test_any_number_from_0_to_1_is_a_judgement(face: Callable[[Plan[Any]], Any], said: Any) -> None:
    for answer in (said, Choice(said, "")):
        choice = face(ask_scorer(lambda _, answer=answer: answer, REQUEST, 5.0))
        assert type(choice.difficulty) is float
        assert choice.difficulty == said


@pytest.mark.parametrize("said", [-0.1, 1.1, float("nan"), float("inf"), "0.5", True, [0.5], Choice(7, "")])
def test_anything_else_is_none(said: Any) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        drive(ask_scorer(lambda _: said, REQUEST, 5.0))
    if not isinstance(said, Choice):
        with pytest.raises(ValueError, match="expected a number from 0 to 1"):
            drive(ask_answer_scorer(lambda *_: said, REQUEST, Reply(None), 5.0))


def hangs(*_: Any) -> float:
    NEVER.wait(1.0)
    return 0.0


async def hangs_async(*_: Any) -> float:
    await asyncio.wait_for(asyncio.Event().wait(), 1.0)
    return 0.0


def raises(*_: Any) -> float:
    raise ZeroDivisionError("oh")


async def raises_async(*_: Any) -> float:
    raise ZeroDivisionError("oh")


def decide(face: Callable[[Plan[Any]], Any], scorer: Any) -> tuple[Decision, list[Event]]:
    events: list[Event] = []
    deadline = 0.05 if scorer in (hangs, hangs_async) else 30.0
    return face(Router(TIERS, scorer=scorer, deadline=deadline).decide(REQUEST, sink=events.append)), events


@faces
@pytest.mark.parametrize(
    ("scorer", "error"),
    [
        (hangs, "TimeoutError: "),
        (hangs_async, "TimeoutError: "),
        (raises, "ZeroDivisionError: oh"),
        (raises_async, "ZeroDivisionError: oh"),
        (lambda _: 7, "ValueError: the scorer returned 7"),
    ],
)
def test_the_rules_stand_in_for_a_scorer_that_fails_and_it_is_told(
    face: Callable[[Plan[Any]], Any], scorer: Any, error: str
) -> None:
    decision, (event,) = decide(face, scorer)
    assert (decision.difficulty, decision.reason) == (RULES.difficulty, RULES.reason)
    assert isinstance(event, ComponentFailed)
    assert event.error.startswith(error)


@faces
def test_a_scorer_without_an_opinion_leaves_it_to_the_rules_in_silence(face: Callable[[Plan[Any]], Any]) -> None:
    decision, events = decide(face, lambda _: None)
    assert (decision.difficulty, events) == (RULES.difficulty, [])


@faces
@pytest.mark.parametrize(("scorer", "error"), [(hangs, TimeoutError), (hangs_async, TimeoutError)])
def test_answer_scorers_have_the_same_deadline(
    face: Callable[[Plan[Any]], Any], scorer: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        face(ask_answer_scorer(scorer, REQUEST, Reply(None), 0.02))
    assert face(ask_answer_scorer(lambda *_: None, REQUEST, Reply(None), 5.0)) is None


async def test_a_slow_scorer_does_not_hold_up_the_loop() -> None:
    release = threading.Event()

    def waits(_: Request) -> float:
        release.wait(5)
        return 0.5

    task = asyncio.ensure_future(adrive(ask_scorer(waits, REQUEST, 5.0)))
    await asyncio.sleep(0)
    release.set()
    assert (await task).difficulty == 0.5


def test_a_scorer_sees_the_caller_s_context() -> None:
    from llmcost_plugins.scope import current_scope, scope

    with scope(tenant="acme"):
        choice = drive(ask_scorer(lambda _: Choice(0.0, str(current_scope().tenant)), REQUEST, 5.0))
    assert choice.reason == "acme"
