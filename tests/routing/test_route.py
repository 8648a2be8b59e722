"""One request's way: fallback, escalation, waiting, streams that never mix, and that nothing stays held."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.errors import NoTierAnswered
from llmcost_plugins.events import Compared, ComponentFailed, Escalated, Event, FellBack
from llmcost_plugins.plan import Ask, Plan, Step, adrive, adrive_stream, drive, drive_stream
from llmcost_plugins.routing import Choice, Router, RoutingPolicy
from llmcost_plugins.types import Deployment, Fault, Reply, Request, Tier

WEAK, MIDDLE, STRONG = (Tier(name, None) for name in ("weak", "middle", "strong"))
THREE = (WEAK, MIDDLE, STRONG)
REQUEST = Request(({"role": "user", "content": "What is tea?"},))
GOOD, EMPTY, UNSURE = "Tea is a drink.", "", "I don't know."


class Limited(Exception):
    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("slow down")
        self.retry_after = retry_after


class TooLong(Exception):
    pass


class BudgetExceeded(Exception):
    pass


@dataclass
class Broken:
    """An answer whose stream breaks after some words."""

    text: str
    error: BaseException


def fault(error: Exception) -> Fault:
    if isinstance(error, Limited):
        return Fault("rate_limit", error.retry_after)
    if isinstance(error, TooLong):
        return Fault("too_long")
    return Fault("unavailable" if isinstance(error, ConnectionError | TimeoutError) else "fatal")


@dataclass
class Desk:
    """Models that answer by script, each answer once and the last for good, at a clock that only waiting moves."""

    now: float = 1_000.0
    asked: list[str] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    scripts: dict[str, list[Any]] = field(default_factory=dict)

    def script(self, **answers: Any) -> "Desk":
        self.scripts |= {name: list(one) if isinstance(one, list) else [one] for name, one in answers.items()}
        return self

    def __call__(self, tier: Tier, *, shown: bool) -> Plan[Reply]:
        name = tier.name if tier.model is None else str(tier.model)

        def answer() -> Any:
            self.asked.append(name)
            self.shown.append(shown)
            script = self.scripts.get(name, [GOOD])
            one = script.pop(0) if len(script) > 1 else script[0]
            if isinstance(one, BaseException):
                raise one
            return one

        def run() -> Reply:
            one = answer()
            return self.reply(name, one.text if isinstance(one, Broken) else str(one))

        def stream() -> Generator[str, None, None]:
            one = answer()
            yield from (one.text if isinstance(one, Broken) else str(one)).split()
            if isinstance(one, Broken):
                raise one.error

        async def arun() -> Reply:
            one = self.scripts.get(name, [GOOD])[0]
            if isinstance(one, asyncio.Event):
                self.asked.append(name)
                one.set()
                await asyncio.Event().wait()
            return run()

        async def astream() -> AsyncGenerator[str, None]:
            for word in stream():
                yield word

        def join(words: Sequence[str]) -> Reply:
            return self.reply(name, " ".join(words))

        return (yield Ask(run, arun, stream, astream, join) if shown else Ask(run, arun))

    def reply(self, name: str, text: str) -> Reply:
        return Reply({"from": name}, text, call_id=f"{name}-{len(self.asked)}", cost=1_000)

    def pause(self, seconds: float) -> Step[None]:
        def wait() -> None:
            self.waited.append(seconds)
            self.now += seconds

        return Step(wait)

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def router(self, tiers: Sequence[Tier] = (WEAK, STRONG), *, difficulty: float = 0.0, **settings: Any) -> Router:
        if "policy" not in settings:
            settings = {"scorer": hard(difficulty), **settings}
        return Router(tiers, clock=lambda: self.now, draw=lambda: 0.5, pause=self.pause, **settings)

    def plan(self, router: Router, request: Request = REQUEST) -> Plan[Reply]:
        return router.route(request, self, fault, self.events.append)

    def ask(self, tiers: Sequence[Tier] = (WEAK, STRONG), **settings: Any) -> Reply:
        return drive(self.plan(self.router(tiers, **settings)))


def hard(amount: float) -> Callable[[Request], Choice]:
    def scorer(_: Request) -> Choice:
        return Choice(amount, "as the test says")

    scorer.quick = True  # type: ignore[attr-defined]
    return scorer


def whose(reply: Reply) -> str:
    return str(reply.body["from"])


def words(reply: Reply) -> list[str]:
    return reply.text.split()


def tier_at(*places: str, **limits: Any) -> Tier:
    return Tier("weak", deployments=tuple(Deployment(name, name, **limits) for name in places))


# --- Fallback


def test_a_failed_deployment_is_replaced_by_another_before_the_next_tier_is() -> None:
    desk = Desk().script(east=ConnectionError("gone"))
    assert whose(desk.ask([tier_at("east", "west"), STRONG])) == "west"
    assert [(event.tier, event.to) for event in desk.told(FellBack)] == [("weak", "weak/west")]


def test_when_all_deployments_fail_the_next_tier_answers() -> None:
    desk = Desk().script(east=Limited(), west=TimeoutError())
    assert whose(desk.ask([tier_at("east", "west"), STRONG])) == "strong"
    assert [(event.tier, event.to) for event in desk.told(FellBack)] == [("weak", "weak/west"), ("weak", "strong")]


def test_trying_the_same_one_again_is_no_falling_back() -> None:
    desk = Desk().script(strong=[TimeoutError(), GOOD])
    assert whose(desk.ask([STRONG])) == "strong"
    assert desk.told(FellBack) == []
    assert len(desk.waited) == 1


@pytest.mark.parametrize("error", [PermissionError("key"), ValueError("bad request"), BudgetExceeded("spent")])
def test_errors_that_would_be_the_same_anywhere_are_raised_at_once(error: Exception) -> None:
    desk = Desk().script(weak=error)
    with pytest.raises(type(error)) as raised:
        desk.ask(THREE)
    assert raised.value is error
    assert (desk.asked, desk.waited) == (["weak"], [])


def test_an_exceeded_budget_is_raised_even_after_another_error() -> None:
    desk = Desk().script(weak=TimeoutError(), strong=BudgetExceeded("spent"))
    with pytest.raises(BudgetExceeded):
        desk.ask()


def test_an_answer_of_a_weaker_tier_than_was_called_for_is_marked() -> None:
    desk = Desk().script(strong=TimeoutError())
    assert desk.ask(difficulty=1.0).degraded
    assert not Desk().ask(difficulty=1.0).degraded


def test_it_is_marked_as_well_where_the_stronger_tier_rests() -> None:
    desk = Desk().script(strong=[Limited(60), GOOD])
    router = desk.router(difficulty=1.0)
    drive(desk.plan(router))
    second = drive(desk.plan(router))
    assert (whose(second), second.degraded) == ("weak", True)
    assert desk.asked == ["strong", "weak", "weak"]
    assert desk.shown[-1]  # nothing stronger is there to judge it for


def test_a_resting_weak_tier_is_passed_over_without_a_call() -> None:
    desk = Desk().script(weak=Limited(60))
    router = desk.router()
    assert [whose(drive(desk.plan(router))) for _ in range(2)] == ["strong", "strong"]
    assert desk.asked == ["weak", "strong", "strong"]


# --- Prompts that are too long


def sized(**windows: int | None) -> list[Tier]:
    return [Tier(name, None, context_window=window) for name, window in windows.items()]


def test_a_prompt_that_is_too_long_moves_to_a_larger_window_only() -> None:
    desk = Desk().script(weak=TooLong())
    tiers = sized(weak=16_000, middle=8_000, strong=32_000)
    assert whose(desk.ask(tiers)) == "strong"
    assert desk.asked == ["weak", "strong"]


def test_a_prompt_that_is_too_long_everywhere_raises_that_error() -> None:
    error = TooLong("of the last")
    desk = Desk().script(weak=TooLong("of the first"), strong=error)
    with pytest.raises(TooLong) as raised:
        desk.ask(sized(weak=8_000, strong=16_000))
    assert (raised.value is error, desk.waited) == (True, [])


@pytest.mark.parametrize("strong", [8_000, 4_000, None])
def test_no_window_that_is_not_known_to_be_larger_is_tried(strong: int | None) -> None:
    desk = Desk().script(weak=TooLong("first"))
    with pytest.raises(TooLong, match="first"):
        desk.ask(sized(weak=8_000, strong=strong))
    assert desk.asked == ["weak"]


def test_other_deployments_of_the_same_model_are_not_asked_about_a_prompt_that_is_too_long() -> None:
    desk = Desk().script(east=TooLong(), west=TooLong())
    with pytest.raises(TooLong):
        desk.ask([tier_at("east", "west")])
    assert len(desk.asked) == 1


def test_prompts_that_are_too_long_make_nothing_rest() -> None:
    desk = Desk().script(weak=TooLong())
    router = desk.router(sized(weak=8_000, strong=16_000))
    for _ in range(10):
        assert whose(drive(desk.plan(router))) == "strong"
    assert desk.asked.count("weak") == 10
    assert router.health.ready_in(router.tiers[:1]) == 0


def test_a_draft_stands_if_the_prompt_is_too_long_for_the_stronger() -> None:
    desk = Desk().script(weak=UNSURE, strong=TooLong())
    reply = desk.ask()
    assert (whose(reply), reply.degraded) == ("weak", True)


# --- Waiting


def test_the_wait_that_was_asked_for_is_kept() -> None:
    desk = Desk().script(strong=[Limited(7.5), GOOD])
    assert whose(desk.ask([STRONG])) == "strong"
    assert 7.5 <= sum(desk.waited) < 9


def test_a_wait_beyond_patience_is_not_begun() -> None:
    desk = Desk().script(strong=Limited(21.0))
    with pytest.raises(Limited):
        desk.ask([STRONG])
    assert (desk.waited, desk.asked) == ([], ["strong"])


def test_waits_add_up_to_the_patience_at_most() -> None:
    desk = Desk().script(strong=Limited(6.0))
    with pytest.raises(Limited):
        desk.ask([STRONG], retries=9)
    assert 12 < sum(desk.waited) <= 20


def test_all_tiers_are_asked_again_as_often_as_was_set() -> None:
    desk = Desk().script(weak=TimeoutError(), strong=TimeoutError())
    with pytest.raises(NoTierAnswered) as raised:
        desk.ask(retries=1)
    assert desk.asked == ["weak", "strong"] * 2
    assert len(raised.value.exceptions) == 4


def test_waits_grow() -> None:
    desk = Desk().script(strong=TimeoutError())
    with pytest.raises(TimeoutError):
        desk.ask([STRONG], retries=2)
    assert desk.waited == sorted(desk.waited)
    assert desk.waited[1] == 2 * desk.waited[0]


def test_before_a_call_is_lost_to_our_own_bookkeeping_all_are_asked() -> None:
    desk = Desk().script(strong=[Limited(300), GOOD])
    router = desk.router([STRONG], retries=0)
    with pytest.raises(Limited):
        drive(desk.plan(router))
    assert whose(drive(desk.plan(router))) == "strong"
    assert desk.waited == [0.0]


def test_own_limits_delay_calls_and_lose_none() -> None:
    desk = Desk()
    router = desk.router([tier_at("east", requests_per_minute=2)], retries=0, patience=100.0)
    for _ in range(7):
        assert whose(drive(desk.plan(router))) == "east"
    assert (len(desk.waited), int(desk.now) // 10) == (3, 118)


def test_rounds_in_which_nobody_could_be_asked_use_up_no_retries() -> None:
    desk = Desk().script(east=[ConnectionError(), GOOD])
    router = desk.router([tier_at("east", requests_per_minute=1)], retries=1, patience=100.0)
    pause = desk.pause

    def taken_meanwhile(seconds: float) -> Step[None]:
        def wait() -> None:
            pause(seconds).run()
            if len(desk.waited) == 1:  # another request takes the place that this one waited for
                drive(desk.plan(router, Request(({"role": "user", "content": "Other"},))))

        return Step(wait)

    router._pause = taken_meanwhile
    assert whose(drive(desk.plan(router))) == "east"


# --- Escalation


def test_attempts_say_what_became_of_each() -> None:
    desk = Desk().script(weak=UNSURE, middle=[TimeoutError(), GOOD])
    reply = desk.ask(THREE)
    assert reply.routing is not None
    outcomes = [(attempt["tier"], attempt["outcome"]) for attempt in reply.routing["attempts"]]
    assert outcomes == [
        ("weak", "escalated: the answer says that it does not know"),
        ("middle", "unavailable: TimeoutError"),
        ("strong", "answered"),
    ]


def test_how_it_came_about_is_plain_json_whose_cost_is_that_of_all_calls() -> None:
    reply = Desk().script(weak=UNSURE, middle=EMPTY).ask(THREE)
    assert reply.routing is not None
    assert json.loads(json.dumps(reply.routing)) == reply.routing
    assert reply.routing["cost"] == pytest.approx(3e-9)
    assert [each["tier"] for each in reply.routing["candidates"]] == ["weak", "middle", "strong"]


@pytest.mark.parametrize(("wrong", "tier"), [(0.79, "weak"), (0.8, "strong"), (1.0, "strong"), (None, "weak")])
def test_answers_as_likely_to_be_wrong_as_the_threshold_are_escalated(wrong: float | None, tier: str) -> None:
    assert whose(Desk().ask(answer_scorer=lambda *_: wrong, answer_threshold=0.8)) == tier


def test_an_answer_scorer_that_fails_lets_the_answer_stand_and_says_so() -> None:
    def broken(request: Request, reply: Reply) -> float:
        raise ZeroDivisionError

    desk = Desk()
    assert whose(desk.ask(answer_scorer=broken)) == "weak"
    assert [event.error for event in desk.told(ComponentFailed)] == ["ZeroDivisionError: "]


@pytest.mark.parametrize("after", [TimeoutError("late"), ValueError("bad")])
def test_a_draft_after_all_is_the_last_one_and_the_others_are_overhead(after: Exception) -> None:
    desk = Desk().script(weak=UNSURE, middle="I'm not sure.", strong=after)
    reply = desk.ask(THREE)
    assert (reply.text, reply.degraded) == ("I'm not sure.", True)
    assert [event.tier for event in desk.told(Escalated)] == ["weak"]


# --- Second opinions


def second(**settings: Any) -> dict[str, Any]:
    return {"policy": RoutingPolicy(hard(0.0), second_opinion="middle", **settings)}


def test_two_that_agree_are_believed() -> None:
    desk = Desk().script(weak="The answer is 4.", middle="The answer is 4.")
    assert whose(desk.ask(THREE, **second())) == "weak"
    assert desk.asked == ["weak", "middle"]
    assert [(event.tier, event.agrees) for event in desk.told(Compared)] == [("middle", True)]


def test_two_that_differ_are_decided_by_one_stronger_than_both() -> None:
    desk = Desk().script(weak="The answer is 4.", middle="The answer is 5.")
    reply = desk.ask(THREE, **second())
    assert (whose(reply), desk.asked) == ("strong", ["weak", "middle", "strong"])
    assert reply.routing is not None
    outcomes = [attempt["outcome"] for attempt in reply.routing["attempts"]]
    assert outcomes == ["escalated: middle answers otherwise", "compared", "answered"]
    assert {event.call_id for event in desk.told(Escalated) + desk.told(Compared)} == {"weak-1", "middle-2"}


@pytest.mark.parametrize("error", [TimeoutError(), ValueError("bad"), TooLong(), BudgetExceeded()])
def test_a_second_opinion_that_fails_does_not_disturb(error: Exception) -> None:
    desk = Desk().script(weak="The answer is 4.", middle=error)
    reply = desk.ask(THREE, **second())
    assert (whose(reply), reply.degraded, desk.waited) == ("weak", False, [])
    assert len(desk.told(ComponentFailed)) == 1


def test_a_second_opinion_after_a_failed_deployment_leaves_the_rest_of_the_way_as_it_was() -> None:
    middle = Tier("middle", deployments=(Deployment("one"), Deployment("two")))
    desk = Desk().script(weak="The answer is 4.", one=TimeoutError(), two="The answer is 5.", strong=EMPTY)
    reply = desk.ask((WEAK, middle, STRONG), **second())
    assert (whose(reply), reply.degraded) == ("strong", False)


def test_nobody_is_asked_for_an_opinion_that_no_stronger_one_could_decide_on() -> None:
    desk = Desk().script(weak="The answer is 4.", middle="The answer is 5.")
    closed = Tier("strong", None, user_tiers=frozenset({"pro"}))
    assert whose(desk.ask((WEAK, MIDDLE, closed), **second())) == "weak"
    assert desk.asked == ["weak"]


# --- Streams


def test_a_stream_falls_back_before_its_first_chunk() -> None:
    desk = Desk().script(strong=TimeoutError())
    source = drive_stream(desk.plan(desk.router(difficulty=1.0)), words)
    assert list(source) == GOOD.split()
    assert desk.asked == ["strong", "weak"]


@pytest.mark.parametrize("error", [ConnectionError("gone"), Limited(5), ValueError("bad")])
def test_a_stream_that_breaks_is_never_continued_by_another(error: Exception) -> None:
    desk = Desk().script(strong=Broken("Tea is", error))
    source = drive_stream(desk.plan(desk.router(difficulty=1.0)), words)
    assert [next(source), next(source)] == ["Tea", "is"]
    with pytest.raises(type(error)):
        next(source)
    assert desk.asked == ["strong"]


async def test_an_async_stream_that_breaks_is_never_continued_by_another() -> None:
    desk = Desk().script(strong=Broken("Tea is", ConnectionError("gone")))
    source = adrive_stream(desk.plan(desk.router(difficulty=1.0)), words)
    assert [await anext(source), await anext(source)] == ["Tea", "is"]
    with pytest.raises(ConnectionError):
        await anext(source)
    assert desk.asked == ["strong"]


def test_drafts_are_held_back_and_only_the_answer_is_seen() -> None:
    desk = Desk().script(weak=UNSURE)
    assert list(drive_stream(desk.plan(desk.router()), words)) == GOOD.split()
    assert (desk.asked, desk.shown) == (["weak", "strong"], [False, True])


async def test_held_drafts_reach_an_async_reader_too() -> None:
    desk = Desk()
    assert [word async for word in adrive_stream(desk.plan(desk.router()), words)] == GOOD.split()
    assert desk.shown == [False]


def test_a_draft_is_told_as_overhead_when_the_stronger_one_s_stream_is_cut() -> None:
    desk = Desk().script(weak=UNSURE)
    source = drive_stream(desk.plan(desk.router()), words)
    next(source)
    source.close()
    assert [event.tier for event in desk.told(Escalated)] == ["weak"]


answers = st.sampled_from([GOOD, EMPTY, UNSURE, TimeoutError(), Limited(1.0), Limited(30.0), TooLong(), ValueError()])
broken = st.builds(Broken, st.just("Half an"), st.sampled_from([ConnectionError("gone"), ValueError()]))
scripts = st.fixed_dictionaries({tier.name: st.lists(answers | broken, min_size=1, max_size=4) for tier in THREE})


@given(scripts, st.sampled_from([0.0, 0.5, 1.0]), st.booleans(), st.booleans())
def test_whatever_happens_the_reader_sees_one_model_or_one_error(
    script: dict[str, list[Any]], difficulty: float, escalate: bool, streams: bool
) -> None:
    desk = Desk().script(**script)
    router = desk.router(THREE, difficulty=difficulty, escalate=escalate)
    seen: list[str] = []
    with suppress(TimeoutError, Limited, TooLong, ValueError, ConnectionError, NoTierAnswered):
        if streams:
            seen += drive_stream(desk.plan(router), words)
        else:
            seen += words(drive(desk.plan(router)))
    assert len(desk.asked) <= 24
    assert sum(desk.waited) <= 20
    assert " ".join(seen) in {GOOD, EMPTY, UNSURE, "Half an"}
    assert len({event.call_id for event in desk.told(Escalated)}) == len(desk.told(Escalated))
    assert all(state.probing_until == 0 for state in router.health._states.values())


@given(scripts, st.sampled_from([0.0, 0.5, 1.0]))
def test_both_faces_do_the_same(script: dict[str, list[Any]], difficulty: float) -> None:
    def told(run: Callable[[Plan[Reply]], Reply]) -> tuple[object, ...]:
        desk = Desk().script(**script)
        try:
            came: object = run(desk.plan(desk.router(THREE, difficulty=difficulty))).text
        except Exception as error:
            came = repr(error)
        return came, desk.asked, desk.waited

    assert told(drive) == told(lambda plan: asyncio.run(adrive(plan)))


# --- Leaving


def probing(desk: Desk, tiers: Sequence[Tier] = (STRONG,), **settings: Any) -> Router:
    """Return a router whose tier has failed and is about to be probed."""
    desk.script(strong=[ConnectionError(), ConnectionError(), ConnectionError(), GOOD])
    router = desk.router(tiers, retries=2, patience=5.0, **settings)
    with pytest.raises(ConnectionError):
        drive(desk.plan(router))
    assert router.health.ready_in(tiers) > 0
    desk.now += 31
    desk.asked.clear()
    return router


async def test_a_cancelled_probe_lets_another_probe_and_does_not_pass_for_a_success() -> None:
    desk = Desk()
    router = probing(desk)
    started = asyncio.Event()
    desk.script(strong=started)
    task = asyncio.ensure_future(adrive(desk.plan(router)))
    await started.wait()
    assert router.health.ready_in([STRONG]) > 0  # one probe at a time
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert router.health.ready_in([STRONG]) == 0
    desk.script(strong=ConnectionError())
    with pytest.raises(ConnectionError):
        drive(desk.plan(router))
    assert router.health.ready_in([STRONG]) > 5  # it is still on probation: one failure is enough


async def test_calls_that_are_given_up_do_not_hide_that_a_deployment_fails() -> None:
    desk = Desk()
    router = desk.router([STRONG], retries=0)
    for _ in range(3):
        desk.script(strong=ConnectionError())
        with pytest.raises(ConnectionError):
            drive(desk.plan(router))
        started = asyncio.Event()
        desk.script(strong=started)
        task = asyncio.ensure_future(adrive(desk.plan(router)))
        await started.wait() if router.health.ready_in([STRONG]) == 0 else await asyncio.sleep(0)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, ConnectionError)):
            await task
    assert router.health.ready_in([STRONG]) > 0


def test_a_reader_that_leaves_after_the_first_chunk_has_shown_the_model_to_be_well() -> None:
    desk = Desk()
    router = probing(desk)
    source = drive_stream(desk.plan(router), words)
    next(source)
    source.close()
    assert router.health.ready_in([STRONG]) == 0


async def test_a_draft_whose_judgement_nobody_waits_for_is_no_answer() -> None:
    judging = asyncio.Event()

    async def judge(request: Request, reply: Reply) -> float:
        judging.set()
        await asyncio.Event().wait()
        return 0.0

    desk = Desk()
    task = asyncio.ensure_future(adrive(desk.plan(desk.router(answer_scorer=judge))))
    await judging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.call_id for event in desk.told(Escalated)] == ["weak-1"]


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_plan_that_is_dropped_releases_its_probe(face: str) -> None:
    desk = Desk()
    router = probing(desk)
    plan = desk.plan(router)
    next(plan)
    plan.close()
    assert router.health.ready_in([STRONG]) == 0


def test_many_threads_share_a_router() -> None:
    desk = Desk().script(east=[Limited(0.001), ConnectionError(), GOOD], west=[TimeoutError(), GOOD])
    router = desk.router([tier_at("east", "west"), STRONG])
    came: list[str] = []

    def ask() -> None:
        came.extend(drive(desk.plan(router)).text for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert came == [GOOD] * 400
    assert router.report().arms[""].requests == 400
    assert sum(router.report().arms[""].by_tier.values()) == 400
