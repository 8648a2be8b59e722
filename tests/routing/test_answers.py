"""How likely an answer is to be wrong."""

import json
import math
import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing.answers import (
    AnswerFit,
    Curve,
    LearnedAnswerScorer,
    agreement,
    by_surprise,
    fit_answers,
    surprise,
)
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.signs import SIGNS, signs
from llmcost_plugins.types import Reply, Request

SURE = "The pressure of {n} units gives a volume of {n} units. The answer is (B)."
LOST = "This might be roughly {n}. However, that is a mistake. The closest option is perhaps {n}, none match."


def ask(text: str = "What is the volume?") -> Request:
    return Request(({"role": "user", "content": text},))


def record(text: str, weak: float, group: str = "") -> Record:
    return Record(
        messages=ask(f"Question {group or text}").messages, weak=weak, strong=1.0, weak_answer=text, group=group
    )


def records(count: int = 400, *, told: float = 0.9, seed: int = 0) -> list[Record]:
    """Return answers of one length of which the unsure ones are wrong with the probability `told`."""
    dice = random.Random(seed)
    made = []
    for n in range(count):
        unsure = dice.random() < 0.5
        wrong = dice.random() < (told if unsure else 1 - told)
        text = (LOST if unsure else SURE).format(n=n) + " Tea." * dice.randrange(60)
        made.append(record(text, float(not wrong), f"group {n // 4}"))
    return made


@cache
def fitted() -> AnswerFit:
    return fit_answers(records())


def scorer() -> LearnedAnswerScorer:
    found = fitted().scorer
    assert found is not None
    return found


# --- Signs


def shown(text: str, asked: str = "What is the volume?", **reply: Any) -> dict[str, float]:
    return signs(ask(asked), Reply(None, text, **reply))


@pytest.mark.parametrize(
    ("text", "sign", "value"),
    [
        ("", "words", 0),
        ("Tea and more tea", "words", math.log(5)),
        ("It might be roughly 3.", "doubt", 2),
        ("That is a mistake. However, wait.", "redo", 3),
        ("None of the options match.", "at a loss", 2),
        ("The answer is (B).", "states a result", 1),
        ("The answer is **B**", "states a result", 1),
        ("#### 1,234", "states a result", 1),
        ("so \\boxed{C}", "states a result", 1),
        ("The answer is a mixture of two gases.", "states a result", 0),
        ("The answer is (B). No, the answer is (C).", "results", 2),
        ("2 + 2 = 4 and 3 * 4 = 12 and 9 / 3 = 3 and 5 - 7 = -2.", "sums right", 4),
        ("2 + 2 = 5.", "sums wrong", 1),
        ("1 / 3 = 0.33.", "sums wrong", 0),
        ("1 / 0 = 7 and 0 * 5 = 0 and 4 + 0 = 4.", "sums wrong", 1),
        ("x2 + 2 = 5 and 2 + 2 = 5x", "sums wrong", 0),
        ("a = b = c", "equations", math.log(3)),
        ("This sentence has no end at all and", "breaks off", 1),
        ("I don't know.", "faulty", 1),
    ],
)
def test_what_shows(text: str, sign: str, value: float) -> None:
    assert shown(text)[sign] == pytest.approx(value)


def test_a_few_words_to_a_question_full_of_numbers() -> None:
    asked = "A car of 900 kg at 20 m/s stops in 5 s. What force?"
    assert shown("3600 N", asked)["unworked"] == pytest.approx(math.log(4))
    assert shown("The force is the mass times the change of speed over the time.", asked)["unworked"] == -1


OPTIONS = "Which gas?\nA. helium gas\nB. neon gas\nC. 25 moles"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It is neon gas. The answer is (B).", 0.5),
        ("It is neon gas. The answer is (A).", -0.5),
        ("There are 25 moles. The answer is (C).", 1.0),
        ("It is neon gas.", 0.0),
        ("The answer is (Z).", 0.0),
    ],
)
def test_whether_the_choice_is_borne_out(text: str, value: float) -> None:
    assert shown(text, OPTIONS)["borne out"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("That makes 24.9 moles. The answer is (C).", 0.004),
        ("That makes 20 moles. The answer is (C).", 0.2),
        ("That makes 2,000 moles. The answer is (C).", 0.5),
        ("That makes 20 moles. The answer is (A).", -1),
        ("The answer is (C).", -1),
        ("That makes " + "9" * 400 + " moles. The answer is (C).", -1),
    ],
)
def test_how_far_the_choice_is_from_what_the_answer_came_to(text: str, value: float) -> None:
    assert shown(text, OPTIONS)["missed by"] == pytest.approx(value)


