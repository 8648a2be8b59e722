"""Learning which requests gain from the strong model, and whether that was worth it."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmcost_plugins.embeddings import Embedder
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing import evaluation
from llmcost_plugins.routing.evaluation import Floats, Interval, Point
from llmcost_plugins.routing.features import read
from llmcost_plugins.routing.gain import GainScorer, Ranks, Words, Workload
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.rules import Choice
from llmcost_plugins.routing.terms import TermCounts, Terms
from llmcost_plugins.routing.vectors import Vectors, embed, fit_vectors
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Request

_FEWEST_RECORDS = 100
_FEWEST_GROUPS = 5
_FEWEST_OF_A_KIND = 30
_FOLDS = 5
_EQUAL_SAY = 0.5
_ABSTAINED = 0.5  # neither hard nor easy
_DRAWS = 2_000
_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How the learned scorer did on records that it had not seen, beside random and prompt length.

    `why_not` says why it was not adopted. `point` is what the threshold came to on the records held out; its target is
    honoured on as many new ones with the confidence asked for.
    """

    records: int
    groups: int
    apgr: Interval
    length_apgr: float
    over_length: Interval
    why_not: str | None
    point: Point

    def __str__(self) -> str:
        verdict = "adopted" if self.why_not is None else f"not adopted: {self.why_not}"
        point = f"{self.point.strong_share:.0%} strong calls keep {self.point.kept:.1%} of always strong's quality"
        return (
            f"{verdict} ({self.records} records in {self.groups} groups, judged on groups held out)\n"
            f"  APGR           {self.apgr}\n"
            f"  prompt length  {self.length_apgr:.3f}, random 0.500\n"
            f"  over length    {self.over_length}\n"
            f"  threshold      {self.point.threshold:.2f}: {point}"
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `fit` learned: a scorer for a router, where its difficulty begins to be worth it, and the evidence.

    `scorer` is None where learning did not pay: every request is left to the router's rules.
    """

    scorer: GainScorer | None
    threshold: float
    report: Report

    @property
    def quick(self) -> bool:
        """Whether it decides within microseconds, without an embedding."""
        return self.scorer is None or self.scorer.quick

    def __call__(self, request: Request) -> Choice | None:
        """Return how hard the request is and why, or None where that cannot be told.

        0.5 is where the threshold lies, so that the router's own 0.5 suits these judgements and those of its rules.
        """
        choice = None if self.scorer is None else self.scorer(request)
        return None if choice is None else Choice(_around(self.threshold, choice.difficulty), choice.reason)

    @property
    def id(self) -> str:
        """Names what it decides by, for cached answers to be found again."""
        return "abstains" if self.scorer is None else f"{self.scorer.id}-{self.threshold}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything in plain JSON; `from_dict` takes it back exactly."""
        scorer = self.scorer and self.scorer.to_dict()
        return {"scorer": scorer, "threshold": self.threshold, "report": asdict(self.report)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], embedder: Embedder | None = None) -> "Fitted":
        """Take what `to_dict` gave; the embedder is needed where it learned with one.

        Raises:
            ConfigurationError: It is from another version of the package, damaged, or learned with another embedder.
        """
        try:
            report = {**data["report"], "point": Point(**data["report"]["point"])}
            report |= {name: Interval(**report[name]) for name in ("apgr", "over_length")}
            scorer = data["scorer"] and GainScorer.from_dict(data["scorer"], embedder)
            return cls(scorer, data["threshold"], Report(**report))
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"not a saved fit ({error!r}): fit it again") from error


