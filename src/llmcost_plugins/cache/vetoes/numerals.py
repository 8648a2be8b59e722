"""Numbers among words: `twenty-five`, `1.5k`, `two hundred`, `3rd`, `May 3`, `2024-05-01`."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from llmcost_plugins.cache.vetoes import english
from llmcost_plugins.cache.vetoes.words import Word, word_like

_LONG = 15  # digits from which a number is compared as it is written
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SPOKEN = {text: int(number) for text, number in english.NUMBERS.items() if number.isdigit() and text.isalpha()}
_RANKED = {"first": 1} | {text: int(n[0]) for text, n in english.NUMBERS.items() if n[1:] == "th"}
_ALONE = {text for text in english.MULTIPLIERS if len(text) > len("lakh")}
_FRACTIONS = {"1/2": "0.5", "1/4": "0.25", "3/4": "0.75"}
_MONTHS = tuple(dict.fromkeys(english.MONTHS.values()))
_RANKS = ("st", "nd", "rd", "th")
_CENTURY = "19"  # of decades written without one
_ENOUGH = 10**15
_HUNDRED = 100
_TEN = 10


def counted(words: list[Word]) -> list[Word]:
    """Return the words with their numbers read: each is one word, and the day of a month stands behind the month."""
    words = _in_context(words)
    if not any(map(_counts, words)):
        return words
    read = [_first(word) for word in _dated(list(_read(_in_order(words))))]
    return read[:1] + [_measured(word, before) for before, word in pairwise(read)]


def _counts(word: Word) -> bool:
    return word.number is not None or not word.text[0].isalpha() or word.text in _ALONE


def _in_context(words: list[Word]) -> list[Word]:
    """Return the words, those that are dates only beside others (`in May`, `May 3`, `in the fall`) marked as such."""
    if not any(word.text in english.DATES_IN_CONTEXT for word in words):
        return words
    return [
        word._replace(key=english.DATES[word.text], topical=True)
        if word.text in english.DATES_IN_CONTEXT and _is_date(words, position)
        else word
        for position, word in enumerate(words)
    ]


def _is_date(words: Sequence[Word], position: int) -> bool:
    before = [word.text for word in words[max(0, position - 2) : position]]
    if before[-1:] == ["the"]:
        return before[0] in ("in", "during", "by")
    beside = (*words[max(0, position - 1) : position], *words[position + 1 : position + 2])
    return (bool(before) and before[-1] in english.DATE_LEADS) or any(_counts(word) for word in beside)


def _in_order(words: Sequence[Word]) -> list[Word]:
    """Return the words with currency signs behind their numbers and ISO dates as month, day and year."""
    ordered: list[Word] = []
    sign: Word | None = None
    for word in words:
        if sign is not None and word.text not in english.MULTIPLIERS and ordered and _says_number(ordered[-1]):
            ordered.append(sign)
            sign = None
        if word.text in english.SYMBOLS and word.text != "%":
            ordered.extend((sign,) if sign is not None else ())
            sign = word
        else:
            ordered.extend(_iso_date(word))
    return ordered if sign is None else [*ordered, sign]


def _says_number(word: Word) -> bool:
    return word.number is not None or word.text[-1].isdigit() or word.text in english.MULTIPLIERS


def _iso_date(word: Word) -> tuple[Word, ...]:
    parts = word.text.split("-")
    if len(parts) != len(("year", "month", "day")) or not 1 <= int(parts[1]) <= len(_MONTHS):
        return (word,)
    return word_like(word, _MONTHS[int(parts[1]) - 1]), word_like(word, parts[2]), word_like(word, parts[0])


def _read(words: Sequence[Word]) -> Iterator[Word]:
    position = 0
    while position < len(words):
        word, (number, behind) = words[position], _number_at(words, position)
        if number is None:
            yield word
        else:
            yield Word(word.text, number, word.text != "one", False, word.clause, number)
        position = behind


def _number_at(words: Sequence[Word], position: int) -> tuple[str | None, int]:
    """Return the number that begins at a word, None where none does, and the place behind it."""
    text = words[position].text
    number = words[position].number or (_value(text) if text[-1].isalnum() and not text[0].isalpha() else None)
    if number is None:
        return _long_number(words, position, 1) if text in _ALONE else (None, position + 1)
    if not number.replace(".", "", 1).isdecimal() or len(number) > _LONG:
        return number, position + 1
    whole, end = _long_number(words, position + 1, float(number) if "." in number else int(number))
    return (whole, end) if end > position + 1 else (number, end)


def _long_number(words: Sequence[Word], position: int, first: float) -> tuple[str, int]:
    """Return the number that the words from a place on go on with, and the place behind it."""
    total, part = 0.0, first
    room = _TEN if first in range(20, 100, 10) and words[position - 1].text.isalpha() else 0
    while position < len(words) and part < _ENOUGH:
        text = words[position].text
        joined = text == "and" and room >= _HUNDRED and position + 1 < len(words)
        value = _SPOKEN.get(words[position + 1].text if joined else text, 0)
        if text in english.MULTIPLIERS:
            part *= english.MULTIPLIERS[text]
            room = english.MULTIPLIERS[text]
            if room > _HUNDRED:
                total, part = total + part, 0
        elif 0 < value < room:
            part, room = part + value, _TEN if value in range(20, 100, 10) else 0
            position += joined
        elif 0 < room <= _TEN and (unit := _RANKED.get(text)):
            return f"{int(total + part) + unit}th", position + 1
        else:
            break
        position += 1
    return _written(total + part), position


def _written(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _value(digits: str) -> str:
    """Return a number as all ways to write it are compared."""
    if digits.endswith(_RANKS):
        return f"{_value(digits[:-2])}th"
    if digits.endswith("s"):
        return digits.removeprefix(_CENTURY) if len(digits) == len("1980s") else digits
    sign = "-" if digits.startswith("-") else ""
    plain = digits.lstrip("-")
    plain = plain.replace(",", "") if _THOUSANDS.fullmatch(plain) else plain
    plain = plain.rstrip("0").rstrip(".") if plain.count(".") == 1 and plain.replace(".", "").isdigit() else plain
    plain = plain.removesuffix(":00").lstrip("0") or "0"
    return sign + _FRACTIONS.get(plain, f"0{plain}" if plain[0] == "." else plain)


def _dated(words: Sequence[Word]) -> Iterator[Word]:
    """Yield the words, the day of a month behind the month and no rank but a number (`3rd of May` as `May 3`)."""
    day: Word | None = None
    for position, word in enumerate(words):
        before = words[position - 1] if position else None
        following = [later for later in words[position + 1 : position + 3] if later.text != "of"][:1]
        if day is not None and word.text == "of":
            continue
        if _is_day(word) and following and following[0].text in english.MONTHS:
            day = _day(word)
            continue
        yield _day(word) if _is_day(word) and before is not None and before.text in english.MONTHS else word
        if day is not None:
            yield day
            day = None
    if day is not None:
        yield day


def _first(word: Word) -> Word:
    return word_like(word, "first") if word.number == "1th" else word


def _is_day(word: Word) -> bool:
    return (word.number or "").removesuffix("th").isdecimal() and len(word.number or "") <= len("31th")


def _day(word: Word) -> Word:
    number = (word.number or "").removesuffix("th")
    return word._replace(key=number, number=number)


def _measured(word: Word, before: Word) -> Word:
    """Return the word as the unit that it is behind a number (`5 min`)."""
    if before.number is not None and word.text in english.UNITS_BEHIND_NUMBERS:
        return word._replace(key=english.UNITS[word.text], topical=True, number=None)
    return word