@given(st.text(max_size=400), st.text(max_size=100))
def test_signs_are_finite_numbers(text: str, asked: str) -> None:
    found = shown(text, asked)
    assert tuple(found) == SIGNS
    assert all(math.isfinite(value) for value in found.values())


# --- Learning


def test_unsure_answers_are_told_from_sure_ones() -> None:
    fit = fitted()
    assert fit.why == "adopted"
    assert fit.separation > 0.8 > 0.6 > fit.by_length
    assert fit.over_length > 0.1
    assert scorer()(ask(), Reply(None, LOST.format(n=5))) > 0.75 > 0.25 > scorer()(ask(), Reply(None, SURE.format(n=5)))


def test_probabilities_are_calibrated() -> None:
    fresh = records(800, told=0.9, seed=1)
    told = [scorer()(each.request, Reply(None, each.weak_answer or "")) for each in fresh]
    assert sum(told) / len(told) == pytest.approx(1 - sum(each.weak for each in fresh) / len(fresh), abs=0.05)
    high = [1 - each.weak for each, wrong in zip(fresh, told, strict=True) if wrong > 0.5]
    assert sum(high) / len(high) == pytest.approx(0.9, abs=0.06)


def test_what_tells_nothing_is_not_adopted() -> None:
    fit = fit_answers(records(told=0.5))
    assert fit.scorer is None
    assert "no better than chance" in str(fit)


def test_what_length_tells_as_well_is_not_adopted() -> None:
    dice = random.Random(0)
    made = []
    for n in range(400):
        count = dice.randrange(5, 40)
        made.append(record("tea " * count, float(dice.random() > count / 45), f"group {n}"))
    fit = fit_answers(made)
    assert fit.scorer is None
    assert fit.why == "not adopted: no better than the answer's length on held-out groups"
    assert fit.by_length > 0.7


@pytest.mark.parametrize(
    ("given_records", "said"),
    [
        ([], "too few: 0 records"),
        (records(60), "too few: 60 records"),
        ([record(SURE.format(n=n), 1.0, f"group {n}") for n in range(200)], "too one-sided"),
        ([record(each.weak_answer or "", each.weak, "same") for each in records(200)], "one group"),
    ],
    ids=["none", "few", "all right", "one group"],
)
def test_records_that_are_not_enough(given_records: list[Record], said: str) -> None:
    fit = fit_answers(given_records)
    assert fit.scorer is None
    assert said in fit.why


def test_grades_between_right_and_wrong_count_in_part() -> None:
    graded = [record(each.weak_answer or "", 0.25 + each.weak / 2, each.group) for each in records()]
    fit = fit_answers(graded)
    assert fit.scorer is not None
    assert 0.6 < fit.scorer(ask(), Reply(None, LOST.format(n=5))) < 0.8


def test_what_always_tells_is_learned_too() -> None:
    fit = fit_answers(records(told=1.0))
    assert fit.scorer is not None
    assert fit.separation == 1
    assert fit.scorer(ask(), Reply(None, LOST.format(n=5))) > 0.95


def test_answers_that_are_all_alike_tell_nothing() -> None:
    fit = fit_answers([record("Tea.", float(n % 2), f"group {n}") for n in range(200)])
    assert fit.scorer is None
    assert "no better than chance" in fit.why