def fit(
    records: Sequence[Record],
    *,
    keep: float = 0.95,
    strong_share: float | None = None,
    confidence: float = 0.95,
    embedder: Embedder | None = None,
    seed: int = 0,
) -> Fitted:
    """Learn to rank requests by what they gain from the strong model.

    The scorer is adopted only if it beats random and prompt length on groups held out, each with 97.5 % confidence
    (a paired bootstrap over groups); otherwise the result abstains and its report says why. Give records of one subject
    the same `group` where the traffic to come has other subjects, and of one question where it has other questions;
    records without a group are grouped by their text.

    Args:
        records: Requests that both models answered, with how good the answers were.
        keep: The share of always strong's mean quality to keep; it sets the threshold.
        strong_share: Set the threshold by this share of strong calls instead.
        confidence: With which the threshold honours that on as many new requests.
        embedder: Learn from embeddings as well; each decision then needs one, which the cache's embedder may remember.
        seed: For folds and bootstrap.

    Raises:
        ConfigurationError: Too few records or groups, a quality that is not from 0 to 1, or no gap between the
            models.
    """
    _check_share("keep", keep)
    _check_share("confidence", confidence)
    lessons = _Lessons(records, embedder)
    scores = lessons.held_out(seed)
    apgr = lessons.interval(scores, seed)
    over_length = lessons.interval(scores, seed, against=lessons.lengths)
    threshold = lessons.threshold(scores, keep, strong_share, confidence, seed)
    why_not = _why_not(apgr, over_length)
    report = Report(
        records=len(records),
        groups=len(set(lessons.groups)),
        apgr=apgr,
        length_apgr=evaluation.apgr(lessons.lengths, lessons.weak, lessons.strong),
        over_length=over_length,
        why_not=why_not,
        point=evaluation.at(threshold, scores, lessons.weak, lessons.strong),
    )
    return Fitted(None if why_not else lessons.learn(seed=seed), threshold, report)


def train(records: Sequence[Record], *, embedder: Embedder | None = None, seed: int = 0) -> GainScorer:
    """Learn a scorer as `fit` does, without asking whether it beats anything."""
    return _Lessons(records, embedder).learn(seed=seed)


def held_out_scores(records: Sequence[Record], *, embedder: Embedder | None = None, seed: int = 0) -> Floats:
    """Return each record's difficulty as judged by a scorer that learned from other groups; 0.5 where it abstains."""
    return _Lessons(records, embedder).held_out(seed)


class _Lessons:
    """Records, read and counted once."""

    def __init__(self, records: Sequence[Record], embedder: Embedder | None) -> None:
        _check(records)
        self._embedder = embedder
        self._vectors = None if embedder is None else embed(embedder, [record.request for record in records])
        self._readings = [read(record.request) for record in records]
        self._values = np.array([reading.values for reading in self._readings])
        self._terms = TermCounts([reading.words for reading in self._readings])
        self.weak = np.array([record.weak for record in records], np.float64)
        self.strong = np.array([record.strong for record in records], np.float64)
        self.lengths = np.array([evaluation.word_count(record.request) for record in records])
        self.groups = [record.group or _text(record) for record in records]
        evaluation.curve(self.lengths, self.weak, self.strong)  # raises where there is no gap
        if len(set(self.groups)) < _FEWEST_GROUPS:
            raise ConfigurationError(
                f"the records are in {len(set(self.groups))} groups; give `group` at least {_FEWEST_GROUPS} values, "
                "or leave it empty"
            )

    def learn(self, used: NDArray[np.bool_] | None = None, *, seed: int) -> GainScorer:
        """Learn from the records in use."""
        used = np.ones(len(self.weak), bool) if used is None else used
        gain = self.strong - self.weak
        workload = Workload.of(self._values[used])
        expected = self._expected(gain, used, seed)
        sums = np.array([workload.score(workload.parts(values)) for values in self._values[used]])
        mean, deviation = float(expected.mean()), float(expected.std()) or 1.0
        standard = (expected - mean) / deviation
        say = _say(sums, standard, gain[used])
        ranks = Ranks.of((1 - say) * sums + say * standard)
        kinds = Counter(reading.kind for reading, is_used in zip(self._readings, used, strict=True) if is_used)
        learned = tuple(sorted(kind for kind, count in kinds.items() if count >= _FEWEST_OF_A_KIND))
        terms, vectors, _ = self._model(gain, used)
        words = Words(terms, vectors, say, mean, deviation, ranks)
        return GainScorer(learned, workload, words, embedder=self._embedder)

    def held_out(self, seed: int) -> Floats:
        """Return each record's difficulty as judged by a scorer that learned from other groups."""
        fold = evaluation.folds(self.groups, _FOLDS, seed)
        scores = np.zeros(len(fold))
        for number in range(fold.max() + 1):
            scorer = self.learn(fold != number, seed=seed)
            for row in np.flatnonzero(fold == number):
                vector = None if self._vectors is None else self._vectors[row]
                choice = scorer.judge(self._readings[row], vector)
                scores[row] = _ABSTAINED if choice is None else choice.difficulty
        return scores

    def interval(self, scores: Floats, seed: int, against: Floats | None = None) -> Interval:
        """Return the bootstrap interval of an APGR, or of the difference of two."""
        return evaluation.interval(scores, self.weak, self.strong, self.groups, against=against, seed=seed)

    def threshold(self, scores: Floats, keep: float, share: float | None, confidence: float, seed: int) -> float:
        """Return the highest threshold that honours the target, where all lower ones do too."""
        steps = np.arange(_STEPS + 1) / _STEPS
        sent = scores[:, None] >= steps
        if share is None:
            quality = np.where(sent, self.strong[:, None], self.weak[:, None])
            spare = quality - keep * self.strong[:, None]
            return float(steps[_last_safe(spare, self.groups, confidence, seed)])
        _check_share("strong_share", share)
        unsent = share - sent[:, ::-1].astype(np.float64)
        return float(steps[::-1][_last_safe(unsent, self.groups, confidence, seed)])

    def _expected(self, gain: Floats, used: NDArray[np.bool_], seed: int) -> Floats:
        """Return what models of words expect of the records in use, each learned from other groups of them."""
        rows = np.flatnonzero(used)
        fold = evaluation.folds([self.groups[row] for row in rows], _FOLDS, seed)
        expected = np.zeros(len(rows))
        for number in range(fold.max() + 1):
            others = np.zeros(len(used), bool)
            others[rows[fold != number]] = True
            expected[fold == number] = self._model(gain, others)[2][rows[fold == number]]
        return expected

    def _model(self, gain: Floats, used: NDArray[np.bool_]) -> tuple[Terms, Vectors | None, Floats]:
        """Learn from the records in use what words and vectors say; return what they expect of every record."""
        terms, by_words = self._terms.fit(gain, used)
        if self._embedder is None or self._vectors is None:
            return terms, None, by_words
        vectors, by_vectors = fit_vectors(self._embedder.id, self._vectors, gain, used)
        return terms, vectors, (by_words + by_vectors) / 2


