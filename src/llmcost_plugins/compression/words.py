"""A text's words, as scores that count words read them."""

import re
from collections.abc import Iterable
from functools import lru_cache

_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯฀-๿]|[^\W_぀-ヿ㐀-鿿가-힯฀-๿]+")
_ASCII = re.compile(r"[a-z0-9]+")
_STOP_WORDS = (
    "a about after all also am an and any are as at be been before being between both but by can could did do "
    "does doing for from had has have having he her him his how i if in into is it its just me more most my no "
    "nor not of on one or other our out over s she so some such t than that the their them then there these "
    "they this those to under up us was we were what when where which while who whom whose why will with would "
    "you your name many much during"
)
_STOP = frozenset(_STOP_WORDS.split())
_NAME = re.compile(
    r"(?<![.!?\"] )(?<!^)\b[A-Z][\w'-]+(?:(?: of the| of| the| de| von| van|,)? [A-Z][\w'-]+)*|\b\d{3,4}\b"
)


def words(text: str) -> list[str]:
    """Return the words that carry meaning, in lower case, without common endings; CJK and Thai by letters."""
    return meaningful(_ASCII.findall(text.lower()) if text.isascii() else _WORD.findall(text.lower()))


def meaningful(found: Iterable[str]) -> list[str]:
    """Do as `words` with words in lower case that were found already."""
    return [stem(word) for word in found if word not in _STOP]


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Return a word without the commonest endings, so that "filmed", "filming" and "films" meet."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("ing", "ed", "es"):
        if len(word) > len(ending) + 3 and word.endswith(ending):
            return word[: -len(ending)].rstrip("e")
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def names(text: str) -> set[str]:
    """Return the runs of capitalised words inside sentences, and the years."""
    return set(_NAME.findall(text))
