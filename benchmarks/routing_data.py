"""Recorded answers of a weak and a strong model as the records that routers learn from."""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcost_plugins.routing.records import Record
from llmcost_plugins.tokens import count_text

OUTPUT_PRICE = 4  # of a token that is written, in those of one that is read
_NOT_A_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Row:
    """One question with both answers; costs are in prices of a token that the weak model reads."""

    record: Record
    category: str
    weak_cost: float
    strong_cost: float


def question_of(prompt: str) -> str:
    """Return the letters and digits of a question without its options: the same question stands in several sets."""
    return _NOT_A_WORD.sub(" ", prompt.split("\nA. ")[0].casefold()).strip()


def pair_rows(data: Path, name: str, ratio: float) -> list[Row]:
    """Return the whole rows of a file of `routing/`; `ratio` is the price of the strong model in that of the weak."""
    return [_row(row, ratio) for row in _lines(data / "routing" / f"{name}.jsonl.gz") if _whole(row)]


def tokens(text: str) -> int:
    """Count the tokens of a text in o200k_base."""
    return count_text(text, "gpt-5.4").tokens


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _whole(row: dict[str, Any]) -> bool:
    return None not in (row["weak_answer"], row["strong_answer"], row["weak_correct"], row["strong_correct"])


def _row(row: dict[str, Any], ratio: float) -> Row:
    record = Record(
        messages=({"role": "user", "content": row["prompt"]},),
        weak=float(row["weak_correct"]),
        strong=float(row["strong_correct"]),
        weak_answer=row["weak_answer"],
        strong_answer=row["strong_answer"],
        group=question_of(row["prompt"]),
    )
    read = tokens(row["prompt"])
    weak, strong = (read + OUTPUT_PRICE * tokens(row[key]) for key in ("weak_answer", "strong_answer"))
    return Row(record, row["subject"], float(weak), ratio * strong)
