"""`llmcost cache` and `llmcost calibrate`: what they print, what they refuse, and their exit codes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.cache import Cache
from llmcost_plugins.plan import drive
from llmcost_plugins.stores import SQLite
from llmcost_plugins.types import Reply, Request, Scope, Usage

Run = Callable[..., tuple[int, str, str]]
ONE, OTHER = "How do I reset my password?", "How can I reset my password?"
REPLY = Reply({"content": "Click it."}, "Click it.", Usage(10, 5), "openai", "gpt-5.4")


def filled(path: Path, **options: Any) -> str:
    cache = Cache(SQLite(path), **options)
    for tenant, questions in (("acme", [ONE, "What is tea?"]), ("globex", [ONE])):
        for question in questions:
            request = Request(({"role": "user", "content": question},), model="m", scope=Scope(tenant), tags=(tenant,))
            drive(cache.store(request, REPLY))
    return f"sqlite:///{path}"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return filled(tmp_path / "cache.db")


def test_stats(run: Run, store: str) -> None:
    code, out, _ = run("cache", "stats", "--store", store, "--json")
    assert code == 0
    assert json.loads(out)["answers"] == 3
    assert sorted(json.loads(out)["partitions"].values()) == [1, 2]
    assert "answers: 3" in run("cache", "stats", "--store", store)[1]


def test_explain(run: Run, store: str) -> None:
    code, out, _ = run("cache", "explain", OTHER, "--store", store)
    assert (code, "answered (semantic" in out) == (0, True)
    partitions = json.loads(run("cache", "stats", "--store", store, "--json")[1])["partitions"]
    for partition in partitions:
        out = run("cache", "explain", OTHER, "--store", store, "--partition", partition[:12], "--json")[1]
        assert json.loads(out)["tier"] == "semantic"
    code, _, err = run("cache", "explain", OTHER, "--store", store, "--partition", "nowhere")
    assert (code, "no partition 'nowhere'" in err) == (1, True)
    assert "more than one" in run("cache", "explain", OTHER, "--store", store, "--partition", "")[2]


def test_export_and_import(run: Run, store: str, tmp_path: Path) -> None:
    file, copy = tmp_path / "answers.jsonl", f"sqlite:///{tmp_path / 'copy.db'}"
    assert run("cache", "export", file, "--store", store)[:2] == (0, "exported: 3\n")
    assert run("cache", "import", file, "--store", copy)[:2] == (0, "imported: 3\n")
    assert json.loads(run("cache", "stats", "--store", copy, "--json")[1])["answers"] == 3
    file.write_text(file.read_text() + "\nnonsense\n")
    code, _, err = run("cache", "import", file, "--store", copy)
    assert (code, "answers.jsonl, line 5" in err) == (1, True)
    assert run("cache", "export", tmp_path / "no" / "file", "--store", store)[0] == 1


def test_a_store_with_a_secret(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, file = filled(tmp_path / "s.db", secret=b"s"), tmp_path / "answers.jsonl"
    assert run("cache", "export", file, "--store", store)[1] == "exported: 0\nnot readable: 3\n"
    run("cache", "explain", ONE, "--store", store)
    monkeypatch.setenv("CACHE_SECRET", "s")
    assert run("cache", "export", file, "--store", store, "--secret-env", "CACHE_SECRET")[1] == "exported: 3\n"
    code, _, err = run("cache", "stats", "--store", store, "--secret-env", "NOT_SET_ANYWHERE")
    assert (code, "NOT_SET_ANYWHERE" in err) == (1, True)


def test_purge(run: Run, store: str) -> None:
    assert run("cache", "purge", "--store", store)[1] == "removed: 0\n"
    assert run("cache", "purge", "--store", store, "--tag", "globex")[1] == "removed: 1\n"
    entry = json.loads(run("cache", "explain", ONE, "--store", store, "--json")[1])["entry_id"]
    assert run("cache", "purge", "--store", store, "--entry", entry)[1] == "removed: 1\n"
    assert run("cache", "purge", "--store", store, "--entry", "ab")[0] == 1
    assert run("cache", "purge", "--store", store, "--all")[1] == "removed: 1\n"
    with pytest.raises(SystemExit) as left:
        run("cache", "purge", "--store", store, "--all", "--tag", "x")
    assert left.value.code == 2


@pytest.mark.parametrize("action", [["stats"], ["explain", "q"], ["purge", "--all"], ["export", "out.jsonl"]])
def test_a_store_that_is_not_there_is_no_empty_store(run: Run, action: list[str], tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    code, _, err = run("cache", *action, "--store", f"sqlite:///{missing}")
    assert (code, f"no store at {missing}" in err, missing.exists()) == (1, True, False)
    assert run("cache", *action, "--store", "what://ever")[0] == 1


def test_misses(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "misses.jsonl"
    cache = Cache(miss_log=log)
    cache.warm([(ONE, "Click it.")])
    for question in ("What is tea?", "How do I not reset my password?"):
        drive(cache.find(Request(({"role": "user", "content": question},)), turn=False))
    code, out, _ = run("cache", "misses", log)
    assert code == 0
    assert "vetoed" in out
    assert f"beside {ONE!r}" in out
    log.write_text(log.read_text() + '{"reason": 5}\n')
    code, _, err = run("cache", "misses", log)
    assert (code, "misses.jsonl, line 3" in err) == (1, True)
    assert run("cache", "misses", tmp_path / "none")[0] == 1


def test_warm(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "warmapp.py").write_text("from llmcost_plugins import Cache\ncache = Cache()\nother = 5\n")
    answers = tmp_path / "faq.jsonl"
    answers.write_text(json.dumps({"question": ONE, "answer": "Click it."}) + "\n")
    assert run("cache", "warm", "warmapp:cache", answers)[:2] == (0, "offered: 1\ntaken: 1\n")
    for door in ("warmapp:other", "warmapp:none", "nowhere:cache", "warmapp", ":"):
        assert run("cache", "warm", door, answers)[0] == 1
    answers.write_text('\n{"question": "x"}\n')
    assert "faq.jsonl, line 2" in run("cache", "warm", "warmapp:cache", answers)[2]


# --- Calibrating


def test_calibrate(run: Run, tmp_path: Path) -> None:
    examples, out = tmp_path / "pairs.jsonl", tmp_path / "c.json"
    rows = [{"asked": f"How can I {v} it?", "stored": f"How do I {v} it?", "same": True} for v in ("open", "close")]
    examples.write_text("\n".join(map(json.dumps, rows * 200)))
    code, printed, _ = run("calibrate", examples, "--out", out)
    assert (code, f"Cache(calibration={str(out)!r})" in printed) == (0, True)
    assert Cache(calibration=out)
    assert "thresholds" in json.loads(run("calibrate", examples, "--out", out, "--json")[1])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"asked": "a", "stored": "b", "same": "false"}', "line 2: expected true or false"),
        ('{"asked": "a", "same": true}', "line 2: expected a text in the field 'stored'"),
        ('{"label": "b"}', "line 2: expected a text in the field 'text'"),
        ("[]", "line 2: expected a JSON object"),
        ("{", "line 2: expected a JSON object"),
        ('{"text": "a", "label": "b"}', "mixed"),
    ],
)
def test_a_broken_example_is_named(run: Run, line: str, said: str, tmp_path: Path) -> None:
    examples = tmp_path / "pairs.jsonl"
    examples.write_text('{"asked": "a", "stored": "b", "same": true}\n' + line)
    code, _, err = run("calibrate", examples, "--out", tmp_path / "c.json")
    assert (code, said in err) == (1, True)
    assert not (tmp_path / "c.json").exists()


def test_where_it_goes_must_be_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"asked": "a", "stored": "b", "same": true}')
    assert "does not exist" in run("calibrate", tmp_path / "p.jsonl", "--out", tmp_path / "no" / "c.json")[2]
    assert run("calibrate", tmp_path / "none", "--out", tmp_path / "c.json")[0] == 1
    assert run("calibrate", tmp_path / "p.jsonl", "--max-error", "2", "--out", tmp_path / "c.json")[0] == 1
