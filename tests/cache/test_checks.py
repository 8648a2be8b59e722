"""Checks on live traffic: on a stream whose calibration is much too low, wrong answers stay near what is allowed."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from llmcost_plugins.cache import Cache, Calibration
from llmcost_plugins.cache.checks import Checks
from llmcost_plugins.plan import Plan, drive
from llmcost_plugins.stores import Memory
from llmcost_plugins.types import Reply, Request, Usage

DIMENSION = 96
TOPICS = 150
LOOKUPS = 4_000
ALLOWED = 0.02
LOW = Calibration("planted", ALLOWED, 0.95, {"all": 0.6})


class Planted:
    """An embedder whose vectors a test has chosen; texts that it was told nothing of have one of their own."""

    id = "planted"
    dimension = DIMENSION

    def __init__(self, seed: int = 7) -> None:
        self.rng = np.random.default_rng(seed)
        self.known: dict[str, Any] = {}

    def direction(self) -> Any:
        vector = self.rng.normal(size=DIMENSION)
        return vector / np.linalg.norm(vector)

    def near(self, other: Any, cosine: float) -> Any:
        aside = self.direction()
        aside -= (aside @ other) * other
        return cosine * other + np.sqrt(1 - cosine**2) * aside / np.linalg.norm(aside)

    def embed(self, texts: Sequence[str]) -> Plan[Any]:
        from llmcost_plugins.embeddings import Embedded

        rows = [self.known[text] if text in self.known else self.direction() for text in texts]
        return Embedded(np.asarray(rows, np.float32), (False,) * len(texts), (5,) * len(texts))
        yield


def wrong_share(check: float, *, seed: int = 3) -> float:
    """Return the share of look-ups in the later half that got a wrong answer.

    A question is one of a topic, asked in other words; below a cosine of 0.85 it means something else.
    """
    lot = random.Random(seed)
    embedder = Planted(seed)
    topics = [embedder.direction() for _ in range(TOPICS)]
    cache = Cache(
        Memory(max_entries=20_000),
        embedder=embedder,
        calibration=LOW,
        vetoes=(),
        classify=lambda text: "faq",
        check=check,
        max_error=ALLOWED,
        lot=lot.random,
    )
    wrong = 0
    for number in range(LOOKUPS):
        topic, cosine = lot.randrange(TOPICS), lot.choice([0.999, 0.95, 0.9, 0.8, 0.7])
        text = " ".join("".join(lot.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(4))
        truth = f"the answer on {topic}" if cosine >= 0.85 else f"another answer, {number}"
        embedder.known[text] = embedder.near(topics[topic], cosine)
        found = drive(cache.find(Request(({"role": "user", "content": text},)), lambda event: None))
        if found.reply is None:
            drive(cache.keep(found, Reply({}, truth, Usage(1, 1))))
        elif number >= LOOKUPS // 2:
            wrong += found.reply.text != truth
    return wrong / (LOOKUPS // 2)


def test_without_checks_a_low_threshold_gives_many_wrong_answers() -> None:
    assert wrong_share(0.0) > 5 * ALLOWED


@pytest.mark.parametrize("seed", [3, 4])
def test_with_checks_wrong_answers_stay_near_what_is_allowed(seed: int) -> None:
    assert wrong_share(0.2, seed=seed) <= 1.5 * ALLOWED


# --- The threshold


def checks(share: float = 0.5, lookups: int = 100) -> Checks:
    made = Checks(share=share, max_error=0.05)
    for _ in range(lookups):
        made.saw("faq")
    return made


def test_a_threshold_rises_above_what_is_too_much_and_no_further() -> None:
    made = checks()  # five wrong answers are allowed, and each that was checked stands for two
    for likeness in (0.7, 0.8):
        made.note("faq", likeness, same=False, given=True)
    assert made.threshold("faq", 0.6) == 0.6
    made.note("faq", 0.75, same=False, given=True)
    assert made.threshold("faq", 0.6) == pytest.approx(0.7, abs=0.01)
    assert made.threshold("faq", 0.72) == 0.72
    assert made.threshold("code", 0.6) == 0.6


def test_a_threshold_comes_down_once_more_was_seen() -> None:
    made = checks(lookups=20)
    made.note("faq", 0.7, same=False, given=True)
    assert made.threshold("faq", 0.6) > 0.7
    for _ in range(100):
        made.saw("faq")
    assert made.threshold("faq", 0.6) == 0.6


def test_what_is_long_ago_counts_no_more() -> None:
    made = checks(lookups=0)
    for _ in range(400):
        made.note("faq", 0.9, same=False, given=True)
    for _ in range(4_000):
        made.saw("faq")
    assert made.threshold("faq", 0.6) > 0.9
    for _ in range(2_000):
        made.saw("faq")
    assert made.threshold("faq", 0.6) == 0.6


def test_answers_that_agree_teach_nothing_to_fear() -> None:
    made = checks()
    for _ in range(50):
        made.note("faq", 0.7, same=True, given=True)
    assert made.threshold("faq", 0.6) == 0.6


def test_the_lot_is_the_callers() -> None:
    drawn = [Checks(share=0.2, max_error=0.1, lot=lambda value=value: value).wants() for value in (0.1, 0.3)]
    assert drawn == [True, False]
    assert not Checks(share=0.0, max_error=0.1, lot=lambda: 0.0).wants()


def test_answers_with_other_numbers_differ_and_with_other_spacing_do_not() -> None:
    embedder = Planted()
    made = checks()
    assert drive(made.agree(embedder, "It takes 5 days.", "it takes  5 days."))
    assert not drive(made.agree(embedder, "It takes 5 days.", "It takes 7 days."))
    for text in ("one way", "another way"):
        embedder.known[text] = embedder.known.get("one way", embedder.direction())
    assert drive(made.agree(embedder, "one way", "another way"))
    assert not drive(made.agree(embedder, "one way", "elsewhere"))
