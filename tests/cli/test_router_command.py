"""`llmcost router`: learning a policy, judging scores, and saying why."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.routing import load_policy

Run = Callable[..., tuple[int, str, str]]


def rows(count: int = 400, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return records of a weak model whose wrong answers hedge, and of a strong one that is always right."""
    lot = random.Random(seed)
    made = []
    for number in range(count):
        wrong = lot.random() < 0.3
        reasons = " ".join(["It follows from the list."] * lot.randrange(1, 9))
        answer = f"{reasons} Perhaps it is {number}, or maybe not." if wrong else f"{reasons} The answer is {number}."
        made.append(
            {
                "prompt": f"What is the value of item {number} in list {lot.randrange(10**6)}?",
                "weak_quality": 0.0 if wrong else 1.0,
                "strong_quality": 1.0,
                "weak_answer": answer,
                "strong_answer": f"{reasons} The answer is {number}.",
            }
        )
    return made


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return write(tmp_path / "records.jsonl", rows())


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def test_a_policy_is_learned_saved_and_used(records: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "router.json"
    code, text, _ = run("router", "fit", records, "--quality", "0.9", "--out", out)
    assert code == 0
    assert "adopted: weak answers are judged" in text
    assert str(out) in text
    policy = load_policy(out)
    assert policy.answer_scorer is not None
    assert policy.calibration is not None
    assert policy.calibration.cost < 1
    code, text, _ = run("router", "explain", "What is tea?", "--policy", out)
    assert code == 0
    assert text.startswith("gpt-5.4-mini: drafts are judged")


def test_what_pays_nothing_is_not_adopted_and_says_why(tmp_path: Path, run: Run) -> None:
    same = [{**row, "weak_answer": f"The answer is {number}. It follows at once."} for number, row in enumerate(rows())]
    code, text, _ = run("router", "fit", write(tmp_path / "same.jsonl", same), "--out", tmp_path / "p.json", "--json")
    said = json.loads(text)
    assert code == 0
    assert said["adopted"].startswith("always the strong tier")
    assert "not adopted" in said["report"]
    _, text, _ = run("router", "explain", "What is tea?", "--policy", tmp_path / "p.json", "--json")
    assert json.loads(text)["tier"] == "gpt-5.4"


def test_scores_are_held_against_random_and_length(records: Path, run: Run) -> None:
    code, text, _ = run("router", "eval", records, "--json")
    said = json.loads(text)
    assert code == 0
    assert said["records"] == 400
    assert said["random"] == 0.5
    assert {"prompt length", "keywords", "rules", "shipped"} <= said.keys()
    code, text, _ = run("router", "eval", records)
    assert "APGR over 400 records" in text


def test_a_decision_is_explained(run: Run) -> None:
    code, text, _ = run("router", "explain", "There is smoke coming out of the battery!")
    assert (code, text) == (0, "gpt-5.4: safety or law (difficulty 0.50, threshold 0.50)\n")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["fit", "{records}", "--weak", "no-such-model"], "PriceBook.set"),
        (["fit", "{records}", "--weak", "gpt-5.4"], "nothing to choose"),
        (["fit", "{records}", "--out", "{folder}/none/router.json"], "create it first"),
        (["fit", "{folder}/none.jsonl"], "cannot be read"),
        (["fit", "{broken}"], "line 1"),
        (["fit", "{empty}"], "holds no records"),
        (["fit", "{records}", "--quality", "1.5"], "share"),
        (["eval", "{records}", "--policy", "{broken}"], "llmcost router fit"),
        (["explain", "What is tea?", "--policy", "{folder}/none.json"], "llmcost router fit"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(
    arguments: list[str], remedy: str, records: Path, tmp_path: Path, run: Run
) -> None:
    broken, empty = tmp_path / "broken.jsonl", tmp_path / "empty.jsonl"
    broken.write_text('{"prompt": 1}\n')
    empty.write_text("")
    places = {"records": records, "folder": tmp_path, "broken": broken, "empty": empty}
    code, _, said = run("router", *(argument.format(**places) for argument in arguments))
    assert code == 1
    assert remedy in said
    assert "Traceback" not in said
