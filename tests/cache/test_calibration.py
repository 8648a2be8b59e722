"""Calibration: thresholds whose error is bounded, and their life in files and notebooks."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.cache import Cache, Calibration, LabelledPair, LabelledQuestion, calibrate
from llmcost_plugins.cache.bounds import upper_bound
from llmcost_plugins.cache.calibration import default_calibration
from llmcost_plugins.embeddings import LocalEmbedder
from llmcost_plugins.errors import ConfigurationError

THINGS = ["password", "username", "email address", "phone number", "billing plan", "profile photo", "home page"]
VERBS = ["reset", "change", "delete", "find", "export", "hide", "share", "verify"]


def pairs(count: int = 400) -> list[LabelledPair]:
    made = []
    for number in range(count):
        thing, verb = THINGS[number % len(THINGS)], VERBS[number % len(VERBS)]
        other = THINGS[(number + 1) % len(THINGS)]
        same = number % 2 == 0
        made.append(
            LabelledPair(f"How can I {verb} my {thing}?", f"How do I {verb} my {thing if same else other}?", same)
        )
    return made


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(pairs(), 0.01, confidence=0.95)


def test_the_threshold_keeps_the_bound_and_the_one_below_does_not(calibration: Calibration) -> None:
    point = calibration.point()
    assert point is not None
    assert point.error_bound == upper_bound(point.wrong, 400, 0.95) <= 0.01
    assert point.hits > 0
    assert point.precision_bound > 0.9
    curve = sorted(calibration.curves["all"], key=lambda point: point.threshold)
    assert all(one.hits >= other.hits for one, other in pairwise(curve))


def test_a_stream_is_replayed_into_an_empty_cache() -> None:
    stream = [LabelledQuestion(f"How do I {verb} my {thing}?", f"{verb} {thing}") for thing in THINGS for verb in VERBS]
    found = calibrate([*stream, *stream], 0.05)
    point = found.point()
    assert point is not None
    assert (point.requests, point.wrong) == (112, 0)
    assert point.hits >= 56


def test_too_few_examples_give_no_hits() -> None:
    few = calibrate(pairs(10), 0.01)
    assert few.thresholds["all"] == 2.0
    assert "never" in str(few)


def test_a_category_with_enough_examples_has_a_threshold_of_its_own() -> None:
    found = calibrate(pairs(700), 0.01, classify=lambda text: "pass" if "word" in text else "rest")
    assert set(found.thresholds) == {"all", "rest"}
    assert found.threshold("pass") == found.threshold("all")


def test_saved_and_loaded_it_is_the_same(calibration: Calibration, tmp_path: Path) -> None:
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration
    assert "Cache(" in repr(Cache(calibration=tmp_path / "c.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"curves": {}}', "{}", "[" * 100_000])
def test_files_that_hold_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ConfigurationError, match="holds no calibration"):
        Calibration.load(tmp_path / "c.json")


def test_thresholds_must_be_numbers_and_there_must_be_one_for_all(tmp_path: Path) -> None:
    for thresholds in ({"faq": 0.8}, {"all": "high"}, {}):
        content = {"embedder": "x", "max_error": 0.1, "confidence": 0.9, "curves": {}, "thresholds": thresholds}
        (tmp_path / "c.json").write_text(json.dumps(content))
        with pytest.raises(ConfigurationError, match="holds no calibration"):
            Calibration.load(tmp_path / "c.json")


def test_missing_files_are_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="llmcost calibrate"):
        Calibration.load(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize(
    ("examples", "options"),
    [
        ([], {}),
        ([("a", "b", True)], {"max_error": 0}),
        ([("a", "b", True)], {"confidence": 1}),
        ([("a", "b", True), ("a", "b")], {}),
        ([("a",)], {}),
        (["ab"], {}),
        ([5], {}),
    ],
    ids=str,
)
def test_what_cannot_be_calibrated_on(examples: list[Any], options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        calibrate(examples, **options)


def test_in_notebooks_names_are_text(calibration: Calibration) -> None:
    odd = Calibration("f.<lambda>/~1", 0.01, 0.95, {"all": 0.8, "<b>": 0.9}, {"<b>": calibration.curves["all"]})
    assert "<lambda>" not in odd._repr_html_()
    assert "<b>" not in odd._repr_html_()
    assert odd._repr_html_().count("<polyline") == 1
    assert len(repr(calibration)) < 200
    assert "hits" in str(calibration)


def test_the_one_that_comes_with_the_package_can_be_shown() -> None:
    shipped = default_calibration(LocalEmbedder.id)
    assert shipped is not None
    assert "calibration of" in str(shipped)
    assert "calibration of" in shipped._repr_html_()
    assert default_calibration("another") is None
    assert Calibration("x", 0.01, 0.95, {"all": 0.8}).point() is None
