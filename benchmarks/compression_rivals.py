"""What people compress retrieved text with today, as scorers, so that all meet the same budget."""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.compression_data import EMBEDDER
from llmcost_plugins.compression.bm25 import bm25
from llmcost_plugins.compression.evidence import Evidence
from llmcost_plugins.compression.features import Vectors

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Rival:
    """A function of the evidence as a scorer."""

    name: str
    of: Callable[[Evidence], Scores]
    needs_vectors: bool = False

    def score(self, evidence: Evidence, vectors: Vectors | None) -> Scores:
        return self.of(evidence)


def truncation(evidence: Evidence) -> Scores:
    return -np.arange(len(evidence), dtype=np.float64)


def at_random(evidence: Evidence) -> Scores:
    dice = random.Random(zlib.crc32(evidence.query.encode()))
    return np.array([dice.random() for _ in range(len(evidence))])


def bm25_sentences(evidence: Evidence) -> Scores:
    return bm25(evidence.asked, evidence.words)


def whole(evidence: Evidence, documents: Scores) -> Scores:
    """Score units by their documents, the first units of each first."""
    return documents[evidence.owner] - 1e-6 * evidence.position


def bm25_passages(evidence: Evidence) -> Scores:
    return whole(evidence, evidence.documents_bm25)


def minilm_sentences(evidence: Evidence) -> Scores:
    vectors = EMBEDDER.embed_now([evidence.query, *evidence.texts]).vectors
    return (vectors[1:] @ vectors[0]).astype(np.float64)


def minilm_passages(evidence: Evidence) -> Scores:
    """Embed whole passages, with their titles: without them this rival loses up to eleven points."""
    texts = [f"{r.title}\n{' '.join(unit.text for unit in r.units)}" for r in evidence.readings]
    vectors = EMBEDDER.embed_now([evidence.query, *texts]).vectors
    return whole(evidence, (vectors[1:] @ vectors[0]).astype(np.float64))


RIVALS = (
    Rival("truncation", truncation),
    Rival("random", at_random),
    Rival("bm25_sentences", bm25_sentences),
    Rival("bm25_passages", bm25_passages),
    Rival("minilm_sentences", minilm_sentences),
    Rival("minilm_passages", minilm_passages),
)
