"""Where the words and tokens that LLMLingua judged stand in the text it read."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from llmcost_plugins.compression.passages import Span

_FURTHEST = 64  # characters that may be passed over to find a word: those that a tokenizer does not know


def dropped_spans(text: str, judged: Iterable[tuple[str, bool]]) -> tuple[Span, ...]:
    """Return where the words stand that were dropped, of all words of a text in their order and whether each stays.

    What no word is found for, such as letters that the tokenizer does not know or what lies beyond the model's window,
    has not been judged, and is not dropped.
    """
    folded, places = _folded(text)
    dropped: list[Span] = []
    cursor = 0
    for word, stays in judged:
        sought = "".join(map(_fold, word))
        at = folded.find(sought, cursor, cursor + _FURTHEST + len(sought)) if sought else -1
        if at < 0:
            continue
        cursor = at + len(sought)
        if not stays:
            dropped.append((places[at], places[cursor - 1] + 1))
    return tuple(dropped)


def kept_spans(read: Sequence[tuple[int, Span]], kept: Iterable[int]) -> tuple[Span, ...]:
    """Return where kept tokens stand, given all that were read with their places; kept ones are in order."""
    spans: list[Span] = []
    tokens = iter(read)
    for token in kept:
        span = next((span for other, span in tokens if other == token), None)
        if span is not None:
            spans.append(span)
    return tuple(spans)


def _folded(text: str) -> tuple[str, list[int]]:
    """Return the text as tokenizers may show it (no blanks, accents or capitals), and each character's place."""
    parts = [(_fold(character), n) for n, character in enumerate(text)]
    return "".join(part for part, _ in parts), [n for part, n in parts for _ in part]


@lru_cache(maxsize=4096)
def _fold(character: str) -> str:
    folded = unicodedata.normalize("NFKD", character).casefold()
    return "".join(c for c in folded if not (unicodedata.combining(c) or c.isspace()))
