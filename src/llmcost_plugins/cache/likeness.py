"""How far two questions mean the same: the cosine of their vectors, corrected for what it is known to get wrong."""

from collections.abc import Sequence

from llmcost_plugins.cache.vetoes import Reading, english
from llmcost_plugins.cache.vetoes.reading import Word
from llmcost_plugins.cache.vetoes.spelling import same_word

NEIGHBOURS = 8  # that tell how crowded it is around a question
_CROWDED = 0.5  # the usual cosine of the nearest; where fewer are known, the rest are taken to be that near
_LONELY = 0.35  # below it a neighbourhood says nothing more
_SHARED = 5  # topical words in common, from which more add nothing
_USUALLY_SHARED = 3


def likeness(similarity: float, others: Sequence[float], asked: Reading, stored: Reading) -> float:
    """Return a score that reads like a cosine: 1 is the same question, and a threshold on it means the same error.

    A cosine of 0.9 means less where many questions are that near. Half of how near the others are is therefore taken
    off, as in cross-domain similarity local scaling (Conneau et al. 2018, arXiv 1710.04087, section 2.3). Words in
    common add a little: a long agreement is less likely to be chance than a short one. The numbers were chosen on
    banking77's training part and hwu64, where hits at 1 % wrong answers change little around them.

    Args:
        similarity: The cosine between the two questions.
        others: The cosines between the question that is asked and the stored ones nearest to it but for this one.
        asked: The question that is asked.
        stored: The one that was answered.
    """
    shared = len({word.key for word in asked.content} & {word.key for word in stored.content})
    agreement = 0.02 * (min(shared, _SHARED) - _USUALLY_SHARED)
    return similarity - 0.5 * (max(_crowding(others), _LONELY) - _CROWDED) + agreement


def same_wording(asked: Reading, stored: Reading) -> bool:
    """Tell whether two questions have the same words in the same order, but for politeness and slips of the finger."""
    mine, theirs = _said(asked), _said(stored)
    return 0 < len(mine) == len(theirs) and all(map(_same, mine, theirs))


def _said(reading: Reading) -> list[Word]:
    return [word for word in reading.words if word.text not in english.FILLERS]


def _same(word: Word, other: Word) -> bool:
    return word.text == other.text or (word.topical and other.topical and same_word(word.text, other.text))


def _crowding(others: Sequence[float]) -> float:
    nearest = others[:NEIGHBOURS]
    return (sum(nearest) + _CROWDED * (NEIGHBOURS - len(nearest))) / NEIGHBOURS
