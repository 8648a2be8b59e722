"""Two forms of one word: derived from one another, or one of them mistyped."""

import json
from functools import lru_cache
from pathlib import Path

from llmcost_plugins import embeddings

_ENDINGS = frozenset(
    {"", "e", "y", "ate", "ation", "ion", "ication", "ment", "al", "lation", "ition", "ance", "ence", "ly", "n", "t"}
    | {"ing", "ed"}
)
_STEM = 4  # letters that derived words share
_TYPED = 5  # letters of a word that may be mistyped; shorter ones are too often one letter from another word


@lru_cache(maxsize=16384)
def same_word(word: str, other: str) -> bool:
    """Tell whether two words are forms of one, or one of them is the other with a slip of the finger."""
    return word == other or _derived(word, other) or _mistyped(word, other)


def _derived(word: str, other: str) -> bool:
    shared = next((n for n, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    return shared >= _STEM and word[shared:] in _ENDINGS and other[shared:] in _ENDINGS


def _mistyped(word: str, other: str) -> bool:
    """Tell whether one letter is wrong, missing, doubled or swapped, and just one of the two is a known word."""
    shorter, longer = sorted((word, other), key=len)
    if len(shorter) < _TYPED or not _slip(shorter, longer):
        return False
    return _known(word) != _known(other)


def _slip(shorter: str, longer: str) -> bool:
    start = next((n for n, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
    rest, other = shorter[start:], longer[start:]
    if len(shorter) < len(longer):
        return rest == other[1:]
    return rest[1:] == other[1:] or (rest[2:] == other[2:] and rest[:2] == other[1::-1])


def _known(word: str) -> bool:
    known = _known_words()
    return word in known or f"{word}e" in known or f"{word}s" in known


@lru_cache(maxsize=1)
def _known_words() -> frozenset[str]:
    """Return the whole words of the bundled embedder's vocabulary: 22,000 of the commonest in English."""
    path = Path(embeddings.__file__).parent / "data" / "tokenizer.json"
    return frozenset(json.loads(path.read_bytes())["model"]["vocab"])
