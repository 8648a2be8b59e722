"""Files of records."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.errors import TrafficError
from llmcost_plugins.routing.records import Record, read_records, write_records

SHARE = st.floats(0, 1)
TEXT = st.text(st.characters(codec="utf-8"))
RECORDS = st.builds(
    Record,
    messages=st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}), min_size=1).map(tuple),
    weak=SHARE,
    strong=SHARE,
    weak_answer=st.none() | TEXT,
    strong_answer=st.none() | TEXT,
    weak_finish=st.sampled_from(["stop", "length", None]),
    group=TEXT,
)


@given(st.lists(RECORDS, max_size=5), st.sampled_from(["records.jsonl", "records.jsonl.gz"]))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], name: str
) -> None:
    path = tmp_path_factory.mktemp("records") / name
    write_records(path, records)
    assert read_records(path) == records


def read_line(folder: Path, line: Any) -> Record:
    path = folder / "records.jsonl"
    path.write_text("\n" + (line if isinstance(line, str) else json.dumps(line)) + "\n", encoding="utf-8")
    return read_records(path)[0]


def test_right_and_wrong_are_qualities(tmp_path: Path) -> None:
    record = read_line(tmp_path, {"prompt": "Hi", "weak_correct": False, "strong_correct": True, "subject": "law"})
    assert (record.weak, record.strong, record.group, record.gain) == (0, 1, "law", 1)
    assert record.request.messages == ({"role": "user", "content": "Hi"},)


def test_a_judge_s_scores_run_from_1_to_10(tmp_path: Path) -> None:
    turns = {"earlier_turns": ["First"], "prompt": "Second", "weak_correct": None, "group": "q"}
    record = read_line(tmp_path, {**turns, "weak_score": 1, "strong_score": 10})
    assert (record.weak, record.strong, record.group) == (0, 1, "q")
    assert [message["content"] for message in record.messages] == ["First", "Second"]


GOOD = {"prompt": "Hi", "weak_quality": 0.5, "strong_quality": 1}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "JSON"),
        ("[]", "an object"),
        ({**GOOD, "prompt": 3}, "a text as .prompt"),
        ({**GOOD, "messages": []}, "list of objects"),
        ({**GOOD, "messages": [{"content": "Hi"}]}, "list of objects"),
        ({**GOOD, "weak_quality": 1.5}, "weak_quality. from 0 to 1, found 1.5"),
        ({**GOOD, "weak_quality": None}, "weak_quality"),
        ({**GOOD, "weak_quality": "good"}, "found 'good'"),
        ({**GOOD, "weak_quality": float("nan")}, "found nan"),
        ({**GOOD, "weak_answer": 3}, "weak_answer. to be a text"),
        ({**GOOD, "earlier_turns": 3}, "earlier_turns"),
    ],
)
def test_errors_name_file_line_and_what_was_expected(tmp_path: Path, line: Any, expected: str) -> None:
    with pytest.raises(TrafficError, match=rf"records\.jsonl, line 2: .*{expected}"):
        read_line(tmp_path, line)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl.gz"
    path.write_bytes(b"\xff\xfe no gzip")
    with pytest.raises(TrafficError, match="line 1: expected JSON lines in UTF-8"):
        read_records(path)
