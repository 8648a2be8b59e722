"""The questions of the compression benchmark, read, embedded and labelled."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmcost_plugins.compression import Passage
from llmcost_plugins.compression.evidence import Evidence
from llmcost_plugins.compression.features import Vectors, features
from llmcost_plugins.compression.reading import Reading, plain, read
from llmcost_plugins.embeddings import LocalEmbedder, RememberingEmbedder
from llmcost_plugins.tokens import count_text

EMBEDDER = RememberingEmbedder(LocalEmbedder(), size=1_000_000)
YES_NO = {"yes", "no"}


@dataclass(frozen=True)
class Question:
    """A question, its passages, which of them are gold, and its answers."""

    source: str
    text: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    gold: tuple[bool, ...]

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        return tuple(read(passage, lambda text: count_text(text).tokens) for passage in self.passages)

    @cached_property
    def evidence(self) -> Evidence:
        return Evidence(self.text, self.readings)

    @cached_property
    def vectors(self) -> Vectors:
        texts = [text for reading in self.readings for text in reading.to_embed()]
        vectors = EMBEDDER.embed_now([self.text, *texts]).vectors
        return Vectors(vectors[0], vectors[1:])

    @cached_property
    def labels(self) -> NDArray[np.float64]:
        """Which units stand in a gold passage and have an answer."""
        has = [self.is_answered(unit.text) for reading in self.readings for unit in reading.units]
        return np.array(has, dtype=np.float64) * np.array(self.gold)[self.evidence.owner]

    def is_answered(self, text: str) -> bool:
        """Tell whether one of the answers stands in a text."""
        words = plain(text)
        return any(plain(answer) in words for answer in self.answers)


def matrix_of(question: Question) -> NDArray[np.float64]:
    return features(question.evidence, question.vectors)


def rows(data: Path, name: str) -> list[dict[str, Any]]:
    """Read a file of the set; a folder may name it with `_heldout` at the end."""
    folder = data / "compression"
    path = next((p for p in (folder / f"{name}{end}.jsonl.gz" for end in ("", "_heldout", "_dev")) if p.exists()), None)
    if path is None:
        raise SystemExit(f"{folder} has no {name}.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def questions(data: Path, name: str, limit: int | None = None) -> list[Question]:
    """Return a set's questions, but for yes and no and those whose answers stand in no passage."""
    listed = [_question(name, row) for row in rows(data, name) if not _is_yes_no(row["answers"])]
    answered = [one for one in listed if any(one.is_answered(passage.text) for passage in one.passages)]
    return answered[:limit]


def _question(name: str, row: dict[str, Any]) -> Question:
    given = row["passages"]
    passages = tuple(Passage(p["text"], id=str(n), title=p["title"]) for n, p in enumerate(given))
    return Question(name, row["question"], tuple(row["answers"]), passages, tuple(p["is_gold"] for p in given))


def _is_yes_no(answers: Sequence[str]) -> bool:
    return all(plain(answer).strip() in YES_NO for answer in answers)
