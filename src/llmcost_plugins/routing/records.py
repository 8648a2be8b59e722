"""What routers learn from: requests that a weak and a strong model have both answered."""

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from llmcost_plugins.errors import TrafficError
from llmcost_plugins.types import Message, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request, and how good the answers of a weak and a strong model to it were, from 0 to 1.

    Records of one `group` (one question in several wordings, or a subject) are never split between learning and
    judging. `weak_answer` and `strong_answer` are their texts where those are known, `weak_finish` how the weak one
    ended.
    """

    messages: tuple[Message, ...]
    weak: float
    strong: float
    weak_answer: str | None = None
    strong_answer: str | None = None
    weak_finish: str | None = "stop"
    group: str = ""

    @property
    def request(self) -> Request:
        """The request as a router sees it."""
        return Request(self.messages)

    @property
    def gain(self) -> float:
        """What the strong model's answer was better by."""
        return self.strong - self.weak


def read_records(path: str | Path) -> list[Record]:
    """Read records from a file of JSON lines, plain or gzipped.

    A line has "prompt" (a text) or "messages", and how good each model's answer was: "weak_quality" (0 to 1),
    "weak_correct" (true or false) or "weak_score" (1 to 10), and the same for "strong". It may have "weak_answer",
    "strong_answer", "weak_finish", "group" (else "subject" is taken) and "earlier_turns" (the user's, oldest first).

    Raises:
        TrafficError: A line is not of that form; the error says which, and what was expected.
    """
    path = Path(path)
    records: list[Record] = []
    number = 0
    with _opened(path, "rt") as file:
        try:
            for number, line in enumerate(file, 1):
                records += [_record(line, str(path), number)] if line.strip() else []
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise TrafficError(str(path), number + 1, "expected JSON lines in UTF-8") from error
    return records


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Write records as JSON lines that `read_records` takes back; a name ending in .gz is gzipped."""
    with _opened(Path(path), "wt") as file:
        for record in records:
            file.write(json.dumps(_fields(record), ensure_ascii=False) + "\n")


def _opened(path: Path, mode: str) -> IO[str]:
    return gzip.open(path, mode, encoding="utf-8") if path.suffix == ".gz" else path.open(mode, encoding="utf-8")  # type: ignore[return-value]


def _fields(record: Record) -> dict[str, Any]:
    return {
        "messages": [dict(message) for message in record.messages],
        "weak_quality": record.weak,
        "strong_quality": record.strong,
        "weak_answer": record.weak_answer,
        "strong_answer": record.strong_answer,
        "weak_finish": record.weak_finish,
        "group": record.group,
    }


def _record(line: str, path: str, number: int) -> Record:
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("expected an object")
        return Record(
            messages=_messages(fields),
            weak=_quality(fields, "weak"),
            strong=_quality(fields, "strong"),
            weak_answer=_text(fields, "weak_answer"),
            strong_answer=_text(fields, "strong_answer"),
            weak_finish=_text(fields, "weak_finish") if "weak_finish" in fields else "stop",
            group=_text(fields, "group") or _text(fields, "subject") or "",
        )
    except json.JSONDecodeError as error:
        raise TrafficError(path, number, f"expected JSON: {error}") from error
    except ValueError as error:
        raise TrafficError(path, number, str(error)) from error


def _messages(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    if "messages" in fields:
        messages = fields["messages"]
        if not (isinstance(messages, list) and messages and all(_is_message(message) for message in messages)):
            raise ValueError('expected "messages" to be a list of objects with "role" and "content"')
        return tuple(messages)
    earlier = fields.get("earlier_turns") or []
    if not isinstance(earlier, list):
        raise ValueError(f'expected "earlier_turns" to be a list of texts, found {earlier!r}')
    turns = [*earlier, fields.get("prompt")]
    if not all(isinstance(turn, str) for turn in turns):
        raise ValueError('expected "messages", or a text as "prompt"')
    return tuple({"role": "user", "content": turn} for turn in turns)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message


def _quality(fields: Mapping[str, Any], model: str) -> float:
    for name, low, high in ((f"{model}_quality", 0, 1), (f"{model}_correct", 0, 1), (f"{model}_score", 1, 10)):
        value = fields.get(name)
        if value is not None:
            if not (isinstance(value, int | float) and low <= value <= high):
                raise ValueError(f'expected "{name}" from {low} to {high}, found {value!r}')
            return (float(value) - low) / (high - low)
    raise ValueError(f'expected "{model}_quality" from 0 to 1, or "{model}_correct", or "{model}_score" from 1 to 10')


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if not isinstance(value, str | None):
        raise ValueError(f'expected "{name}" to be a text, found {value!r}')
    return value
