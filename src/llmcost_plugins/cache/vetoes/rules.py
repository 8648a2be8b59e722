"""The vetoes: what makes two questions that look alike need different answers.

Each takes the reading of the question that is asked and of one that was answered, and tells whether the answer must not
be given again. They look for a difference that counts, not for likeness: that is the embedding's part. Most of what
small words say counts only where the topical words are the same; else the questions differ in too much to tell.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from llmcost_plugins.cache.vetoes import english, grammar
from llmcost_plugins.cache.vetoes.reading import Reading, Word
from llmcost_plugins.cache.vetoes.spelling import same_word

Veto: TypeAlias = Callable[[Reading, Reading], bool]

_CAPITALS = re.compile(r"\b(?:[A-Z]{2,}|[B-HJ-Z])\b")
_CODED = re.compile(r"\b(?=[^\W\d_]*\d)(?=\d*[^\W\d_])\w+")
_FACTORIAL = re.compile(r"\d!(?!\s*$)|\d!$")
_PREPOSITIONS = frozenset(
    {"to", "in", "on", "for", "with", "from", "at", "by", "during", "under", "within", "via", "per", "as", "of"}
)
_LEAVE = frozenset({"thanks", "thank", "please", "regards", "cheers", "greetings"})
_LONG_SMALL_WORDS = tuple(word for word in english.FUNCTION_WORDS if len(word) > 5)
_SMALL_CHANGE = 2  # words, other than those that carry the topic, by which sentences in another order may differ
_PHRASE = 3  # words that carry the topic, of a phrase that stands in for another
_REWRITTEN = 3  # other words by which the rest differs, from which a phrase has not just been replaced
_UNLIKE = 12  # words that one question has alone, from which the two are not compared word by word
_ASPECTS = frozenset({"reason", "time", "place", "person"})
_OTHER_KINDS = {"manner": _ASPECTS | {"whether"}, "thing": _ASPECTS, "whether": _ASPECTS | {"manner"}}


def length(asked: Reading, stored: Reading) -> bool:
    """Too long to be compared word by word."""
    return asked.too_long or stored.too_long


def language(asked: Reading, stored: Reading) -> bool:
    """Not English: the other vetoes would not see what makes a difference."""
    return not (asked.english and stored.english)


def numbers(asked: Reading, stored: Reading) -> bool:
    """Other numbers, in digits or spelled out."""
    return asked.numbers != stored.numbers


def units(asked: Reading, stored: Reading) -> bool:
    """Other units or currencies."""
    return bool(asked.units and stored.units) and asked.units != stored.units


def dates(asked: Reading, stored: Reading) -> bool:
    """Other days, months, seasons, times of day, or this week in place of the next."""
    return asked.dates != stored.dates


def codes(asked: Reading, stored: Reading) -> bool:
    """Other quotes, identifiers, addresses or markup."""
    return asked.codes != stored.codes and (_lacks(asked, stored.codes) or _lacks(stored, asked.codes))


def signs(asked: Reading, stored: Reading) -> bool:
    """Each question has an emoji or arrow that the other does not."""
    return bool(asked.signs - stored.signs) and bool(stored.signs - asked.signs)


def negation(asked: Reading, stored: Reading) -> bool:
    """A word that is denied in one question and not in the other."""
    if not asked.negations and not stored.negations:
        return False
    if asked.topic == stored.topic and asked.negations != stored.negations:
        return True
    return _denies(asked, stored) or _denies(stored, asked)


def opposites(asked: Reading, stored: Reading) -> bool:
    """A word in place of its opposite, unless one of the two is denied (`not accepted`, `declined`)."""
    mine, theirs = asked.keys - stored.keys, stored.keys - asked.keys
    if not mine or not theirs:
        return False
    others = {english.stem(word.text): word for word in stored.words if word.key in theirs}
    return any(
        (word.key in asked.denied) == (others[other].key in stored.denied)
        and not (word.text in english.FILLERS and others[other].text in english.FILLERS)
        for word in asked.words
        if word.key in mine
        for other in english.opposites_of(english.stem(word.text)) & others.keys()
    )


def names(asked: Reading, stored: Reading) -> bool:
    """Each question names somebody or something that the other does not."""
    return bool(asked.names - stored.keys) and bool(stored.names - asked.keys)


def asks(asked: Reading, stored: Reading) -> bool:
    """Asks for something else: a reason, a time, a place, a person, an amount, a permission, advice."""
    if asked.modality and stored.modality and asked.modality != stored.modality and _other_modality(asked, stored):
        return True
    if asked.asks and stored.asks and asked.asks != stored.asks:
        return True
    if asked.topic != stored.topic:
        return False
    return _other_kind(asked, stored) or (not _asks_how(asked, stored) and _other_modality(asked, stored))


def order(asked: Reading, stored: Reading) -> bool:
    """The same words in other parts (`from A to B`), unless whole phrases have moved or `and` or `or` joins them."""
    if asked.topic != stored.topic:
        return _roles_differ(asked, stored)
    if [word.key for word in asked.content] == [word.key for word in stored.content]:
        return False
    return _roles_differ(asked, stored) or (
        _changed(_frame(asked), _frame(stored)) <= _SMALL_CHANGE
        and ("it" in asked.keys) == ("it" in stored.keys)
        and grammar.parts(asked.words) != grammar.parts(stored.words)
        and grammar.clauses(asked) != grammar.clauses(stored)
    )


def words(asked: Reading, stored: Reading) -> bool:
    """But for one phrase the same, and that phrase has another in its place."""
    mine, theirs = _alone(asked, stored), _alone(stored, asked)
    if not (0 < len(mine) <= _UNLIKE and 0 < len(theirs) <= _UNLIKE):
        return False
    mine, theirs = _without_same(asked, mine, stored, theirs), _without_same(stored, theirs, asked, mine)
    return _is_phrase(mine) and _is_phrase(theirs) and _changed(_frame(asked), _frame(stored)) < _REWRITTEN


def additions(asked: Reading, stored: Reading) -> bool:
    """But for a condition that only one of them has the same: `to Switzerland`, `on sale items`, `in psi`."""
    mine, theirs = _alone(asked, stored), _alone(stored, asked)
    if bool(mine) == bool(theirs) or _changed(_frame(asked), _frame(stored)) >= _REWRITTEN:
        return False
    return _is_condition(asked, mine) if mine else _is_condition(stored, theirs)


def form(asked: Reading, stored: Reading) -> bool:
    """Capitals or marks that change the meaning: `IT` and `it`, `5 M` and `5 m`, `A1b2` and `a1b2`, `3!` and `3`."""
    if _FACTORIAL.findall(asked.text) != _FACTORIAL.findall(stored.text) or _cased(asked) != _cased(stored):
        return True
    return _capital(asked, stored) or _capital(stored, asked)


def persons(asked: Reading, stored: Reading) -> bool:
    """But for a pronoun the same: `my` in place of `your`."""
    if asked.topic != stored.topic:
        return False
    mine, theirs = grammar.owners(asked), grammar.owners(stored)
    if any(mine[key] != theirs[key] for key in mine.keys() & theirs.keys()):
        return True
    here, there = grammar.persons(asked), grammar.persons(stored)
    return bool(here - there) and bool(there - here)


def limits(asked: Reading, stored: Reading) -> bool:
    """But for a word that turns or bounds it the same: `only`, `except`, `avoid`, `more than`."""
    if asked.topic == stored.topic and asked.numbers and grammar.bounds(asked) != grammar.bounds(stored):
        return True
    mine, theirs = grammar.turns(asked), grammar.turns(stored)
    if mine == theirs or grammar.topic_but_turns(asked) != grammar.topic_but_turns(stored):
        return False
    return asked.negations == stored.negations or bool((mine ^ theirs) - english.NEGATIVE_TURNS)


def quantities(asked: Reading, stored: Reading) -> bool:
    """But for `all`, `some`, `both`, `either`, `and`, `or` the same."""
    if asked.topic != stored.topic:
        return False
    mine, theirs = grammar.quantifiers(asked), grammar.quantifiers(stored)
    return bool(mine - theirs and theirs - mine) or {"and", "or"} == grammar.joined_by(asked) ^ grammar.joined_by(
        stored
    )


def times(asked: Reading, stored: Reading) -> bool:
    """But for the tense, or `before`, `during`, `until`, the same."""
    if asked.topic != stored.topic:
        return False
    mine, theirs = grammar.relations(asked), grammar.relations(stored)
    return bool(mine - theirs and theirs - mine) or _other_tense(asked, stored)


VETOES: tuple[Veto, ...] = (
    length, language, numbers, dates, units, codes, signs, form, negation, opposites, asks, names, persons, limits,
    quantities, times, order, words, additions,
)  # fmt: skip


def refused_by(asked: Reading, stored: Reading, vetoes: Iterable[Veto] = VETOES) -> str | None:
    """Return the name of the first veto that refuses, None if none does or the two are the same text."""
    if asked.text == stored.text:
        return None
    return next((veto.__name__ for veto in vetoes if veto(asked, stored)), None)


def same_content(asked: Reading, stored: Reading) -> bool:
    """Tell whether two questions have the same topical words in the same order, but for spelling."""
    pairs = zip(asked.content, stored.content, strict=False)
    return 0 < len(asked.content) == len(stored.content) and all(_same(a, b) for a, b in pairs)


def _is_slip(word: Word) -> bool:
    """Tell whether a word is a small word mistyped (`throgh`)."""
    return any(same_word(word.text, small) for small in _LONG_SMALL_WORDS)


def _is_condition(reading: Reading, added: Sequence[tuple[int, Word]]) -> bool:
    """Tell whether the words are one phrase behind a preposition, or a sentence of their own."""
    if not _is_phrase(added) or any(map(_is_slip, (word for _, word in added))):
        return False
    start = next(n for n, word in enumerate(reading.words) if word is added[0][1])
    clause = added[0][1].clause
    alone = all(word.clause != clause or any(word is other for _, other in added) for word in reading.content)
    polite = any(word.text in _LEAVE for word in reading.words) or all(word.name for _, word in added)
    before = reading.words[max(0, start - 2) : start]
    return (alone and not polite) or any(word.text in _PREPOSITIONS and word.clause == clause for word in before)


def _capital(reading: Reading, other: Reading) -> bool:
    """Tell whether one writes in capitals what is another word in small letters, and the other has that word."""
    if reading.text.isupper() or other.text.isupper():
        return False
    capitals = {word for word in _CAPITALS.findall(reading.text) if _is_another_word(word.lower())}
    return any(word not in other.text and re.search(rf"\b{word.lower()}\b", other.text) for word in capitals)


def _cased(reading: Reading) -> set[str]:
    """Return the words whose case counts: those with a digit, and with small and capital letters."""
    return {word for word in _CODED.findall(reading.text) if not (word.islower() or word.isupper())}


def _is_another_word(small: str) -> bool:
    return len(small) == 1 or small in english.FUNCTION_WORDS


def _lacks(reading: Reading, codes: Iterable[str]) -> bool:
    text = reading.text.lower()
    return any(code not in reading.codes and code not in text for code in codes)


def _denies(reading: Reading, other: Reading) -> bool:
    """Tell whether one denies a word that the other has, not denied itself or by another word in its clause."""
    for key in reading.denied & other.keys - other.denied:
        clauses = {word.clause for word in reading.words if word.key == key}
        if any(word.key in other.denied and word.clause in clauses for word in reading.words):
            continue
        if not (grammar.turns(other) - grammar.turns(reading)) & english.NEGATIVE_TURNS:
            return True
    return False


def _other_kind(asked: Reading, stored: Reading) -> bool:
    here, there = grammar.kinds(asked), grammar.kinds(stored)
    if not here or not there or here[0] in there or there[0] in here:
        return False
    mine, theirs = here[0], there[0]
    if {mine, theirs} == {"manner", "place"} and grammar.is_of_ones_own(asked) and grammar.is_of_ones_own(stored):
        return False
    return theirs in _OTHER_KINDS.get(mine, ()) or mine in _OTHER_KINDS.get(theirs, ())


def _other_modality(asked: Reading, stored: Reading) -> bool:
    mine, theirs = grammar.modalities(asked), grammar.modalities(stored)
    return bool(mine and theirs) and mine[0] not in theirs and theirs[0] not in mine


def _asks_how(asked: Reading, stored: Reading) -> bool:
    return "manner" in grammar.kinds(asked) + grammar.kinds(stored)


def _other_tense(asked: Reading, stored: Reading) -> bool:
    pair = frozenset({str(grammar.tense(asked)), str(grammar.tense(stored))})
    if pair not in english.OPPOSED_TENSES:
        return False
    return "future" in pair or not (grammar.is_of_ones_own(asked) or grammar.is_of_ones_own(stored))


def _roles_differ(asked: Reading, stored: Reading) -> bool:
    mine = grammar.roles(asked)
    theirs = grammar.roles(stored) if mine else {}
    return any(mine[word] != theirs[word] for word in mine.keys() & theirs.keys())


def _frame(reading: Reading) -> Counter[str]:
    return Counter(grammar.frame(reading))


def _changed(mine: Counter[str], theirs: Counter[str]) -> int:
    return ((mine - theirs) + (theirs - mine)).total()


def _alone(reading: Reading, other: Reading) -> list[tuple[int, Word]]:
    """Return the topical words that the other question has not, each with its place among the topical ones."""
    return [(place, word) for place, word in enumerate(reading.content) if word.key not in other.keys]


def _without_same(
    reading: Reading, words: Sequence[tuple[int, Word]], other: Reading, others: Sequence[tuple[int, Word]]
) -> list[tuple[int, Word]]:
    """Return the words for which the other question has no other form, mistyped or in two parts (`wi-fi`)."""
    if "".join(word.text for _, word in words) == "".join(word.text for _, word in others):
        return []
    return [(place, word) for place, word in words if not any(_same(word, same) for _, same in others)]


def _is_phrase(words: Sequence[tuple[int, Word]]) -> bool:
    return 0 < len(words) <= _PHRASE and words[-1][0] - words[0][0] == len(words) - 1


def _same(word: Word, other: Word) -> bool:
    return word.key == other.key or same_word(english.stem(word.text), english.stem(other.text))
