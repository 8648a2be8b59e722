"""What the head looks at: thirty numbers a unit, comparable between questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcost_plugins.compression.evidence import Evidence

    Scores = NDArray[np.float64]

FEATURES = (
    "cosine_z",
    "cosine_gap",
    "cosine_log_rank",
    "cosine_in_document",
    "best_cosine_z",
    "document_cosine_z",
    "document_cosine_gap",
    "document_cosine_rank",
    "document_cosine_log_rank",
    "sentence_bm25_z",
    "sentence_bm25_share",
    "sentence_bm25_log_rank",
    "titled_bm25_z",
    "document_bm25_z",
    "document_bm25_share",
    "document_bm25_rank",
    "document_bm25_log_rank",
    "first",
    "log_tokens",
    "log_document_tokens",
    "title_asked",
    "title_covered",
    "question_covered",
    "named",
    "names",
    "led",
    "shares",
    "near_best",
)
_EXPANSION = 0.5  # weight of the best sentences in the widened question
_SOURCES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """The question's vector and one row a unit, all of unit length."""

    query: "NDArray[np.float32]"
    units: "NDArray[np.float32]"

    def cosines(self) -> "Scores":
        """Return the likeness of each unit to the question."""
        cosines: Scores = (self.units @ self.query).astype("float64")
        return cosines

    def document_cosines(self, owner: "NDArray[np.intp]", count: int) -> "Scores":
        """Return the likeness of each document, taken as the mean of its units, to the question."""
        import numpy as np

        sums = np.zeros((count, self.units.shape[1]))
        np.add.at(sums, owner, self.units)
        cosines: Scores = sums @ self.query / np.maximum(np.linalg.norm(sums, axis=1), 1e-9)
        return cosines


def features(evidence: "Evidence", vectors: Vectors) -> "Scores":
    """Return a row a unit and a column a feature, in the order of `FEATURES`."""
    import numpy as np

    owner = evidence.owner
    cosine = vectors.cosines()
    documents = vectors.document_cosines(owner, len(evidence.readings))
    bridges = evidence.bridges(*dense_bases(evidence, cosine, documents))
    columns = (
        *_cosine_columns(cosine, documents, owner),
        *_bm25_columns(evidence),
        *_place_columns(evidence),
        *bridges,
        _near_best(vectors, dense_bases(evidence, cosine, documents)[1]),
    )
    return np.column_stack(columns)


def dense_bases(evidence: "Evidence", cosine: "Scores", documents: "Scores") -> "tuple[Scores, Scores]":
    """Return the scores of documents, and of units, by which bridges are followed."""
    asked = evidence.titles_asked
    by_document = z(documents) + 0.7 * z(evidence.documents_bm25) + 1.5 * asked
    by_unit = z(cosine) + z(documents[evidence.owner]) + 0.5 * z(evidence.titled_bm25)
    return by_document, by_unit + 0.5 * z(evidence.document_bm25) + asked[evidence.owner]


def _cosine_columns(cosine: "Scores", documents: "Scores", owner: "NDArray[np.intp]") -> "Sequence[Scores]":
    import numpy as np

    best = np.full(len(documents), -1.0)
    np.maximum.at(best, owner, cosine)
    return (
        z(cosine),
        cosine - cosine.max(),
        np.log1p(ranks(cosine)),
        cosine - best[owner],
        z(best[owner]),
        z(documents[owner]),
        (documents - documents.max())[owner],
        (1 / (1 + ranks(documents)))[owner],
        np.log1p(ranks(documents))[owner],
    )


def _bm25_columns(evidence: "Evidence") -> "Sequence[Scores]":
    import numpy as np

    sentence, documents, owner = evidence.sentence_bm25, evidence.documents_bm25, evidence.owner
    return (
        z(sentence),
        sentence / max(sentence.max(), 1e-9),
        np.log1p(ranks(sentence)),
        z(evidence.titled_bm25),
        z(documents[owner]),
        documents[owner] / max(documents.max(), 1e-9),
        (1 / (1 + ranks(documents)))[owner],
        np.log1p(ranks(documents))[owner],
    )


def _place_columns(evidence: "Evidence") -> "Sequence[Scores]":
    import numpy as np

    owner = evidence.owner
    lengths = np.bincount(owner, weights=evidence.tokens, minlength=len(evidence.readings))
    return (
        (evidence.position == 0).astype(np.float64),
        np.log(np.maximum(evidence.tokens, 1)),
        np.log(np.maximum(lengths, 1))[owner],
        evidence.titles_asked[owner],
        evidence.titles_covered[owner],
        evidence.question_covered,
    )


def _near_best(vectors: Vectors, units: "Scores") -> "Scores":
    """Return the likeness to the question widened by the best units (Rocchio's feedback)."""
    import numpy as np

    best = np.argsort(-units, kind="stable")[:_SOURCES]
    weights = np.exp((units[best] - units[best].max()) / 1.5)
    wide: NDArray[np.float32] = (
        vectors.query + _EXPANSION * (vectors.units[best] * weights[:, None]).sum(0) / weights.sum()
    )
    likeness: Scores = np.asarray(vectors.units @ wide, dtype=np.float64)
    return z(likeness)


def z(scores: "Scores") -> "Scores":
    """Return scores with mean 0 and deviation 1; zeros where all are equal."""
    deviation = float(scores.std())
    standard: Scores = (scores - scores.mean()) / (deviation if deviation > 1e-9 else 1.0)
    return standard


def ranks(scores: "Scores") -> "Scores":
    """Return 0 for the best score, 1 for the next and so on; the first of equals is the better."""
    import numpy as np

    places = np.empty(len(scores))
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places
