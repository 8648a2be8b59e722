"""`llmcost demo` on labelled questions: the hits that their labels call wrong."""

from pathlib import Path

import pytest

from llmcost_plugins.cli import main


def test_wrong_hits_are_printed_with_both_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traffic, report = tmp_path / "bank.csv", tmp_path / "report.html"
    traffic.write_text(
        "text,category\n"
        "What are the fees for top-ups?,transfer\n"
        "What are the fees for top ups?,card\n"
        "what are the fees for top-ups,transfer\n"
    )
    assert main(["demo", "--traffic", str(traffic), "--report", str(report)]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("wrong hit")]
    asked, _, stored = line.partition(" was given the answer to ")
    assert asked.startswith("wrong hit (semantic, cosine 0.9")
    assert asked.endswith("'What are the fees for top ups?' [card]")
    assert stored == "'What are the fees for top-ups?' [transfer]"
    assert ", 1 wrong hit." in out
    assert "1 of 2" in out
    assert "Wrong hits: 1" in report.read_text("utf-8")


def test_without_wrong_hits_none_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traffic = tmp_path / "bank.csv"
    traffic.write_text("Text,Intent\nWhat is a top-up?,card\nwhat is a top-up,card\n")
    assert main(["demo", "--traffic", str(traffic), "--report", str(tmp_path / "report.html")]) == 0
    out = capsys.readouterr().out
    assert "0 of 1" in out
    assert "wrong hit (" not in out
