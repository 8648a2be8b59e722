"""Traffic to replay: requests in the order in which they arrived, with what is known about their answers."""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from llmcost_plugins.errors import ConfigurationError, TrafficError
from llmcost_plugins.types import Message

_ROLES = frozenset({"system", "user", "assistant"})
_LABELS = ("answer_id", "category", "intent", "label")
_QUESTIONS = ("question", "text", "prompt", "query")


@dataclass(frozen=True, slots=True)
class Row:
    """One request. Requests with the same `answer_id` may share an answer; None where that is not known.

    `at` is seconds since the start. `weak_right` says whether the small model's answer is right, None where unknown.
    """

    id: str
    at: float
    messages: tuple[Message, ...]
    kind: str = ""
    tenant: str | None = None
    user: str | None = None
    feature: str | None = None
    answer_id: str | None = None
    weak_right: bool | None = None
    weak_answer: str | None = None
    strong_answer: str | None = None

    @property
    def question(self) -> str:
        """The last message's text."""
        return str(self.messages[-1]["content"])


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rows in order of arrival, and where they came from."""

    name: str
    rows: tuple[Row, ...]

    @property
    def labelled(self) -> bool:
        """Whether every row says which other rows may share its answer."""
        return all(row.answer_id is not None for row in self.rows)

    @property
    def judged(self) -> bool:
        """Whether every row says if the small model's answer is right."""
        return all(row.weak_right is not None for row in self.rows)


def support_traffic() -> Traffic:
    """Return the traffic that ships with the package: two days of a support desk, labelled."""
    folder = files("llmcost_plugins.replay") / "data"
    prompts = json.loads((folder / "support_prompts.json").read_text("utf-8"))
    with (folder / "support_traffic.jsonl").open(encoding="utf-8") as lines:
        return Traffic("support desk", tuple(_read_rows("support_traffic.jsonl", lines, partial(_row, prompts))))


def load_traffic(path: str | Path) -> Traffic:
    """Read traffic from a `.jsonl` or `.csv` file, which may be gzipped.

    A line needs `messages` or a question (`question`, `text`, `prompt` or `query`). An `answer_id` (or `category`,
    `intent`, `label`) makes wrong hits measurable: a hit is right where both questions have the same. `weak_right`,
    `weak_answer` and `strong_answer` make quality measurable. Headings of a CSV file may be in any case.

    Raises:
        TrafficError: A line is broken; names file, line and what was expected. Nothing is returned then.
        ConfigurationError: The file is missing, empty, or of another kind.
    """
    path = Path(path)
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kind.removesuffix(".gz") not in (".jsonl", ".csv"):
        raise ConfigurationError(f"{path}: expected a .jsonl or .csv file (or one of these with .gz)")
    try:
        with _open(path) as lines:
            reader = _csv_rows if kind.startswith(".csv") else partial(_read_rows, make=partial(_row, {}))
            rows = tuple(reader(str(path), lines))
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise ConfigurationError(f"{path} holds no request")
    return Traffic(path.name, rows)


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _csv_rows(name: str, lines: IO[str]) -> Iterator[Row]:
    reader = csv.DictReader(lines, strict=True)
    try:
        reader.fieldnames = [heading.strip().lower() for heading in reader.fieldnames or ()]
        for record in reader:
            yield _row({}, record, name, reader.line_num, reader.line_num - 1)
    except csv.Error as error:
        raise TrafficError(name, reader.line_num + 1, f"not a line of CSV: {error}") from error


def _read_rows(name: str, lines: IO[str], make: Callable[..., Row]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise TrafficError(name, number, f"expected one JSON object a line; {error}") from error
        if not isinstance(record, dict):
            raise TrafficError(name, number, f"expected a JSON object, found {type(record).__name__}")
        yield make(record, name, number, number)


def _row(prompts: Mapping[str, Any], record: Mapping[str, Any], name: str, number: int, order: int) -> Row:
    fail = partial(TrafficError, name, number)
    text = partial(_text, record, fail)
    system = text("system")
    before: list[Message] = []
    if system is not None:
        if prompts and system not in prompts:
            raise fail(f"`system` is {system!r}; expected one of {sorted(prompts)}")
        before = [{"role": "system", "content": prompts.get(system, system)}]
    weak_right = record.get("weak_right")
    return Row(
        id=str(record.get("id") or order),
        at=_number(record.get("at"), float(order), fail),
        messages=(*before, *_messages(record, fail)),
        kind=str(record.get("kind") or ""),
        tenant=text("tenant"),
        user=text("user"),
        feature=text("feature"),
        answer_id=next((str(record[label]) for label in _LABELS if record.get(label) not in (None, "")), None),
        weak_right=_flag(weak_right, fail),
        weak_answer=text("weak_answer"),
        strong_answer=text("strong_answer"),
    )


def _messages(record: Mapping[str, Any], fail: Callable[[str], TrafficError]) -> list[Message]:
    messages = record.get("messages")
    if messages is None:
        question = next((record[key] for key in _QUESTIONS if record.get(key)), None)
        if not isinstance(question, str):
            raise fail(f"expected `messages` or a question under one of {', '.join(_QUESTIONS)}")
        return [{"role": "user", "content": question}]
    if not isinstance(messages, list) or not messages:
        raise fail("`messages` must be a list of at least one message")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise fail("each of `messages` needs a `role` of system, user or assistant")
        if not isinstance(message.get("content"), str):
            raise fail("each of `messages` needs a `content` of text")
    if messages[-1]["role"] != "user":
        raise fail("the last of `messages` must be the user's")
    return messages


def _number(value: Any, default: float, fail: Callable[[str], TrafficError]) -> float:
    try:
        seconds = default if value in (None, "") else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise fail(f"`at` is {value!r}; expected seconds since the start")
    return seconds


def _text(record: Mapping[str, Any], fail: Callable[[str], TrafficError], name: str) -> str | None:
    """Return a field of text; an empty cell says nothing, but an answer may be empty."""
    value = record.get(name)
    if value is None or (value == "" and not (name.endswith("_answer") and "messages" in record)):
        return None
    if not isinstance(value, str):
        raise fail(f"`{name}` is {value!r}; expected text")
    return value


def _flag(value: Any, fail: Callable[[str], TrafficError]) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "false": False, "0": False, "": None}
    if str(value).lower() not in known:
        raise fail(f"`weak_right` is {value!r}; expected true or false")
    return known[str(value).lower()]
