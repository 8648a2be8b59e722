"""Training a head on one's own questions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llmcost_plugins.compression import Passage
from llmcost_plugins.compression.features import FEATURES
from llmcost_plugins.compression.fitting import Fitted, fit
from llmcost_plugins.compression.head import Head, shipped_head, train
from llmcost_plugins.embeddings import Embedded
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import Plan, drive

COUNT = 30
QUERIES = [f"What colour is lamp {n}?" for n in range(COUNT)]
ANSWERS = [[f"shade {n}"] for n in range(COUNT)]
PASSAGES = [
    [
        Passage(f"Lamp {n} stands in a hall. It was bought in May. Lamp {n} has shade {n}. It is dusted weekly."),
        Passage(f"The hall has {n} doors. They are never locked. Visitors come on Sundays. A cat sleeps there."),
    ]
    for n in range(COUNT)
]


def letters(texts: list[str]) -> list[list[int]]:
    return [[1, *(text.casefold().count(chr(97 + n)) for n in range(26))] for text in texts]


def fitted(**changes: object) -> Fitted:
    given = {"answers": ANSWERS, "embedder": letters, "ratio": 3.0, **changes}
    return drive(fit(QUERIES, PASSAGES, **given))  # type: ignore[arg-type]


def test_a_head_that_is_not_worse_is_adopted() -> None:
    bad = replace(shipped_head(), weights=tuple(-w for w in shipped_head().weights))
    result = fitted(against=bad)
    assert result.adopted
    assert result.recall >= result.recall_before
    assert (result.trained_on, result.held_out) == (20, 10)
    assert Head.from_dict(json.loads(json.dumps(result.head.to_dict()))) == result.head


def test_a_head_that_is_worse_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    good = fitted().head
    bad = replace(good, weights=tuple(-w for w in good.weights))
    monkeypatch.setattr("llmcost_plugins.compression.fitting.train", lambda *given, **named: bad)
    result = fitted(against=good)
    assert (result.adopted, result.head) == (False, good)
    assert "the one before" in result.reason


def test_spans_mark_what_was_cited() -> None:
    spans = [[(0, (text.index("has shade"), text.index("has shade") + 3))] for text in (p[0].text for p in PASSAGES)]
    assert fitted(answers=None, spans=spans).head == fitted().head


@pytest.mark.parametrize(
    "wrong",
    [
        {"answers": None},
        {"spans": [[]] * COUNT},
        {"answers": ANSWERS[:-1]},
        {"answers": [["nowhere to be found"]] * COUNT},
    ],
)
def test_what_cannot_be_learned_from(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        fitted(**wrong)


def test_training_finds_what_separates() -> None:
    dice = np.random.default_rng(0)
    matrix = dice.standard_normal((400, len(FEATURES)))
    head = train([matrix], [(matrix[:, 3] > 1).astype(float)])
    assert int(np.argmax(np.abs(head.weights))) == 3
    scores = head.score(matrix)
    assert scores[matrix[:, 3] > 1].mean() > scores[matrix[:, 3] <= 1].mean() + 1


@pytest.mark.parametrize("change", [{"version": 9}, {"weights": [1.0]}, {"features": ["x"]}, {"means": None}])
def test_a_damaged_head_is_named(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"[Tt]rain it again"):
        Head.from_dict({**shipped_head().to_dict(), **change})


def test_the_shipped_head() -> None:
    head = shipped_head()
    assert head.features == FEATURES
    assert Head.from_dict(head.to_dict()) == head


class Unused:
    id, dimension = "unused", 1

    def embed(self, texts: list[str]) -> Plan[Embedded]:
        raise AssertionError


def test_lists_are_checked_before_anything_is_embedded() -> None:
    with pytest.raises(ConfigurationError):
        drive(fit(["q"], [], answers=[["a"]], embedder=Unused()))
