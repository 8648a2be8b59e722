"""Finding the likeness from which a stored answer may be given, with a bound on how often it is the wrong one."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from html import escape
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, Self

from llmcost_plugins.cache.bounds import lower_bound, upper_bound
from llmcost_plugins.cache.policy import category_of
from llmcost_plugins.cache.semantic import Semantic
from llmcost_plugins.cache.vetoes import VETOES, Veto
from llmcost_plugins.embeddings import Embedder, RememberingEmbedder, bundled_embedder, embedder_of
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import drive
from llmcost_plugins.stores import Memory
from llmcost_plugins.types import Entry

_SHIPPED = Path(__file__).parent / "data" / "calibration.json"
_ENOUGH = 300  # examples of a category, from which it gets a threshold of its own
_GRID = tuple(round(0.60 + 0.01 * n, 2) for n in range(51))
_NOTHING = 2.0  # a threshold that no likeness reaches
_ALL = "all"


class LabelledPair(NamedTuple):
    """Two questions, and whether the answer to the stored one also answers the one that is asked."""

    asked: str
    stored: str
    same: bool


class LabelledQuestion(NamedTuple):
    """A question of a stream, in the order of arrival; those with the same label share their answer."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold does: the shares of requests that are answered, and wrongly, with an upper bound on those.

    `clumping` is how many wrong answers come together: two intents that are taken for one another are so again and
    again. The bound counts as many wrong answers, and requests, as would tell as much if they came one by one (Kish's
    design effect, with the label of the question as the cluster).
    """

    threshold: float
    requests: int
    hits: int
    wrong: int
    confidence: float = 0.95
    clumping: float = 1.0

    @property
    def hit_rate(self) -> float:
        """The share of requests that are answered from the cache."""
        return self.hits / self.requests if self.requests else 0.0

    @property
    def error(self) -> float:
        """The share of requests that are answered wrongly."""
        return self.wrong / self.requests if self.requests else 0.0

    @property
    def error_bound(self) -> float:
        """What the share of wrong answers does not exceed, at the confidence."""
        wrong, requests = ceil(self.wrong / self.clumping), int(self.requests / self.clumping)
        return upper_bound(wrong, requests, self.confidence)

    @property
    def precision_bound(self) -> float:
        """What the share of right answers among the hits does not fall below, at the confidence."""
        return lower_bound(self.hits - self.wrong, self.hits, self.confidence) if self.hits else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class Calibration:
    """Thresholds by category for one embedder, and the curves they were read from.

    A category without a threshold of its own uses that of all questions together.
    """

    embedder: str
    max_error: float
    confidence: float
    thresholds: Mapping[str, float]
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: "Calibration | str | Path") -> "Calibration":
        """Return the calibration, read from its file where a path is given."""
        return given if isinstance(given, Calibration) else cls.load(given)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a calibration that `save` wrote."""
        try:
            return cls._from(json.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"no calibration at {path}; make one with: llmcost calibrate PAIRS.jsonl"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigurationError(f"{path} holds no calibration: {type(error).__name__}: {error}") from error

    @classmethod
    def _from(cls, content: Mapping[str, Any]) -> Self:
        curves = {name: tuple(Point(**point) for point in points) for name, points in content["curves"].items()}
        thresholds = {name: float(threshold) for name, threshold in content["thresholds"].items()}
        if _ALL not in thresholds:
            raise ValueError(f"no threshold for {_ALL!r}")
        return cls(str(content["embedder"]), content["max_error"], content["confidence"], thresholds, curves)

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON."""
        curves = {name: [asdict(point) for point in points] for name, points in self.curves.items()}
        content = {
            "embedder": self.embedder,
            "max_error": self.max_error,
            "confidence": self.confidence,
            "thresholds": dict(self.thresholds),
            "curves": curves,
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def threshold(self, category: str) -> float:
        """Return the likeness from which a question of the category may be answered from the cache."""
        return self.thresholds.get(category, self.thresholds[_ALL])

    def point(self, category: str = _ALL) -> Point | None:
        """Return what the category's threshold did on the examples, None where no curve is at hand."""
        threshold = self.threshold(category)
        curve = self.curves.get(category) or self.curves.get(_ALL) or ()
        return min(curve, key=lambda point: abs(point.threshold - threshold), default=None)

    def __repr__(self) -> str:
        return f"Calibration({self.embedder!r}, max_error={self.max_error}, thresholds={dict(self.thresholds)})"

    def __str__(self) -> str:
        head = f"calibration of {self.embedder}: at most {self.max_error:.1%} wrong answers of all requests"
        return "\n".join([head, *map(self._described, self.thresholds)])

    def _described(self, category: str) -> str:
        threshold, point = self.threshold(category), self.point(category)
        if threshold >= _NOTHING:
            return f"  {category:<16} never: no threshold keeps the bound; more examples may"
        if point is None:
            return f"  {category:<16} from {threshold:.2f}"
        return (
            f"  {category:<16} from {threshold:.3g}: {point.hit_rate:6.1%} hits, {point.error:.2%} wrong "
            f"(at most {point.error_bound:.2%} with {self.confidence:.0%} confidence, {point.requests:,} requests)"
        )

    def _repr_html_(self) -> str:
        from llmcost_plugins.cache.plot import curve_svg

        return f"<pre>{escape(str(self))}</pre>{curve_svg(self)}"


def calibrate(
    examples: Iterable[LabelledPair] | Iterable[LabelledQuestion],
    max_error: float = 0.01,
    *,
    confidence: float = 0.99,
    embedder: Any = None,
    vetoes: Sequence[Veto] = VETOES,
    classify: Callable[[str], str] = category_of,
) -> Calibration:
    """Return the lowest thresholds at which wrong answers are, with confidence, at most `max_error` of all requests.

    Pairs are requests beside what the cache found nearest. Labelled questions are replayed as a stream into an empty
    cache, once for each threshold tried: that is what a cache meets, and the better of the two where there are labels.
    The bound is that of Clopper and Pearson on the wrong answers among all requests. It holds for traffic like the
    examples: take at least as many as the cache will hold.

    Args:
        examples: `LabelledPair`s or `LabelledQuestion`s, or tuples of their fields.
        max_error: The share of requests that may be answered wrongly.
        confidence: With which the bound holds.
        embedder: As for `Cache`.
        vetoes: As for `Cache`.
        classify: Names the category of a question; a category with 300 examples gets a threshold of its own.

    Raises:
        ConfigurationError: There are no examples, or settings that cannot work.
    """
    if not (0 < max_error < 1 and 0 < confidence < 1):
        raise ConfigurationError("`max_error` and `confidence` are shares; expected numbers between 0 and 1")
    semantic = Semantic(RememberingEmbedder(_embedder(embedder), size=1_000_000), vetoes)
    groups = _by_category(_examples(examples), classify)
    curves = {name: _curve(semantic, group, max_error, confidence) for name, group in groups.items()}
    thresholds = {name: _lowest(curve, max_error) for name, curve in curves.items()}
    return Calibration(semantic.embedder.id, max_error, confidence, thresholds, curves)


@cache
def default_calibration(embedder: str) -> Calibration | None:
    """Return the calibration that comes with an embedder, None where none does."""
    shipped = Calibration.load(_SHIPPED)
    return shipped if shipped.embedder == embedder else None


def replay(semantic: Semantic, questions: Sequence[LabelledQuestion], threshold: float) -> tuple[int, Counter[str]]:
    """Return the hits of a stream into an empty cache, and the wrong ones among them by label."""
    entries = Memory(max_entries=len(questions) + 1).entries()
    hits, wrong = 0, Counter[str]()
    for number, question in enumerate(questions):
        vector = drive(semantic.vector(question.text))
        if vector is None:
            continue
        matches = drive(semantic.matches(entries, "stream", vector, question.text, threshold, 0.0))
        if matches and matches[-1].verdict == "accepted":
            hits += 1
            wrong[question.label] += questions[int(matches[-1].neighbour.key)].label != question.label
        else:
            drive(entries.put(_entry(str(number), question.text, vector)))
    return hits, +wrong


def _embedder(given: Any) -> Embedder:
    return bundled_embedder() if given is None else embedder_of(given)


def _by_category(examples: list[Any], classify: Callable[[str], str]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for example in examples:
        groups[classify(example[0])].append(example)
    large = {name: group for name, group in sorted(groups.items()) if len(group) >= _ENOUGH}
    return {_ALL: examples, **(large if len(groups) > 1 else {})}


def _examples(rows: Iterable[Any]) -> list[Any]:
    examples = [_example(row) for row in rows]
    if not examples:
        raise ConfigurationError("no examples to calibrate on; pass LabelledPairs or LabelledQuestions")
    if len({type(example) for example in examples}) > 1:
        raise ConfigurationError("the examples are pairs and questions mixed; pass those of one kind")
    return examples


def _example(row: Any) -> LabelledPair | LabelledQuestion:
    if isinstance(row, LabelledPair | LabelledQuestion):
        return row
    if isinstance(row, tuple | list) and len(row) in (2, 3):
        return LabelledPair(row[0], row[1], bool(row[2])) if len(row) == 3 else LabelledQuestion(*row)
    raise ConfigurationError(f"{row!r} is no example; expected a LabelledPair or a LabelledQuestion")


def _curve(semantic: Semantic, examples: Sequence[Any], max_error: float, confidence: float) -> tuple[Point, ...]:
    if isinstance(examples[0], LabelledPair):
        return _curve_of_pairs(semantic, examples, confidence)
    coarse = [_point_of_stream(semantic, examples, threshold, confidence) for threshold in _GRID[::2]]
    lowest = _lowest(coarse, max_error)
    steps = [round(lowest - step, 3) for step in (0.005, 0.01, 0.015) if lowest < _NOTHING]
    fine = [_point_of_stream(semantic, examples, threshold, confidence) for threshold in steps]
    return tuple(sorted([*coarse, *fine], key=lambda point: point.threshold))


def _point_of_stream(
    semantic: Semantic, questions: Sequence[LabelledQuestion], threshold: float, confidence: float
) -> Point:
    hits, wrong = replay(semantic, questions, threshold)
    clumping = sum(count**2 for count in wrong.values()) / wrong.total() if wrong else 1.0
    return Point(threshold, len(questions), hits, wrong.total(), confidence, clumping)


def _curve_of_pairs(semantic: Semantic, pairs: Sequence[LabelledPair], confidence: float) -> tuple[Point, ...]:
    judged = list(_judged(semantic, pairs))
    return tuple(
        Point(
            threshold,
            len(pairs),
            sum(likeness >= threshold for likeness, _ in judged),
            sum(likeness >= threshold and not same for likeness, same in judged),
            confidence,
        )
        for threshold in _GRID
    )


def _judged(semantic: Semantic, pairs: Sequence[LabelledPair]) -> Iterator[tuple[float, bool]]:
    """Yield the likeness of each pair that no veto refuses; all stored questions together are the neighbourhood."""
    entries = Memory(max_entries=len(pairs) + 1).entries()
    for stored in dict.fromkeys(pair.stored for pair in pairs):
        vector = drive(semantic.vector(stored))
        if vector is not None:
            drive(entries.put(_entry(stored, stored, vector)))
    for pair in pairs:
        likeness = drive(semantic.likeness_of(entries, "stream", pair.asked, pair.stored))
        if likeness is not None:
            yield likeness, pair.same


def _entry(key: str, question: str, vector: bytes) -> Entry:
    return Entry(key, b"", 0.0, question=question, space="stream", vector=vector)


def _lowest(curve: Sequence[Point], max_error: float) -> float:
    """Return the lowest threshold from which on the bound holds; one that nothing reaches where it never does."""
    lowest = _NOTHING
    for point in sorted(curve, key=lambda point: -point.threshold):
        if point.error_bound > max_error:
            break
        lowest = point.threshold
    return lowest
