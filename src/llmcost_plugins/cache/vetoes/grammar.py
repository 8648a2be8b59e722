"""What a question's small words say: who, when in time, how many, in what order."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import attrgetter, itemgetter
from typing import TypeAlias

from llmcost_plugins.cache.vetoes import english
from llmcost_plugins.cache.vetoes.reading import Reading, Word

_JOINING = frozenset({"and", "or"})
_WHICH = frozenset({"what", "which"})
_ASKING = frozenset({"how", "way", *_WHICH, *english.QUESTION_WORDS})

_CLOSING = english.AUXILIARIES | english.PRONOUNS | _ASKING | {"that"}

Parts: TypeAlias = tuple[list[str], list[tuple[str, ...]]]


def kinds(reading: Reading) -> list[str]:
    """Return what is asked for, the main question first: a reason, a manner, a thing, whether something is so ..."""
    texts = [word.text for word in reading.words]
    found = [
        (following not in english.AUXILIARIES, kind)
        for text, following in pairwise((*texts, ""))
        if text in _ASKING
        for kind in (_kind(text, following),)
    ]
    if not found and texts and texts[0] in english.TENSES:
        return ["whether"]
    return [kind for _, kind in sorted(found, key=itemgetter(0))]


def is_of_ones_own(reading: Reading) -> bool:
    """Tell whether the one who asks speaks of themselves."""
    return any(english.PERSONS.get(word.text) == "first" for word in reading.words)


def tense(reading: Reading) -> str | None:
    """Return the time that the first verb speaks of."""
    texts = [word.text for word in reading.words]
    if ("going", "to") in pairwise(texts):
        return "future"
    for word in reading.words:
        if word.text in english.TENSES and not (word.text in ("is", "are") and _goes_on(reading)):
            return english.TENSES[word.text]
    return None


def modalities(reading: Reading) -> list[str]:
    """Return whether the question is what is possible, advisable or required, in the order in which it says so."""
    found = []
    asking = False
    for word, behind in pairwise((*(word.text for word in reading.words), "")):
        asking = asking or word in ("do", "does", "did")
        if word in english.MODALS and behind != "you":
            found.append(english.MODALS[word])
        elif asking and word in ("have", "has", "need") and behind == "to":
            found.append("required")
    return found


def owners(reading: Reading) -> dict[str, set[str]]:
    """Return for the topical words that a pronoun stands in front of whose they are."""
    found: dict[str, set[str]] = {}
    person = None
    for word in reading.words:
        if word.text in english.PERSONS:
            person = english.PERSONS[word.text]
        elif word.topical and person is not None:
            found.setdefault(word.key, set()).add(person)
            person = None
    return {key: {_generic(reading, person) for person in persons} for key, persons in found.items()}


def persons(reading: Reading) -> set[str]:
    """Return who is spoken of."""
    return {_generic(reading, english.PERSONS[word.text]) for word in reading.words if word.text in english.PERSONS}


def bounds(reading: Reading) -> set[str]:
    """Return what bounds the numbers: `at least`, `more than` ..."""
    texts = [word.text for word in reading.words]
    found = set()
    for position, word in enumerate(reading.words):
        if word.number is not None:
            before = texts[max(0, position - 2) : position]
            found.add(english.BOUNDS.get(" ".join(before)) or english.BOUNDS.get(before[-1] if before else ""))
    return {bound for bound in found if bound is not None}


def quantifiers(reading: Reading) -> set[str]:
    """Return the kinds of `all`, `some`, `both` ... that occur."""
    return {english.QUANTIFIERS[word.text] for word in reading.words if word.text in english.QUANTIFIERS}


def relations(reading: Reading) -> set[str]:
    """Return the kinds of `before`, `during`, `until` ... that occur; `by` counts in front of a time."""
    found = {english.RELATIONS[word.text] for word in reading.words if word.text in english.RELATIONS}
    for word, following in pairwise(reading.words):
        if word.text == "by" and (following.number is not None or following.text in english.DATES):
            found.add("by")
    return found


def turns(reading: Reading) -> set[str]:
    """Return the kinds of `only`, `except`, `avoid`, `fail` ... that occur."""
    return {english.TURNS[key] for key in english.TURNS.keys() & reading.keys}


def topic_but_turns(reading: Reading) -> list[str]:
    """Return the keys of the topical words, in the order of the alphabet, without those that `turns` counts."""
    return [key for key in reading.topic if key not in english.TURNS]


def joined_by(reading: Reading) -> frozenset[str]:
    """Return which of `and` and `or` occur."""
    return reading.keys & _JOINING


def frame(reading: Reading) -> list[str]:
    """Return the words that carry no topic and are no mere manner of asking, in the order of the alphabet."""
    return sorted(
        word.text
        for word in reading.words
        if not word.topical and word.text not in english.FILLERS and word.text not in english.DETERMINERS
    )


def clauses(reading: Reading) -> list[Parts]:
    """Return the parts of each clause, in no order."""
    return sorted(parts(list(words)) for _, words in groupby(reading.words, attrgetter("clause")))


def parts(words: Sequence[Word]) -> Parts:
    """Return the topical words in their order, and those of each phrase that may as well stand elsewhere.

    Such a phrase begins with a preposition or a word like `if`, which comes first in it; the phrases are sorted. What
    `and` or `or` joins is sorted, and `the price of gold` is `the gold price`.
    """
    main: list[str] = []
    phrases: list[list[str]] = []
    for movable, chunk in _chunks(words):
        keys = [word.key for word in _of_turned(chunk) if word.topical]
        if any(word.text in _JOINING for word in chunk):
            keys.sort()
        if movable and keys:
            phrases.append([chunk[0].text, *keys])
        else:
            main.extend(keys)
    return main, sorted(tuple(phrase) for phrase in phrases)


def roles(reading: Reading) -> dict[str, str]:
    """Return the words that stand behind `from`, `to` and `than`, each with which of them it is."""
    found: dict[str, str] = {}
    if reading.keys.isdisjoint(english.ROLES):
        return found
    role = None
    for word in reading.words:
        if word.topical:
            if role is not None:
                found[word.key] = role
            role = None
        else:
            role = english.ROLES.get(word.text, role)
    return found


def _kind(text: str, following: str) -> str:
    """Return what a word of `_ASKING` asks for."""
    if text == "how":
        return english.AMOUNTS.get(following, "manner")
    if text in _WHICH:
        return "time" if following in english.TIMES else "thing"
    return english.QUESTION_WORDS.get(text, "manner")


def _goes_on(reading: Reading) -> bool:
    return any(word.topical and word.text.endswith("ing") for word in reading.words)


def _generic(reading: Reading, person: str) -> str:
    """Return the person, the first where `you` is anyone (`how do you boil an egg`)."""
    if person != "second":
        return person
    texts = [word.text for word in reading.words]
    anyone = any(text in ("how", "if", "when") and "you" in texts[n + 1 : n + 3] for n, text in enumerate(texts))
    return "first" if anyone else person


def _chunks(words: Sequence[Word]) -> Iterator[tuple[bool, list[Word]]]:
    """Yield the words phrase by phrase, and whether a preposition or `if` begins the phrase."""
    chunk: list[Word] = []
    movable = filled = False
    for position, word in enumerate(words):
        opens = word.text in english.PREPOSITIONS or word.text in english.CLAUSE_STARTS
        following = words[position + 1].text if position + 1 < len(words) else ""
        asks = word.text in english.AUXILIARIES and following in english.PRONOUNS
        closes = filled and not word.topical and word.text in _CLOSING and chunk[0].text in english.PREPOSITIONS
        if chunk and (opens or word.clause != chunk[-1].clause or (movable and filled and (asks or closes))):
            yield movable, chunk
            chunk, movable, filled = [], False, False
        movable = movable or (opens and not chunk)
        filled = filled or word.topical
        chunk.append(word)
    if chunk:
        yield movable, chunk


def _of_turned(words: Sequence[Word]) -> Sequence[Word]:
    """Return the words with what `of` joins the other way round."""
    place = next((n for n, word in enumerate(words) if word.text in ("of", "per")), None)
    if place is None or not any(word.topical for word in words[:place]):
        return words
    behind = [word for word in words[place + 1 :] if word.topical or word.text not in english.DETERMINERS]
    end = next((n for n, word in enumerate(behind) if not word.topical), len(behind))
    start = max(n for n, word in enumerate(words[:place]) if word.topical)
    return [*words[:start], *behind[:end], words[start], *behind[end:]]
