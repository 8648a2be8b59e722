"""A head trained on one's own questions, taken only if it keeps as much as the shipped one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcost_plugins.compression.evidence import Evidence
from llmcost_plugins.compression.features import Vectors, features
from llmcost_plugins.compression.head import Head, shipped_head, train
from llmcost_plugins.compression.passages import Passage, Span
from llmcost_plugins.compression.reading import Reading, plain, read
from llmcost_plugins.compression.selection import choose
from llmcost_plugins.compression.settings import checked
from llmcost_plugins.embeddings import bundled_embedder, embedder_of
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import Plan
from llmcost_plugins.tokens import count_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LEAST = 20  # questions with something worth keeping
_HELD_OUT = 3  # one question in so many


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it: `head` is the new one if it was `adopted`, else the one it was compared with.

    The recalls are the shares of held-out questions of which something worth keeping was kept.
    """

    head: Head
    adopted: bool
    reason: str
    recall: float
    recall_before: float
    trained_on: int
    held_out: int


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    query: str
    readings: tuple[Reading, ...]
    matrix: "NDArray[np.float64]"
    labels: "NDArray[np.float64]"


def fit(
    queries: Sequence[str],
    passages: Sequence[Sequence[Passage]],
    *,
    answers: Sequence[Sequence[str]] | None = None,
    spans: Sequence[Sequence[tuple[int, Span]]] | None = None,
    ratio: float = 4.0,
    embedder: Any = None,
    against: Head | None = None,
    model: str = "",
) -> Plan[Fitted]:
    """Return the plan that trains a head and compares it on questions that it did not see.

    Args:
        queries: The questions.
        passages: What was retrieved for each.
        answers: For each question texts, any of which shows that a sentence is worth keeping; or
        spans: what of its passages was cited or clicked: a passage's place, and where in its text.
        ratio: The compression at which recall is compared.
        embedder: The one that the compressor will have.
        against: The head to compare with, the shipped one by default.
        model: Whose tokens are counted.

    Raises:
        ConfigurationError: The lists do not match, or fewer than 20 questions have something worth keeping.
    """
    wanted = _wanted(queries, passages, answers, spans)
    used = bundled_embedder() if embedder is None else embedder_of(embedder)
    rows: list[_Row] = []
    for query, given, marks in zip(queries, passages, wanted, strict=True):
        readings = tuple(
            read(passage, lambda text: count_text(text, model).tokens) for passage in checked(query, given)
        )
        labels = [label for n, reading in enumerate(readings) for label in _labels(reading, n, marks)]
        if any(labels):
            texts = [query, *(text for reading in readings for text in reading.to_embed())]
            vectors = (yield from used.embed(texts)).vectors
            rows.append(_row(query, readings, Vectors(vectors[0], vectors[1:]), labels))
    return _compared(rows, ratio, shipped_head() if against is None else against)


_Marks = tuple[Sequence[str], Sequence[tuple[int, Span]]]


def _wanted(queries: Any, passages: Any, answers: Any, spans: Any) -> list[_Marks]:
    if (answers is None) == (spans is None):
        raise ConfigurationError("give `answers` or `spans`, one of the two")
    marks = answers if spans is None else spans
    if not len(queries) == len(passages) == len(marks):
        raise ConfigurationError(
            f"{len(queries)} queries, {len(passages)} lists of passages, {len(marks)} of marks; expected as many"
        )
    return [(mark, ()) if spans is None else ((), mark) for mark in marks]


def _labels(reading: Reading, place: int, marks: _Marks) -> Iterator[bool]:
    answers = [plain(answer) for answer in marks[0] if answer.strip()]
    cited = [span for passage, span in marks[1] if passage == place]
    for unit, text in zip(reading.units, reading.plain, strict=True):
        overlaps = any(start < unit.end and unit.start < end for start, end in cited)
        yield overlaps or any(answer in text for answer in answers)


def _row(query: str, readings: tuple[Reading, ...], vectors: Vectors, labels: list[bool]) -> _Row:
    import numpy as np

    return _Row(query, readings, features(Evidence(query, readings), vectors), np.array(labels, dtype=np.float64))


def _compared(rows: list[_Row], ratio: float, before: Head) -> Fitted:
    if len(rows) < _LEAST:
        raise ConfigurationError(f"{len(rows)} questions have something worth keeping; it takes {_LEAST}")
    place = {query: n for n, query in enumerate(sorted({row.query for row in rows}))}
    seen = [row for row in rows if place[row.query] % _HELD_OUT]
    unseen = [row for row in rows if not place[row.query] % _HELD_OUT]
    if not seen:
        raise ConfigurationError("all questions are the same; training needs different ones")
    head = train([row.matrix for row in seen], [row.labels for row in seen], about=f"fitted on {len(seen)} questions")
    after, until_now = (_recall(unseen, one, ratio) for one in (head, before))
    adopted = after >= until_now
    reason = f"keeps {after:.1%} of held-out questions' sentences at {ratio:g}x, the one before {until_now:.1%}"
    return Fitted(head if adopted else before, adopted, reason, after, until_now, len(seen), len(unseen))


def _recall(rows: Sequence[_Row], head: Head, ratio: float) -> float:
    return sum(_is_kept(row, head, ratio) for row in rows) / len(rows)


def _is_kept(row: _Row, head: Head, ratio: float) -> bool:
    budget = int(sum(sum(reading.tokens) for reading in row.readings) / ratio)
    chosen = choose(row.readings, head.score(row.matrix), budget, [0] * len(row.readings))
    labels = iter(row.labels.tolist())
    wanted = [[next(labels) for _ in reading.units] for reading in row.readings]
    return any(wanted[passage][unit] for passage, units in enumerate(chosen) for unit in units)
