"""Learning a whole policy: what is adopted, what is not, and that a saved one decides the same."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import drive
from llmcost_plugins.pricing import PriceBook, default_prices
from llmcost_plugins.routing import Record, Router, learn_policy, load_policy
from llmcost_plugins.routing.fitting import LearnedPolicy
from llmcost_plugins.types import Reply, Request, Tier

NANO, LARGE = Tier("weak", None, "openai", "gpt-5.4-nano"), Tier("strong", None, "openai", "gpt-5.4")
NOW = 1.79e9
SURE = "The pressure of {n} units gives a volume of {n} units. The answer is (B)."
LOST = "This might be roughly {n}. However, that is a mistake. The closest option is perhaps {n}, none match."
RIGHT = "The pressure of the gas gives its volume by the law of Boyle. The answer is (C)."


def records(count: int = 800, *, told: float = 0.99, bad: float = 0.3, answers: bool = True) -> list[Record]:
    """Return records whose unsure weak answers are wrong with the probability `told`; `bad` is their share."""
    dice, made = random.Random(1), []
    for n in range(count):
        unsure = dice.random() < bad
        wrong = dice.random() < (told if unsure else 1 - told)
        words = " Tea." * dice.randrange(40)
        made.append(
            Record(
                messages=({"role": "user", "content": f"What is the volume in case {n}?" + words},),
                weak=float(not wrong),
                strong=1.0,
                weak_answer=(LOST if unsure else SURE).format(n=n) + words if answers else None,
                strong_answer=RIGHT + words if answers else None,
            )
        )
    return made


def learn(given: list[Record], weak: Tier = NANO, **target: Any) -> LearnedPolicy:
    return learn_policy(given, weak, LARGE, default_prices(), at=NOW, **target)


@cache
def judging() -> LearnedPolicy:
    return learn(records(), quality=0.9)


def test_judging_answers_is_adopted_where_it_is_shown_to_pay() -> None:
    learned = judging()
    assert learned.policy.answer_scorer is not None
    assert learned.policy.calibration is not None
    assert learned.policy.calibration.cascade
    assert 0 < learned.policy.answer_threshold <= 1
    assert 0 < learned.cost < 1
    assert str(learned).startswith("adopted: ")


def test_the_policy_escalates_what_looks_wrong_and_nothing_else() -> None:
    policy = judging().policy
    request = records(1)[0].request
    assert policy.answer_scorer is not None
    scores: list[Any] = [policy.answer_scorer(request, Reply(None, text.format(n=5))) for text in (SURE, LOST)]
    assert scores[0] < policy.answer_threshold <= scores[1]


def test_where_nothing_is_shown_to_pay_all_go_to_the_strong_tier() -> None:
    learned = learn(records(told=0.5, bad=0.5), quality=0.98)
    router = Router([NANO, LARGE], policy=learned.policy)
    decision = drive(router.decide(Request(({"role": "user", "content": "What is tea?"},))))
    assert decision.first == 1
    assert "always the strong tier" in learned.way


def test_a_draft_that_costs_as_much_as_the_strong_answer_is_never_made() -> None:
    learned = learn(records(), weak=Tier("weak", None, "openai", "gpt-5.4"), quality=0.9)
    assert learned.cascade is None or not learned.cascade.cascade
    assert "always the strong tier" in learned.way


def test_without_answers_none_are_judged() -> None:
    learned = learn(records(answers=False))
    assert learned.policy.answer_scorer is None
    assert "the records hold none" in str(learned)


def test_a_budget_is_not_answered_with_what_exceeds_it() -> None:
    learned = learn(records(), budget=0.6)
    assert learned.cost <= 0.6


@pytest.mark.parametrize("learned", ["judging", "always"])
def test_a_saved_policy_decides_the_same(learned: str, tmp_path: Path) -> None:
    made = judging() if learned == "judging" else learn(records(told=0.5, bad=0.5))
    made.save(tmp_path / "policy.json")
    policy = load_policy(tmp_path / "policy.json")
    assert policy.describe() == made.policy.describe()
    assert policy.calibration == made.policy.calibration
    for record in records(50):
        reply = Reply(None, record.weak_answer or "", cost=1_000_000)
        assert policy.scorer(record.request) == made.policy.scorer(record.request)
        if made.policy.answer_scorer is not None and policy.answer_scorer is not None:
            assert policy.answer_scorer(record.request, reply) == made.policy.answer_scorer(record.request, reply)


@pytest.mark.parametrize(
    "content",
    ["", "no json", "[]", "3", "{}", '{"version": 1}', '{"version": 2}', '{"version": 1, "scorer": null}', b"\xff\xfe"],
)
def test_what_is_no_policy_is_told_with_the_remedy(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match="llmcost router fit"):
        load_policy(path)


def test_a_policy_that_is_not_there_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="llmcost router fit"):
        load_policy(tmp_path / "missing.json")


@pytest.mark.parametrize(("field", "value"), [("threshold", ["x"]), ("calibration", {"odd": 1}), ("threshold", None)])
def test_a_damaged_policy_is_told(field: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    judging().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ConfigurationError):
        load_policy(path)


def test_a_model_without_a_price_is_named_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"'none'.*PriceBook\.set"):
        learn_policy(records(120), Tier("w", None, "x", "none"), LARGE, PriceBook(), at=NOW)


def test_too_few_records_are_told() -> None:
    with pytest.raises(ConfigurationError, match="too few"):
        learn(records(20))