def _say(workload: Floats, words: Floats, gain: Floats) -> float:
    """Return the say of words beside the workload: midway between an equal one and that of least squares.

    Least squares alone trusts words too much where the subjects to come differ more than those held out.
    """
    both = np.stack([workload, words], axis=1)
    shares = np.maximum(np.linalg.lstsq(both, gain - gain.mean(), rcond=None)[0], 0.0)
    total = float(shares.sum())
    return (_EQUAL_SAY + (float(shares[1]) / total if total else _EQUAL_SAY)) / 2


def _last_safe(spare: Floats, groups: Sequence[Hashable], confidence: float, seed: int) -> int:
    """Return the last column up to which every column's mean will stay above 0, with the confidence.

    The bound is for as many new records, which vary as much as these do: hence the root of two. Testing from the safe
    end and stopping at the first failure needs no correction for testing many times.
    """
    member = evaluation.codes(groups)
    sums = np.stack([np.bincount(member, column) for column in spare.T], axis=1)
    means = evaluation.resample(groups, _DRAWS, seed) @ sums
    centre, low = means.mean(axis=0), np.quantile(means, 1 - confidence, axis=0)
    safe = centre - sqrt(2) * (centre - low) >= 0
    return len(safe) - 1 if safe.all() else max(0, int(np.argmin(safe)) - 1)


def _around(threshold: float, difficulty: float) -> float:
    """Move the threshold to 0.5, 0 and 1 staying where they are."""
    if difficulty < threshold:
        return difficulty / threshold / 2
    return 1 - (1 - difficulty) / (1 - threshold) / 2 if threshold < 1 else 1.0


def _why_not(apgr: Interval, over_length: Interval) -> str | None:
    if not apgr.low > 0.5:
        return f"not better than random on groups held out, APGR {apgr}"
    if not over_length.low > 0:
        return f"not better than prompt length on groups held out, by {over_length}"
    return None


def _check(records: Sequence[Record]) -> None:
    if len(records) < _FEWEST_RECORDS:
        raise ConfigurationError(f"{len(records)} records are too few to learn from; give at least {_FEWEST_RECORDS}")
    for number, record in enumerate(records):
        for name, quality in (("weak", record.weak), ("strong", record.strong)):
            if not 0 <= quality <= 1:
                raise ConfigurationError(f"`{name}` of record {number} is {quality!r}; expected 0 to 1")


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ConfigurationError(f"`{name}` is {value!r}; expected more than 0 and at most 1")


def _text(record: Record) -> str:
    return "\n".join(map(message_text, record.messages))
