"""The semantic tier: a question that was answered before in other words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmcost_plugins.cache.likeness import NEIGHBOURS, likeness, same_wording
from llmcost_plugins.cache.vetoes import Reading, Veto, read, refused_by
from llmcost_plugins.embeddings import Embedder
from llmcost_plugins.plan import Plan
from llmcost_plugins.types import Entries, Neighbour

Verdict: TypeAlias = Literal["accepted", "too far", "vetoed"]

_READ = NEIGHBOURS + 1  # that a look-up asks for: any that is tried, and those that tell how crowded it is around
_TRIED = 5
_FLOOR = 0.5  # the cosine below which nothing is the same question, not even a mistyped one


@dataclass(frozen=True, slots=True)
class Match:
    """A stored question that came near: how near, and what became of it; `veto` names what refused it."""

    neighbour: Neighbour
    likeness: float
    verdict: Verdict
    veto: str = ""


class Semantic:
    """Compares questions by their vectors, and then by all that vectors miss.

    Args:
        embedder: Turns questions into vectors.
        vetoes: What may refuse a stored question; the first that does is counted.
    """

    def __init__(self, embedder: Embedder, vetoes: Sequence[Veto]) -> None:
        self.embedder = embedder
        self._vetoes = tuple(vetoes)

    def vector(self, question: str) -> Plan[bytes | None]:
        """Return the question's vector, None for a question longer than the embedder reads."""
        embedded = yield from self.embedder.embed([question])
        return None if embedded.truncated[0] else embedded.vectors[0].tobytes()

    def matches(
        self, entries: Entries, space: str, vector: bytes, question: str, threshold: float, now: float
    ) -> Plan[list[Match]]:
        """Return the stored questions that came near, the nearest first, up to the first that is accepted."""
        near = yield from entries.near(space, vector, _READ, now)
        similarities = [neighbour.similarity for neighbour in near]
        asked = read(question)
        matches: list[Match] = []
        for position, neighbour in enumerate(near[:_TRIED]):
            if neighbour.similarity < _FLOOR:
                break
            others = similarities[:position] + similarities[position + 1 :]
            matches.append(self._match(neighbour, others, asked, threshold))
            if matches[-1].verdict == "accepted":
                break
        return matches

    def likeness_of(self, entries: Entries, space: str, asked: str, stored: str) -> Plan[float | None]:
        """Return how far two questions mean the same among others, None where a veto or the embedder refuses."""
        vectors = yield from self.embedder.embed([asked, stored])
        first, second = read(asked), read(stored)
        if any(vectors.truncated) or refused_by(first, second, self._vetoes) is not None:
            return None
        near = yield from entries.near(space, vectors.vectors[0].tobytes(), _READ, 0.0)
        others = [neighbour.similarity for neighbour in near if neighbour.question != stored]
        if same_wording(first, second):
            return math.inf  # a look-up accepts it whatever its vector
        return likeness(float(vectors.vectors[0] @ vectors.vectors[1]), others, first, second)

    def _match(self, neighbour: Neighbour, others: Sequence[float], asked: Reading, threshold: float) -> Match:
        stored = read(neighbour.question)
        score = likeness(neighbour.similarity, others, asked, stored)
        if score < threshold and not same_wording(asked, stored):
            return Match(neighbour, score, "too far")
        veto = refused_by(asked, stored, self._vetoes)
        return Match(neighbour, score, "accepted") if veto is None else Match(neighbour, score, "vetoed", veto)
