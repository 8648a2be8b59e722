"""The command: what it prints and writes, what it refuses, and its exit codes."""

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llmcost_plugins
from llmcost_plugins.cli import main
from llmcost_plugins.testing import FakeProvider

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "LLMCOST_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    path = tmp_path / "traffic.jsonl"
    lines = (json.dumps({"question": question, "label": "tea"}) for question in ("What is tea?", "what is tea"))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)


def refused(outcome: tuple[int, str, str], *said: str, report: Path) -> None:
    code, out, err = outcome
    assert code == 1
    assert err.startswith("llmcost: ")
    assert err.count("\n") == 1
    for part in said:
        assert part in err
    assert "saved" not in out
    assert not report.exists()


def test_the_demo_prints_its_table_and_writes_its_page(run: Run, report: Path) -> None:
    code, out, err = run("demo", "--limit", 20, "--report", report)
    assert (code, err) == (0, "")
    for figure in ("the same 20 requests, twice", "cost", "wrong hits", "latency p50 / p99", "billed = served"):
        assert figure in out
    assert "saved on 20 requests" in out
    assert f"report: {report}" in out
    assert report.read_text("utf-8").startswith("<!doctype html>")


def test_ones_own_traffic(run: Run, report: Path, traffic: Path) -> None:
    code, out, _ = run("demo", "--traffic", traffic, "--report", report)
    assert code == 0
    assert "traffic.jsonl: the same 2 requests, twice" in out
    assert "0 wrong hits" in out


def test_names_are_shown_as_they_are(run: Run, report: Path, traffic: Path) -> None:
    odd = traffic.rename(traffic.with_name("t [v1] [bold].jsonl"))
    code, out, _ = run("demo", "--traffic", odd, "--report", report)
    assert code == 0
    assert "t [v1] [bold].jsonl: the same 2 requests" in out


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_sent(
    run: Run, tmp_path: Path, traffic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    missing = tmp_path / "missing" / "r.html"
    with FakeProvider(keep_alive=False) as provider:
        outcome = run("demo", "--traffic", traffic, "--base-url", provider.url, "--yes", "--report", missing)
        assert provider.served == []
    refused(outcome, str(missing.parent), "--report", report=missing)
    assert run("demo", "--limit", 1, "--report", tmp_path)[0] == 1


def test_broken_traffic_is_named_and_nothing_is_written(run: Run, tmp_path: Path, report: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"question": "a"}\n{"question": }\n')
    refused(run("demo", "--traffic", path, "--report", report), str(path), "line 2", report=report)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["missing.jsonl", "traffic.txt"])
def test_traffic_that_is_none(name: str, run: Run, tmp_path: Path, report: Path) -> None:
    (tmp_path / "traffic.txt").write_text("a")
    refused(run("demo", "--traffic", tmp_path / name, "--report", report), name, report=report)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_is_at_least_one(limit: int, run: Run, report: Path) -> None:
    refused(run("demo", f"--limit={limit}", "--report", report), "`--limit`", report=report)


# --- Spending money


def test_a_real_endpoint_needs_a_key(run: Run, report: Path, fake_provider: FakeProvider) -> None:
    refused(
        run("demo", "--limit", 2, "--base-url", fake_provider.url, "--yes", "--report", report),
        "OPENAI_API_KEY",
        report=report,
    )
    assert fake_provider.served == []


@pytest.mark.parametrize("key", ["OPENAI_API_KEY", "LLMCOST_API_KEY"])
def test_a_real_endpoint_is_asked_once_agreed(
    key: str, run: Run, report: Path, traffic: Path, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, "k")
    code, out, _ = run("demo", "--traffic", traffic, "--base-url", fake_provider.url, "--yes", "--report", report)
    assert code == 0
    assert f"4 requests to {fake_provider.url} will cost about $" in out
    assert fake_provider.calls == 3
    assert report.exists()


def test_models_may_be_chosen_and_an_unknown_price_is_said(
    run: Run, report: Path, traffic: Path, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    models = ("--model", "big", "--weak-model", "small")
    code, out, _ = run(
        "demo", "--traffic", traffic, "--base-url", fake_provider.url, "--yes", "--report", report, *models
    )
    assert code == 0
    assert "an unknown amount (no price for big)" in out
    assert {served.model for served in fake_provider.served} == {"big", "small"}


def test_without_a_terminal_nothing_is_spent_unasked(
    run: Run, report: Path, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    outcome = run("demo", "--limit", 2, "--base-url", fake_provider.url, "--report", report)
    refused(outcome, "terminal", "--yes", report=report)
    assert fake_provider.served == []


@pytest.mark.usefixtures("at_terminal")
@pytest.mark.parametrize(("answer", "sent"), [("y", True), (" YES ", True), ("", False), ("n", False), ("yeah", False)])
def test_the_question_at_a_terminal(
    answer: str,
    sent: bool,
    run: Run,
    report: Path,
    traffic: Path,
    fake_provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(builtins, "input", lambda _: answer)
    code, out, _ = run("demo", "--traffic", traffic, "--base-url", fake_provider.url, "--report", report)
    assert code == (0 if sent else 1)
    assert bool(fake_provider.served) is report.exists() is sent
    assert ("nothing was sent" in out) is not sent


@pytest.mark.usefixtures("at_terminal")
@pytest.mark.parametrize(("error", "expected"), [(KeyboardInterrupt, 130), (EOFError, 1)])
def test_leaving_at_the_question(
    error: type[BaseException],
    expected: int,
    run: Run,
    report: Path,
    fake_provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave(_: str) -> str:
        raise error

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(builtins, "input", leave)
    code, out, err = run("demo", "--limit", 2, "--base-url", fake_provider.url, "--report", report)
    assert code == expected
    assert "nothing was" in out + err
    assert fake_provider.served == []
    assert not report.exists()


def test_a_provider_that_refuses_is_a_message(
    run: Run, report: Path, traffic: Path, fake_provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    fake_provider.fail(status=401, times=10)
    outcome = run("demo", "--traffic", traffic, "--base-url", fake_provider.url, "--yes", "--report", report)
    refused(outcome, "401", report=report)


# --- Usage


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.strip() == f"llmcost {llmcost_plugins.__version__}"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["demo", "--limit", "many"], ["demo", "--no-such-option"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: llmcost" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("llmcost")
    done = subprocess.run([command, "demo", "--limit", "0"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "llmcost: `--limit` is 0; expected at least 1\n"
