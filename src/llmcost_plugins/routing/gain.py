"""How much better a strong model would answer than a weak one, judged before either is asked."""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from heapq import nlargest
from importlib.resources import files
from math import exp
from typing import Any

import numpy as np

from llmcost_plugins.embeddings import Embedder
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing.evaluation import Floats
from llmcost_plugins.routing.features import CLOSED, FEATURES, Reading, read
from llmcost_plugins.routing.rules import Choice
from llmcost_plugins.routing.terms import Terms
from llmcost_plugins.routing.vectors import Vectors, embed
from llmcost_plugins.types import Request

_VERSION = 1
_LIMIT = 3.0  # deviations; what lies further out counts no more
_QUANTILES = 50
_NAMED_PARTS = 3


@dataclass(frozen=True, slots=True)
class Ranks:
    """Turns a score into the share of the scores learned from that are lower, and rises beyond them all as well."""

    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, scores: Floats) -> "Ranks":
        """Take the quantiles of the scores."""
        return cls(tuple(np.quantile(scores, (np.arange(_QUANTILES) + 0.5) / _QUANTILES).tolist()))

    def __call__(self, score: float) -> float:
        """Return the share, from 0 to 1."""
        marks = self.quantiles
        width = marks[-1] - marks[0] or 1.0
        if score < marks[0]:
            return exp((score - marks[0]) / width) / (2 * len(marks))
        if score >= marks[-1]:
            return 1 - exp((marks[-1] - score) / width) / (2 * len(marks))
        at = bisect_right(marks, score)
        return (at - 0.5 + (score - marks[at - 1]) / (marks[at] - marks[at - 1])) / len(marks)


@dataclass(frozen=True, slots=True)
class Workload:
    """Adds up what there is to keep in mind: all counts, standardised, each with weight 1.

    Equal weights with signs known beforehand hold up where the requests to come differ from those learned from
    (R. Dawes, "The robust beauty of improper linear models", 1979). Counts that never varied have scale 0.
    """

    means: tuple[float, ...]
    scales: tuple[float, ...]
    centre: float
    spread: float
    ranks: Ranks

    @classmethod
    def of(cls, values: Floats) -> "Workload":
        """Take the scales from the features of many requests, one row each."""
        means, deviations = values.mean(axis=0), values.std(axis=0)
        scales = np.divide(1.0, deviations, out=np.zeros_like(deviations), where=deviations > 1e-9)
        sums = np.clip((values - means) * scales, -_LIMIT, _LIMIT).sum(axis=1)
        centre, spread = float(sums.mean()), float(sums.std()) or 1.0
        ranks = Ranks.of((sums - centre) / spread)
        return cls(tuple(means.tolist()), tuple(scales.tolist()), centre, spread, ranks)

    def parts(self, values: Sequence[float]) -> list[float]:
        """Return what each count adds."""
        return [
            max(-_LIMIT, min(_LIMIT, (value - mean) * scale))
            for value, mean, scale in zip(values, self.means, self.scales, strict=True)
        ]

    def score(self, parts: Sequence[float]) -> float:
        """Return the sum, in deviations."""
        return (sum(parts) - self.centre) / self.spread


@dataclass(frozen=True, slots=True)
class Words:
    """A model of words, averaged with one of vectors if there is one, and its say beside the workload, from 0 to 1.

    `mean` and `deviation` are those of what it expected of texts that it had not seen, `ranks` of both together.
    """

    terms: Terms
    vectors: Vectors | None
    say: float
    mean: float
    deviation: float
    ranks: Ranks

    def join(self, workload: float, words: Sequence[str], vector: Floats | None) -> float:
        """Return the score of all together, in deviations."""
        expected = self.terms(words)
        if self.vectors is not None and vector is not None:
            expected = (expected + self.vectors(vector)) / 2
        return (1 - self.say) * workload + self.say * (expected - self.mean) / self.deviation