def test_learning_is_the_same_every_time() -> None:
    again = fit_answers(records())
    assert again == fitted()
    assert again.scorer is not None
    assert again.scorer.id == scorer().id


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Record(messages=(), weak=1, strong=1), "pass the text of the weak model's answer"),
        (record("Tea.", 7.0), "scale the grades"),
        (record("Tea.", math.nan), "scale the grades"),
    ],
)
def test_records_that_cannot_be_learned_from(bad: Record, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        fit_answers([*records(), bad])


# --- Scoring

CURVES = st.lists(st.floats(-1e3, 1e3), max_size=6, unique=True).flatmap(
    lambda edges: st.lists(st.floats(-1e3, 1e3), min_size=len(edges) + 1, max_size=len(edges) + 1).map(
        lambda values: Curve(tuple(sorted(edges)), tuple(values))
    )
)
SCORERS = st.builds(
    LearnedAnswerScorer, st.floats(-1e3, 1e3), st.dictionaries(st.sampled_from(SIGNS), CURVES, max_size=6)
)


@given(SCORERS, st.text(max_size=200), st.text(max_size=50))
def test_any_text_has_a_probability(any_scorer: LearnedAnswerScorer, text: str, second: str) -> None:
    request, reply = ask(), Reply(None, text)
    plain = any_scorer(request, reply)
    assert 0 <= plain <= 1
    assert 0 <= any_scorer(request, reply, second=second) <= 1
    assert plain <= any_scorer(request, reply, logprobs=[-0.1, -3.0]) <= 1


@given(SCORERS)
def test_a_scorer_lasts_exactly(any_scorer: LearnedAnswerScorer) -> None:
    again = LearnedAnswerScorer.from_dict(json.loads(json.dumps(any_scorer.to_dict())))
    assert again == any_scorer
    assert again.id == any_scorer.id


def test_a_learned_scorer_lasts_exactly() -> None:
    again = LearnedAnswerScorer.from_dict(json.loads(json.dumps(scorer().to_dict())))
    for each in records(50, seed=3):
        reply = Reply(None, each.weak_answer or "")
        assert again(each.request, reply) == scorer()(each.request, reply)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"version": 1, "intercept": "much", "curves": {}},
        {"version": 1, "intercept": math.nan, "curves": {}},
        {"version": 1, "intercept": 0, "curves": []},
        {"version": 1, "intercept": 0, "curves": {"words": {"edges": [1], "values": [1]}}},
        {"version": 1, "intercept": 0, "curves": {"words": {"edges": [2, 1], "values": [1, 2, 3]}}},
        {"version": 1, "intercept": 0, "curves": {"smell": {"edges": [], "values": [1]}}},
        {"version": 2, "intercept": 0, "curves": {}},
    ],
)
def test_what_is_no_scorer(content: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"fit_answers\(records\)"):
        LearnedAnswerScorer.from_dict(content)


def test_a_second_answer_moves_the_probability() -> None:
    reply = Reply(None, SURE.format(n=1))
    alone = scorer()(ask(), reply)
    assert scorer()(ask(), reply, second="The answer is (C).") > alone > scorer()(ask(), reply, second="Answer: B")
    assert scorer()(ask(), reply, second="Who knows what that could be") == alone


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The answer is (B).", "So the answer is B", True),
        ("The answer is (B).", "The answer is (C).", False),
        ("The answer is (B). Wait, the answer is (C).", "Answer: C", True),
        ("#### 1,200", "The answer is 1200.0", True),
        ("#### 12", "The answer is 13", False),
        ("The answer is 12", "The answer is B", False),
        ("Paris", "paris.", True),
        ("Paris", "Lyon", False),
        ("", "", None),
        ("The answer is B", "I would say it is the second of these", None),
        ("one two three four five six seven eight nine ten eleven twelve thirteen", "Paris", None),
    ],
)
def test_agreement(one: str, other: str, same: bool | None) -> None:
    found = agreement(one, other)
    assert found is same
    assert agreement(other, one) is same


@given(st.text(max_size=60), st.text(max_size=60))
def test_agreement_has_no_order(one: str, other: str) -> None:
    assert agreement(one, other) == agreement(other, one)
    assert agreement(one, one) in (True, None)


def test_surprise() -> None:
    assert surprise([]) == 0
    assert surprise([0.0, 0.0]) == 0
    assert surprise([math.log(0.5)] * 3) == pytest.approx(0.5)
    assert surprise([-math.inf]) == 1
    assert surprise([math.nan, 0.1]) == 0


def test_log_probabilities_judge_an_answer_where_a_model_gives_them() -> None:
    request, sure, unsure = Request(()), [{"token": "4", "logprob": -0.01}], [{"token": "4", "logprob": -1.5}]

    def judged(content: object) -> float | None:
        return by_surprise(request, Reply({"response_metadata": {"logprobs": content}}, "4"))

    assert judged({"content": sure}) == pytest.approx(1 - math.exp(-0.01))
    assert judged({"content": unsure}) == pytest.approx(1 - math.exp(-1.5))
    assert judged(None) is None
    assert judged({"content": []}) is None
    assert by_surprise(request, Reply("text", "4")) is None
