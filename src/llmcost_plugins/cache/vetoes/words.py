"""The words of a text, contractions spelled out and phrases that one word stands for put together."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from llmcost_plugins.cache.vetoes import english

_TOKEN = re.compile(
    r"\d{4}-\d\d-\d\d(?!\d)|(?:(?<![\w).\]-])-)?(?:(?<![\w.])\.)?\d+(?:[.,:/]\d+)*(?:(?:st|nd|rd|th|s)\b)?"
    r"|[^\W\d_]+(?:'[^\W\d_]+)*|[$€£¥₹%]"
)
_CLAUSE_END = re.compile(r"[,;:.?!\n(]|\s[\u2013-]\s")
_SENTENCE_ENDS = frozenset(".?!:\n")
_CAPITAL_STYLE = 0.6  # of the words; above it capitals are a style and mark no names
_FEW = 3  # words, from which a style shows
_I = frozenset({"I", "I'm", "I've", "I'd", "I'll"})
_NAMED = {"US": "usa", "USA": "usa", "UK": "uk"}
_PLURALS = frozenset({"ups", "downs", "ins", "outs", "offs"})  # as in `top-ups`, `check-ins`
_REACH = 4  # words between a verb and its `on` or `off`


class Word(NamedTuple):
    """One word in small letters; words with the same `key` count as the same. `topical` words carry the topic."""

    text: str
    key: str
    topical: bool
    name: bool = False
    clause: int = 0
    number: str | None = None


def words_of(text: str) -> list[Word]:
    """Return the words of a text."""
    words = list(_words(text))
    return _put_together(words) if any(word.key in _HEADS for word in words) else words


def word_like(word: Word, text: str) -> Word:
    """Return the word that a text is, in another's place."""
    known = _known(text)
    return Word(text, known.key, known.topical, False, word.clause, known.number)


@lru_cache(maxsize=16384)
def _known(text: str) -> Word:
    number = english.NUMBERS.get(text)
    return Word(text, number or _key(text), _topical(text), number=number)


def _key(text: str) -> str:
    if text in english.UNITS and text not in english.UNITS_BEHIND_NUMBERS:
        return english.UNITS[text]
    if text in english.DATES and text not in english.DATES_IN_CONTEXT:
        return english.DATES[text]
    base: str = english.SYMBOLS.get(text) or english.stem(text)
    return base if text in english.FUNCTION_WORDS else english.SYNONYMS.get(base, base)


def _topical(text: str) -> bool:
    small = text in english.FUNCTION_WORDS or text in _PLURALS
    return not small and text not in english.FILLERS


def _words(text: str) -> Iterator[Word]:
    matches = list(_TOKEN.finditer(text))
    forms = [match.group() for match in matches]
    styled = _is_styled(forms[1:])
    clause = end = 0
    for match, form in zip(matches, forms, strict=True):
        begins, cut = _between(text, end, match.start()) if end else (True, False)
        end = match.end()
        parts = _parts(form)
        clause += cut or parts[0].text in english.CLAUSE_STARTS
        if not form[0].isupper() or styled or not _is_name(form, begins):
            for part in parts:
                yield Word(part.text, part.key, part.topical, False, clause, part.number)
        else:
            base = form.partition("'")[0]
            known = _known(_NAMED.get(base) or base.lower())
            number = english.ROMAN.get(base) or known.number
            yield Word(known.text, number or known.key, True, number is None, clause, number)


def _is_styled(forms: Sequence[str]) -> bool:
    """Tell whether capitals are a style of a text and mark no names; its first word does not count."""
    letters = [form for form in forms if form[0].isalpha() and form not in _I]
    return len(letters) >= _FEW and sum(form[0].isupper() for form in letters) > _CAPITAL_STYLE * len(letters)


def _between(text: str, start: int, end: int) -> tuple[bool, bool]:
    """Tell whether a sentence, and whether a clause, begins behind what stands between two words."""
    if end - start == 1 and text[start] == " ":
        return False, False
    cut = _CLAUSE_END.search(text, start, end)
    return cut is not None and cut.group() in _SENTENCE_ENDS, cut is not None


def _is_name(form: str, begins: bool) -> bool:
    return form not in _I and (not begins or (len(form) > 1 and form.isupper()))


@lru_cache(maxsize=16384)
def _parts(form: str) -> tuple[Word, ...]:
    """Return the words that a written form stands for."""
    text = form.lower()
    if spelled := english.CONTRACTIONS.get(text):
        return tuple(map(_known, spelled.split()))
    base, _, ending = text.partition("'")
    if ending == "t" and base[1:].endswith("n"):
        return _known(base[:-1]), _known("not")
    if ending == "s" and base in english.IS_AFTER:
        return _known(base), _known("is")
    if ending in english.ENDINGS:
        return _known(base), _known(english.ENDINGS[ending])
    return (_known(base),)


_HEADS: Mapping[str, Mapping[tuple[str, ...], str]] = {
    _known(head).key: phrases for head, phrases in english.PHRASES.items()
}


def _put_together(words: Sequence[Word]) -> list[Word]:
    """Return the words with each phrase as the one word that stands for it."""
    together: list[Word] = []
    skipped: set[int] = set()
    for position, word in enumerate(words):
        if position in skipped:
            continue
        found = _phrase_at(words, position)
        if found:
            text, rest = found
            skipped.update(rest)
            word = word_like(word, text)
        together.append(word)
    return together


def _phrase_at(words: Sequence[Word], position: int) -> tuple[str, Sequence[int]] | None:
    """Return what stands for the phrase that begins here, and where its other words are."""
    head = words[position]
    for rest, text in _HEADS.get(head.key, {}).items():
        behind = words[position + 1 : position + 1 + len(rest)]
        if tuple(english.stem(word.text) for word in behind) == rest:
            return text, range(position + 1, position + 1 + len(rest))
        if english.stem(head.text) in english.PARTED and (particle := _particle(words, position, rest[0])):
            return text, (particle,)
    return None


def _particle(words: Sequence[Word], position: int, particle: str) -> int | None:
    """Return where a clause ends with a verb's particle, its object in between (`turn my phone off`)."""
    for place in range(position + 2, min(position + 2 + _REACH, len(words))):
        last = place + 1 == len(words) or words[place + 1].clause != words[place].clause
        if words[place].clause != words[position].clause:
            return None
        if words[place].text == particle and last:
            return place
    return None
