"""The router: which tier is asked, what follows a weak answer or a failure, and what the caller gets in the end."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from llmcost_plugins.errors import ConfigurationError, NoTierAnswered
from llmcost_plugins.events import Escalated, Event, FellBack, Routed
from llmcost_plugins.plan import Plan, Step, adrive, drive
from llmcost_plugins.routing import Choice, Router
from llmcost_plugins.types import Fault, Reply, Request, Scope, Tier

WEAK, MIDDLE, STRONG = (Tier(name, None) for name in ("weak", "middle", "strong"))
THREE = (WEAK, MIDDLE, STRONG)
REQUEST = Request(({"role": "user", "content": "What is tea?"},), scope=Scope("acme"))
GOOD, EMPTY = "Tea is a drink.", ""


class Desk:
    """Tiers that answer by a script: a text is an answer, an error is raised."""

    def __init__(self, **answers: str | BaseException) -> None:
        self.answers = answers
        self.asked: list[tuple[str, bool]] = []
        self.events: list[Event] = []

    def __call__(self, tier: Tier, *, shown: bool) -> Plan[Reply]:
        self.asked.append((tier.name, shown))
        answer = self.answers.get(tier.name, GOOD)

        def run() -> Reply:
            if isinstance(answer, BaseException):
                raise answer
            return Reply({"tier": tier.name}, answer, call_id=f"call-{tier.name}")

        return (yield Step(run))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.asked]

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def hard(amount: float) -> Callable[[Request], Choice]:
    return lambda _: Choice(amount, "as the test says")


def fault(error: Exception) -> Fault:
    return Fault("unavailable" if isinstance(error, ConnectionError | TimeoutError) else "fatal")


def route(desk: Desk, tiers: Sequence[Tier] = (WEAK, STRONG), *, difficulty: float = 0.0, **settings: Any) -> Reply:
    settings = {"retries": 0, **settings}
    router = Router(tiers, scorer=hard(difficulty), clock=lambda: 7.0, **settings)
    return drive(router.route(REQUEST, desk, fault, desk.events.append))


def answered_by(reply: Reply) -> str:
    return str(reply.body["tier"])


# --- Order


@pytest.mark.parametrize(("difficulty", "first"), [(0.0, "weak"), (0.49, "weak"), (0.5, "strong"), (1.0, "strong")])
def test_easy_requests_go_to_the_cheapest_and_hard_ones_to_the_strongest(difficulty: float, first: str) -> None:
    desk = Desk()
    assert answered_by(route(desk, THREE, difficulty=difficulty)) == first
    assert desk.names == [first]
    (chosen,) = desk.told(Routed)
    assert chosen == Routed(time=7.0, tier=first, reason="as the test says", scope=Scope("acme"), difficulty=difficulty)


@pytest.mark.parametrize(("threshold", "first"), [(0, "strong"), (0.3, "strong"), (0.31, "weak"), (1, "weak")])
def test_the_threshold_divides(threshold: float, first: str) -> None:
    desk = Desk()
    route(desk, difficulty=0.3, threshold=threshold)
    assert desk.names == [first]


def test_one_tier_is_asked_without_a_rule() -> None:
    def never(_: Request) -> Choice:
        raise AssertionError

    desk = Desk(strong=EMPTY)
    router = Router([STRONG], scorer=never)
    assert drive(router.route(REQUEST, desk, fault, desk.events.append)).text == ""
    assert desk.asked == [("strong", True)]
    assert [event.reason for event in desk.told(Routed)] == ["only tier"]
    assert desk.told(Escalated) == []


def test_every_tier_that_can_answer_is_asked_once_and_the_weaker_ones_last() -> None:
    desk = Desk(weak=TimeoutError(), middle=TimeoutError(), strong=TimeoutError())
    with pytest.raises(NoTierAnswered):
        route(desk, THREE)
    assert desk.names == ["weak", "middle", "strong"]
    desk = Desk(weak=TimeoutError(), middle=TimeoutError(), strong=TimeoutError())
    with pytest.raises(NoTierAnswered):
        route(desk, THREE, difficulty=1)
    assert desk.names == ["strong", "middle", "weak"]


# --- Escalation


def test_a_weak_answer_is_held_back_and_the_strongest_shown() -> None:
    desk = Desk(weak=EMPTY)
    assert answered_by(route(desk)) == "strong"
    assert desk.asked == [("weak", False), ("strong", True)]
    (escalated,) = desk.told(Escalated)
    assert escalated == Escalated(
        time=7.0, call_id="call-weak", tier="weak", to="strong", reason="empty answer", scope=Scope("acme")
    )


def test_escalation_goes_up_tier_by_tier() -> None:
    desk = Desk(weak=EMPTY, middle="I don't know.")
    assert answered_by(route(desk, THREE)) == "strong"
    assert desk.asked == [("weak", False), ("middle", False), ("strong", True)]
    assert [(event.tier, event.to) for event in desk.told(Escalated)] == [("weak", "middle"), ("middle", "strong")]


def test_a_good_draft_is_the_answer() -> None:
    desk = Desk()
    assert answered_by(route(desk)) == "weak"
    assert desk.asked == [("weak", False)]


def test_the_strongest_answer_is_not_judged() -> None:
    desk = Desk(weak=EMPTY, strong=EMPTY)
    assert answered_by(route(desk)) == "strong"
    assert len(desk.told(Escalated)) == 1


def test_without_escalation_answers_are_shown_and_not_judged() -> None:
    desk = Desk(weak=EMPTY)
    assert answered_by(route(desk, escalate=False)) == "weak"
    assert desk.asked == [("weak", True)]
    assert desk.told(Escalated) == []


@pytest.mark.parametrize("error", [TimeoutError("slow"), ValueError("bad request")])
def test_a_draft_is_better_than_nothing(error: Exception) -> None:
    desk = Desk(weak="I don't know.", strong=error)
    reply = route(desk)
    assert (answered_by(reply), reply.text) == ("weak", "I don't know.")


def test_the_next_stronger_tier_is_asked_before_a_draft_is_given() -> None:
    desk = Desk(weak="I don't know.", middle=TimeoutError())
    assert answered_by(route(desk, THREE)) == "strong"


# --- Fallback


def test_a_failure_falls_back_to_the_next_tier() -> None:
    desk = Desk(weak=ConnectionError("gone"))
    assert answered_by(route(desk)) == "strong"
    (fell,) = desk.told(FellBack)
    assert fell == FellBack(time=7.0, tier="weak", to="strong", error="ConnectionError: gone", scope=Scope("acme"))


def test_the_strongest_tier_falls_back_to_weaker_ones_whose_answers_are_taken() -> None:
    desk = Desk(strong=TimeoutError(), middle=EMPTY)
    assert answered_by(route(desk, THREE, difficulty=1)) == "middle"
    assert desk.asked == [("strong", True), ("middle", True)]
    assert desk.told(Escalated) == []


def test_an_error_that_no_other_tier_can_mend_is_raised_at_once() -> None:
    desk, error = Desk(weak=ValueError("bad request")), ValueError
    with pytest.raises(error, match="bad request"):
        route(desk, THREE)
    assert desk.names == ["weak"]
    assert desk.told(FellBack) == []


def test_a_later_error_that_cannot_be_mended_is_raised_too() -> None:
    desk = Desk(weak=TimeoutError(), middle=ValueError("bad request"))
    with pytest.raises(ValueError, match="bad request"):
        route(desk, THREE)
    assert desk.names == ["weak", "middle"]


def test_when_every_tier_fails_all_errors_are_raised() -> None:
    errors = {"weak": TimeoutError("a"), "middle": ConnectionError("b"), "strong": TimeoutError("c")}
    desk = Desk(**errors)
    with pytest.raises(NoTierAnswered) as raised:
        route(desk, THREE)
    assert list(raised.value.exceptions) == list(errors.values())
    assert [(event.tier, event.to) for event in desk.told(FellBack)] == [("weak", "middle"), ("middle", "strong")]


def test_the_error_of_a_single_tier_is_raised_as_it_is() -> None:
    error = TimeoutError("slow")
    desk = Desk(strong=error)
    with pytest.raises(TimeoutError) as raised:
        route(desk, [STRONG])
    assert raised.value is error
    assert desk.told(FellBack) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), SystemExit()])
def test_who_leaves_is_not_served_by_another_tier(error: BaseException) -> None:
    desk = Desk(weak=error)
    with pytest.raises(type(error)):
        route(desk)
    assert desk.names == ["weak"]


async def test_the_async_face_is_the_same() -> None:
    desk = Desk(weak=TimeoutError())
    router = Router([WEAK, STRONG], scorer=hard(0))
    assert answered_by(await adrive(router.route(REQUEST, desk, fault, desk.events.append))) == "strong"


# --- Settings


def test_tiers_are_needed() -> None:
    with pytest.raises(ConfigurationError, match="`tiers` is empty"):
        Router([])


def test_tiers_have_names_of_their_own() -> None:
    with pytest.raises(ConfigurationError, match="name of its own"):
        Router([WEAK, Tier("weak", None)])


@pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan"), float("inf")])
def test_the_threshold_is_from_zero_to_one(threshold: float) -> None:
    with pytest.raises(ConfigurationError, match="`threshold`"):
        Router(THREE, threshold=threshold)


def test_tiers_may_come_from_an_iterator_and_cannot_be_changed() -> None:
    def made() -> Iterator[Tier]:
        yield from THREE

    given = list(made())
    router = Router(given)
    given.clear()
    assert router.tiers == THREE
    assert router.strongest is STRONG
    assert repr(router) == "Router(weak -> middle -> strong)"


def test_other_tiers_with_the_same_settings() -> None:
    router = Router(THREE, scorer=hard(0.5), threshold=0.7, escalate=False)
    other = router.with_tiers([WEAK, STRONG])
    assert other.tiers == (WEAK, STRONG)
    assert other.describe()[1:] == router.describe()[1:]


def one_rule(_: Request) -> Choice:
    return Choice(0, "")


def test_what_decides_who_answers_is_described() -> None:
    routers = [
        Router(THREE),
        Router(THREE[:2]),
        Router(THREE, scorer=one_rule),
        Router(THREE, threshold=0.4),
        Router(THREE, escalate=False),
    ]
    described = [repr(router.describe()) for router in routers]
    assert len(set(described)) == len(routers)
    assert repr(Router(THREE).describe()) == described[0]
    assert " at 0x" not in described[0]


class Rule:
    def __call__(self, _: Request) -> Choice:
        return Choice(0, "")


def test_a_rule_without_a_lasting_name_does_not_pose_as_one() -> None:
    one, other = (Router(THREE, scorer=hard(amount)).describe() for amount in (0, 1))
    from llmcost_plugins.cache.fingerprint import cacheable_identity

    assert one != other or not cacheable_identity(repr(one))
    assert not cacheable_identity(repr(Router(THREE, scorer=Rule()).describe()))
