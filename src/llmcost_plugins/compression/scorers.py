"""What tells how well a unit serves a question."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llmcost_plugins.compression.features import dense_bases, features, z
from llmcost_plugins.compression.head import Head, shipped_head

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcost_plugins.compression.evidence import Evidence
    from llmcost_plugins.compression.features import Vectors

    Scores = NDArray[np.float64]


class Scorer(Protocol):
    """Scores units for a question, the higher the better; only their order and distances matter."""

    @property
    def name(self) -> str:
        """What results and events call it."""
        ...

    @property
    def needs_vectors(self) -> bool:
        """Whether `score` must be given vectors."""
        ...

    def score(self, evidence: "Evidence", vectors: "Vectors | None") -> "Scores":
        """Return a score for each unit."""
        ...


@dataclass(frozen=True, slots=True)
class Bm25:
    """Words alone, no model: BM25 of the sentence and of its document, titles that the question names, and bridges.

    The weights are whole and half numbers, chosen once on three sets of questions; recall hardly moves with them.
    """

    name: str = "bm25"
    needs_vectors: bool = False

    def score(self, evidence: "Evidence", vectors: "Vectors | None") -> "Scores":
        """Return a score for each unit."""
        owner, asked = evidence.owner, evidence.titles_asked
        units = 0.5 * z(evidence.sentence_bm25) + 0.5 * z(evidence.titled_bm25) + z(evidence.document_bm25)
        bases = 1.7 * z(evidence.documents_bm25) + 1.5 * asked, 1.5 * units + asked[owner]
        bridges = evidence.bridges(*bases)
        scores: Scores = units + 2 * (asked[owner] + bridges.named + bridges.shares)
        return scores


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Embeddings and words in fixed shares: cosine of the sentence and of its document, and half as much of BM25."""

    name: str = "hybrid"
    needs_vectors: bool = True

    def score(self, evidence: "Evidence", vectors: "Vectors | None") -> "Scores":
        """Return a score for each unit."""
        if vectors is None:
            raise ValueError("the scorer needs vectors")
        owner = evidence.owner
        cosine, documents = vectors.cosines(), vectors.document_cosines(owner, len(evidence.readings))
        bridges = evidence.bridges(*dense_bases(evidence, cosine, documents))
        words = 0.5 * z(evidence.sentence_bm25) + 0.5 * z(evidence.document_bm25)
        scores: Scores = z(cosine) + z(documents[owner]) + words + 1.5 * (evidence.titles_asked[owner] + bridges.named)
        return scores


@dataclass(frozen=True, slots=True)
class Headed:
    """Embeddings and words, weighed by a trained head; by default the one that comes with the package."""

    head: Head | None = None
    name: str = "hybrid+head"
    needs_vectors: bool = True

    def score(self, evidence: "Evidence", vectors: "Vectors | None") -> "Scores":
        """Return a score for each unit."""
        if vectors is None:
            raise ValueError("the scorer needs vectors")
        return (self.head or shipped_head()).score(features(evidence, vectors))
