"""Reading traffic: every broken line is named, and nothing of a broken file is used."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.errors import ConfigurationError, TrafficError
from llmcost_plugins.replay.traffic import Traffic, load_traffic, support_traffic

GOOD = '{"question": "What is tea?"}'
FULL = {
    "id": "r1",
    "at": 2.5,
    "kind": "simple",
    "tenant": "acme",
    "user": "u1",
    "feature": "chat",
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "What is tea?"}],
    "answer_id": "a1",
    "weak_right": True,
    "weak_answer": "A drink",
    "strong_answer": "A drink.",
}


def load(folder: Path, text: str, name: str = "t.jsonl") -> Traffic:
    path = folder / name
    path.write_text(text, "utf-8", newline="")
    return load_traffic(path)


def broken(folder: Path, text: str, name: str = "t.jsonl") -> tuple[TrafficError, str]:
    with pytest.raises(TrafficError) as raised:
        load(folder, text, name)
    assert raised.value.path == str(folder / name)
    assert str(raised.value).startswith(f"{folder / name}, line {raised.value.line}: ")
    return raised.value, str(raised.value)


# --- Lines


def test_a_whole_row(tmp_path: Path) -> None:
    traffic = load(tmp_path, json.dumps(FULL))
    (row,) = traffic.rows
    assert (row.id, row.at, row.kind) == ("r1", 2.5, "simple")
    assert (row.tenant, row.user, row.feature) == ("acme", "u1", "chat")
    assert [message["role"] for message in row.messages] == ["system", "user"]
    assert (row.question, row.answer_id, row.weak_right) == ("What is tea?", "a1", True)
    assert (row.weak_answer, row.strong_answer) == ("A drink", "A drink.")
    assert (traffic.name, traffic.labelled, traffic.judged) == ("t.jsonl", True, True)


@pytest.mark.parametrize("key", ["question", "text", "prompt", "query"])
def test_a_question_is_enough(key: str, tmp_path: Path) -> None:
    traffic = load(tmp_path, json.dumps({key: "What is tea?"}) + "\n" + json.dumps({key: "What is coffee?"}))
    assert [row.question for row in traffic.rows] == ["What is tea?", "What is coffee?"]
    assert [(row.id, row.at) for row in traffic.rows] == [("1", 1.0), ("2", 2.0)]
    assert (traffic.labelled, traffic.judged) == (False, False)


@pytest.mark.parametrize("key", ["answer_id", "category", "intent", "label"])
def test_labels_go_by_several_names(key: str, tmp_path: Path) -> None:
    traffic = load(tmp_path, json.dumps({"question": "a", key: 7}))
    assert traffic.rows[0].answer_id == "7"
    assert traffic.labelled


def test_some_labels_are_not_all(tmp_path: Path) -> None:
    traffic = load(tmp_path, '{"question": "a", "label": "x"}\n{"question": "b"}')
    assert not traffic.labelled


def test_blank_lines_are_skipped_and_still_counted(tmp_path: Path) -> None:
    assert len(load(tmp_path, f"\n{GOOD}\n\n  \n{GOOD}\n").rows) == 2
    error, _ = broken(tmp_path, f"\n{GOOD}\n\n{{}}\n")
    assert error.line == 4


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "one JSON object a line"),
        ("not json", "one JSON object a line"),
        ("[1]", "JSON object, found list"),
        ("null", "JSON object, found NoneType"),
        ("{}", "`messages` or a question"),
        ('{"question": ""}', "a question"),
        ('{"question": 5}', "a question"),
        ('{"messages": []}', "at least one message"),
        ('{"messages": "hi"}', "`messages` must be a list"),
        ('{"messages": ["hi"]}', "`role`"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "`role` of system, user or assistant"),
        ('{"messages": [{"role": "user"}]}', "`content` of text"),
        ('{"messages": [{"role": "user", "content": ["a"]}]}', "`content` of text"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "must be the user's"),
        ('{"question": "a", "at": "noon"}', "`at` is 'noon'"),
        ('{"question": "a", "at": [1]}', "`at` is [1]"),
        ('{"question": "a", "at": NaN}', "`at` is nan"),
        ('{"question": "a", "weak_right": "perhaps"}', "`weak_right` is 'perhaps'"),
        ('{"question": "a", "weak_right": 7}', "`weak_right` is 7"),
        ('{"question": "a", "system": 5}', "`system` is 5"),
        ('{"question": "a", "strong_answer": 5}', "`strong_answer` is 5"),
        ('{"question": "a", "weak_answer": ["b"]}', "`weak_answer`"),
    ],
)
def test_a_broken_line_is_named_with_what_was_expected(line: str, expected: str, tmp_path: Path) -> None:
    error, text = broken(tmp_path, f"{GOOD}\n{GOOD}\n{line}\n{GOOD}")
    assert error.line == 3
    assert expected in text


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (True, True),
        (False, False),
        (None, None),
        ("true", True),
        ("FALSE", False),
        ("1", True),
        ("0", False),
        ("", None),
    ],
)
def test_whether_the_weak_answer_is_right(value: Any, right: bool | None, tmp_path: Path) -> None:
    assert load(tmp_path, json.dumps({"question": "a", "weak_right": value})).rows[0].weak_right is right


# --- CSV


def test_csv_with_quotes_and_line_breaks(tmp_path: Path) -> None:
    text = 'question,label,at\r\n"What, ""exactly"",\nis tea?",a,5\r\n\r\nWhat is coffee?,b,\r\n'
    rows = load(tmp_path, text, "t.csv").rows
    assert [row.question for row in rows] == ['What, "exactly",\nis tea?', "What is coffee?"]
    assert [row.answer_id for row in rows] == ["a", "b"]
    assert rows[0].at == 5


@pytest.mark.parametrize(
    "headings", ["text,category", "Text,Category", " query , intent", "label,question", '"Prompt","LABEL"']
)
def test_csv_with_a_column_of_labels_is_labelled(headings: str, tmp_path: Path) -> None:
    cells = "drinks,What is tea?" if headings.startswith("label") else "What is tea?,drinks"
    traffic = load(tmp_path, f"{headings}\n{cells}\n", "t.csv")
    assert traffic.labelled
    assert [(row.question, row.answer_id) for row in traffic.rows] == [("What is tea?", "drinks")]


def test_empty_cells_say_nothing(tmp_path: Path) -> None:
    names = ("question", *(name for name in FULL if name not in ("messages", "id", "at", "kind")))
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, ["What is tea?", *[""] * (len(names) - 1)]])
    (row,) = load_traffic(tmp_path / "t.csv").rows
    assert [message["role"] for message in row.messages] == ["user"]
    assert (row.tenant, row.user, row.feature, row.answer_id) == (None, None, None, None)
    assert (row.weak_right, row.weak_answer, row.strong_answer) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("question\nWhat is tea?\n,\n", 3, "a question"),
        ("other\nWhat is tea?\n", 2, "a question"),
        ('question\nok\n"open', 3, "CSV"),
        ('question\n"a"b\n', 2, "CSV"),
        ("question,at\na,1\n\nb,x\n", 4, "`at` is 'x'"),
    ],
)
def test_a_broken_line_of_csv_is_named(text: str, line: int, expected: str, tmp_path: Path) -> None:
    error, said = broken(tmp_path, text, "t.csv")
    assert error.line == line
    assert expected in said


@pytest.mark.parametrize(("name", "text"), [("t.csv", "question\nWhat is tea?\n"), ("t.jsonl", GOOD)])
def test_the_mark_that_spreadsheets_put_first_is_no_part_of_the_text(name: str, text: str, tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + text, name).rows[0].question == "What is tea?"


# --- Files


@pytest.mark.parametrize(("name", "text"), [("t.jsonl.gz", GOOD), ("t.csv.gz", "question\nWhat is tea?\n")])
def test_files_may_be_gzipped(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    traffic = load_traffic(str(tmp_path / name))
    assert (traffic.name, traffic.rows[0].question) == (name, "What is tea?")


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 20]) + data[middle + 20 :]


PACKED = gzip.compress("\n".join(json.dumps({"question": f"What is {n}?"}) for n in range(500)).encode())


@pytest.mark.parametrize(
    "data", [b"plain text", PACKED[: len(PACKED) // 2], damaged(PACKED)], ids=["not packed", "cut", "damaged"]
)
def test_a_packed_file_that_cannot_be_read(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.gz").write_bytes(data)
    with pytest.raises((ConfigurationError, TrafficError), match=r"t\.jsonl\.gz"):
        load_traffic(tmp_path / "t.jsonl.gz")


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_a_file_that_is_no_text(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"question\n\xff\xfe\x00")
    with pytest.raises((ConfigurationError, TrafficError), match=name):
        load_traffic(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"), [("t.jsonl", ""), ("t.jsonl", "\n \n"), ("t.csv", ""), ("t.csv", "question\n")]
)
def test_an_empty_file_is_refused(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no request"):
        load(tmp_path, text, name)


@pytest.mark.parametrize("name", ["t.json", "t.txt", "t", "t.gz", "t.txt.gz", "t.jsonl.zip"])
def test_other_kinds_of_files_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a \.jsonl or \.csv file"):
        load(tmp_path, GOOD, name)


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.csv.gz"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load_traffic(tmp_path / name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_traffic(tmp_path / "t.csv")


def test_the_traffic_that_ships_is_labelled_and_judged() -> None:
    traffic = support_traffic()
    assert traffic.labelled
    assert traffic.judged
    assert [row.at for row in traffic.rows] == sorted(row.at for row in traffic.rows)
    assert all(row.messages[-1]["role"] == "user" for row in traffic.rows)