@dataclass(frozen=True)
class GainScorer:
    """Ranks a request by what it would gain from the strong model, among the requests learned from.

    A difficulty of 0.8 means that four in five of those would gain less: a threshold of 0.8 sends one in five to the
    strong model while traffic stays as it was. Kinds of request that were not learned from are judged by their workload
    alone if they have one right answer (multiple choice, quantities); on others the scorer abstains, for in writing and
    talk longer is not harder.

    `shipped()` is the one that comes with the package, `fit` learns one from your own records.
    """

    kinds: tuple[str, ...]
    workload: Workload
    words: Words | None = None
    about: str = ""
    embedder: Embedder | None = field(default=None, compare=False, repr=False)

    @classmethod
    def shipped(cls) -> "GainScorer":
        """Return the scorer that comes with the package: workload alone, scaled on public exam questions."""
        return _shipped()

    @cached_property
    def id(self) -> str:
        """Names what it decides by, for cached answers to be found again."""
        return "gain-" + hashlib.sha256(json.dumps(self.to_dict()).encode()).hexdigest()[:16]

    @property
    def quick(self) -> bool:
        """Whether it decides within microseconds, without an embedding."""
        return self.embedder is None

    def __call__(self, request: Request) -> Choice | None:
        """Return how hard the request is and why, or None where that cannot be told."""
        reading = read(request)
        if self.embedder is None or reading.kind not in self.kinds:
            return self.judge(reading)
        return self.judge(reading, embed(self.embedder, [request])[0])

    def judge(self, reading: Reading, vector: Floats | None = None) -> Choice | None:
        """Judge what was read in a request, and its vector where the scorer learned from vectors."""
        learned = reading.kind in self.kinds
        if not learned and reading.kind not in CLOSED:
            return None
        parts = self.workload.parts(reading.values)
        score = self.workload.score(parts)
        if learned and self.words is not None:
            return Choice(self.words.ranks(self.words.join(score, reading.words, vector)), _reason(parts))
        return Choice(self.workload.ranks(score), _reason(parts))

    def to_dict(self) -> dict[str, Any]:
        """Return everything in plain JSON; `from_dict` takes it back exactly."""
        return {
            "version": _VERSION,
            "about": self.about,
            "features": list(FEATURES),
            "kinds": list(self.kinds),
            "workload": _plain(asdict(self.workload)),
            "words": self.words and _plain(_words(self.words)),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], embedder: Embedder | None = None) -> "GainScorer":
        """Take what `to_dict` gave; the embedder is needed where it learned with one.

        Raises:
            ConfigurationError: It is from another version of the package, damaged, or learned with another embedder.
        """
        try:
            if data["version"] != _VERSION or data["features"] != list(FEATURES):
                raise ConfigurationError("the scorer is from another version of llmcost_plugins: fit it again")
            workload, words = data["workload"], data["words"]
            _check_embedder(words and words["vectors"], embedder)
            return cls(
                tuple(data["kinds"]),
                Workload(**{name: _restored(name, value) for name, value in workload.items()}),
                words and Words(**{name: _restored(name, value) for name, value in words.items()}),
                data["about"],
                embedder if words and words["vectors"] else None,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"not a saved scorer ({error!r}): fit it again") from error


def _words(words: Words) -> dict[str, Any]:
    vectors = words.vectors and words.vectors.to_dict()
    return {**asdict(words), "terms": words.terms.to_dict(), "vectors": vectors}


def _check_embedder(vectors: Mapping[str, Any] | None, embedder: Embedder | None) -> None:
    if vectors and (embedder is None or embedder.id != vectors["embedder_id"]):
        raise ConfigurationError(f"the scorer learned with {vectors['embedder_id']!r}: pass that as `embedder`")


def shipped_scorer(request: Request) -> Choice | None:
    """Judge a request by the scorer that comes with the package, which is loaded when it is first asked."""
    return _shipped()(request)


shipped_scorer.quick = True  # type: ignore[attr-defined]


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    plain = {**fields, "ranks": fields["ranks"]["quantiles"]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _restored(name: str, value: Any) -> Any:
    if name == "ranks":
        return Ranks(tuple(value))
    if name == "terms":
        return Terms.from_dict(value)
    if name == "vectors":
        return value and Vectors.from_dict(value)
    return tuple(value) if isinstance(value, list) else value


def _reason(parts: Sequence[float]) -> str:
    most = nlargest(_NAMED_PARTS, zip(parts, FEATURES, strict=True))
    return ", ".join(name for part, name in most if part > 0) or "little to keep in mind"


@cache
def _shipped() -> GainScorer:
    text = files("llmcost_plugins.routing").joinpath("data/lexical.json").read_text(encoding="utf-8")
    return GainScorer.from_dict(json.loads(text))
