"""BM25, for a few hundred short texts that are gone after one question."""

from collections import Counter
from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

K1 = 1.5  # Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework": 1.2 to 2
B = 0.75


def bm25(query: Sequence[str], texts: Sequence[Sequence[str]], *, b: float = B) -> "NDArray[np.float64]":
    """Score texts, given as words, by the words of a query; a word said twice in the query counts twice.

    The weight of a word is Lucene's, which is never negative.
    """
    import numpy as np

    asked = Counter(query)
    lengths = np.array([len(text) for text in texts], dtype=np.float64)
    norms = K1 * (1 - b + b * lengths / max(float(lengths.mean()), 1.0)) if len(texts) else lengths
    scores = np.zeros(len(texts))
    for word, counts in _postings(asked, texts).items():
        rows = np.fromiter(counts, dtype=np.intp)
        found = np.fromiter(counts.values(), dtype=np.float64)
        weight = log(1 + (len(texts) - len(counts) + 0.5) / (len(counts) + 0.5))
        scores[rows] += asked[word] * weight * found * (K1 + 1) / (found + norms[rows])
    return scores


def _postings(asked: Counter[str], texts: Sequence[Sequence[str]]) -> dict[str, dict[int, int]]:
    """Return for each word asked for how often which text has it."""
    postings: dict[str, dict[int, int]] = {}
    for n, text in enumerate(texts):
        for word in text:
            if word in asked:
                counts = postings.setdefault(word, {})
                counts[n] = counts.get(n, 0) + 1
    return postings
