"""A linear model of embeddings: ridge regression on the vector of the user's question."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmcost_plugins.embeddings import Embedder
from llmcost_plugins.plan import drive
from llmcost_plugins.routing.evaluation import Floats
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Request

_RIDGE = 10.0
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Vectors:
    """What each dimension of an embedder's vectors adds to the expected gain."""

    embedder_id: str
    weights: tuple[float, ...]
    offset: float

    def __call__(self, vector: Floats) -> float:
        """Return the expected gain of a text, less the average gain."""
        return float(vector @ np.array(self.weights)) + self.offset

    def to_dict(self) -> dict[str, Any]:
        """Return everything in plain JSON."""
        return {**asdict(self), "weights": list(self.weights)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Vectors":
        """Take what `to_dict` gave."""
        return cls(**{**data, "weights": tuple(data["weights"])})


def embed(embedder: Embedder, requests: Sequence[Request]) -> Floats:
    """Return the vectors of what the users asked last, as the cache embeds it; blocks."""
    texts = [_asked(request) for request in requests]
    parts = [drive(embedder.embed(texts[at : at + _AT_ONCE])).vectors for at in range(0, len(texts), _AT_ONCE)]
    return np.concatenate(parts).astype(np.float64)


def fit_vectors(embedder_id: str, vectors: Floats, gain: Floats, used: NDArray[np.bool_]) -> tuple[Vectors, Floats]:
    """Learn from the vectors in use; return the model and what it expects of every vector, used or not."""
    mine = vectors[used]
    mean = mine.mean(axis=0)
    centred = mine - mean
    squares = centred.T @ centred + _RIDGE * np.eye(vectors.shape[1])
    weights = np.linalg.solve(squares, centred.T @ (gain[used] - gain[used].mean()))
    expected = np.asarray((vectors - mean) @ weights, np.float64)
    return Vectors(embedder_id, tuple(weights.tolist()), -float(mean @ weights)), expected


def _asked(request: Request) -> str:
    if request.question is not None:
        return request.question
    said = [message for message in request.messages if message.get("role") == "user"]
    return message_text(said[-1]) if said else ""
