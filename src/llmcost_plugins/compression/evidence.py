"""What the words of a question say about the units of its passages."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from math import log
from typing import TYPE_CHECKING, NamedTuple

from llmcost_plugins.compression.bm25 import bm25
from llmcost_plugins.compression.reading import Reading, plain
from llmcost_plugins.compression.words import names, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

_PIVOTS = 10  # documents, and sentences, that may lead to another document
_SOURCES = 6  # sentences whose names are looked for elsewhere
_SOFTNESS = 1.5
_LITTLE_WORDS = "the a an of in and to for on at by with from de la le"
_LITTLE = frozenset(_LITTLE_WORDS.split())


class Bridges(NamedTuple):
    """How strongly good documents and sentences lead to others, from 0 to 1.

    `named`: a good document names the unit's document. `names`: the unit's document names a good one. `led`: a good
    sentence elsewhere names the unit's document. `shares`: the unit has names that good sentences have and the
    question has not, by rarity.
    """

    named: "Scores"
    names: "Scores"
    led: "Scores"
    shares: "Scores"


class Evidence:
    """A question and the units of its passages, in one row; what is derived from their words is derived once.

    `owner` is the place of each unit's passage, `position` its place in there. Scores of documents are given to each
    of their units.
    """

    def __init__(self, query: str, readings: Sequence[Reading]) -> None:
        import numpy as np

        self.query = query
        self.readings = readings
        self.asked = words(query)
        self.owner: NDArray[np.intp] = np.repeat(
            np.arange(len(readings)), [len(reading.units) for reading in readings]
        ).astype(np.intp)
        self.position = np.array([n for reading in readings for n in range(len(reading.units))])
        self.words = [unit for reading in readings for unit in reading.words]
        self.tokens = np.array([count for reading in readings for count in reading.tokens], dtype=np.float64)

    def __len__(self) -> int:
        return len(self.owner)

    @cached_property
    def texts(self) -> list[str]:
        """The units as they are shown."""
        return [unit.text for reading in self.readings for unit in reading.units]

    @cached_property
    def plain(self) -> list[str]:
        """The units' words in lower case."""
        return [text for reading in self.readings for text in reading.plain]

    @cached_property
    def document_words(self) -> list[list[str]]:
        """The words of each document, its title's among them."""
        return [[*reading.title_words, *chain.from_iterable(reading.words)] for reading in self.readings]

    @cached_property
    def document_plain(self) -> list[str]:
        """Each document's words in lower case, its title's among them."""
        return [f" {reading.title_phrase} {''.join(reading.plain)}" for reading in self.readings]

    @cached_property
    def sentence_bm25(self) -> "Scores":
        """BM25 of the units."""
        return bm25(self.asked, self.words)

    @cached_property
    def titled_bm25(self) -> "Scores":
        """BM25 of the units, each with its document's title."""
        titles = [self.readings[place].title_words for place in self.owner]
        return bm25(self.asked, [(*title, *unit) for title, unit in zip(titles, self.words, strict=True)])

    @cached_property
    def documents_bm25(self) -> "Scores":
        """BM25 of the documents, one score a document."""
        return bm25(self.asked, self.document_words)

    @property
    def document_bm25(self) -> "Scores":
        """BM25 of each unit's document."""
        scores: Scores = self.documents_bm25[self.owner]
        return scores

    @cached_property
    def rarity(self) -> dict[str, float]:
        """The inverse document frequency of every word."""
        seen = Counter(word for document in self.document_words for word in set(document))
        count = len(self.readings)
        return {word: log(1 + (count - n + 0.5) / (n + 0.5)) for word, n in seen.items()}

    @cached_property
    def titles_asked(self) -> "Scores":
        """Whether the question names a document's title, one number a document."""
        import numpy as np

        question = plain(self.query)
        return np.array([float(_is_in(reading.title_phrase, question)) for reading in self.readings])

    @cached_property
    def titles_covered(self) -> "Scores":
        """The share of a title's words that the question has, one number a document."""
        import numpy as np

        question = set(plain(self.query).split())
        titles = [set(reading.title_phrase.split()) - _LITTLE for reading in self.readings]
        return np.array([len(title & question) / max(len(title), 1) for title in titles])

    @cached_property
    def question_covered(self) -> "Scores":
        """The share of the question's words, by rarity, that a unit has or its title."""
        import numpy as np

        asked = set(self.asked)
        whole = max(sum(self.rarity.get(word, 3.0) for word in asked), 1e-9)  # 3: a word of one in twenty documents
        titles = [asked.intersection(reading.title_words) for reading in self.readings]
        found = (asked.intersection(unit) | titles[o] for o, unit in zip(self.owner, self.words, strict=True))
        return np.array([sum(self.rarity[word] for word in some) / whole for some in found])

    def bridges(self, documents: "Scores", units: "Scores") -> Bridges:
        """Follow names from the best documents and units, by the scores given for each of them, to the others."""
        import numpy as np

        named, naming = np.zeros(len(self.readings)), np.zeros(len(self.readings))
        weights = np.exp(documents - documents.max())
        for pivot in np.argsort(-documents, kind="stable")[:_PIVOTS]:
            phrase, text = self.readings[pivot].title_phrase, self.document_plain[pivot]
            for other, reading in enumerate(self.readings):
                if other != pivot and _is_in(reading.title_phrase, text):
                    named[other] = max(named[other], weights[pivot])
                if other != pivot and _is_in(phrase, self.document_plain[other]):
                    naming[other] = max(naming[other], weights[pivot])
        best = np.argsort(-units, kind="stable")[:_PIVOTS]
        strength = np.exp((units - units.max()) / _SOFTNESS)
        return Bridges(named[self.owner], naming[self.owner], self._led(best, strength), self._shares(best, strength))

    def _led(self, best: "NDArray[np.intp]", strength: "Scores") -> "Scores":
        import numpy as np

        led = np.zeros(len(self.readings))
        for place, reading in enumerate(self.readings):
            sources = (n for n in best if self.owner[n] != place and _is_in(reading.title_phrase, self.plain[n]))
            led[place] = max((strength[n] for n in sources), default=0.0)
        return led[self.owner]

    def _shares(self, best: "NDArray[np.intp]", strength: "Scores") -> "Scores":
        import numpy as np

        looked_for: dict[str, float] = {}
        for n in best[:_SOURCES]:
            for word in self._names(int(n)):
                looked_for[word] = max(looked_for.get(word, 0.0), float(strength[n]))
        weights = {word: weight * self.rarity.get(word, 0.0) for word, weight in looked_for.items()}
        shares = np.array([sum(weights[word] for word in weights.keys() & unit) for unit in self._word_sets])
        return shares / max(float(shares.max(initial=0.0)), 1e-9)

    @cached_property
    def _word_sets(self) -> list[set[str]]:
        return [set(unit) for unit in self.words]

    def _names(self, n: int) -> set[str]:
        """Return the words of the names in a unit and its title that are not in the question."""
        found = names(f"{self.readings[self.owner[n]].title} . x {_spaced(self.texts[n])}")
        return {word for name in found for word in words(name)}.difference(self.asked)


def _spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text[:2_000])


def _is_in(phrase: str, text: str) -> bool:
    return len(phrase) > 2 and phrase not in _LITTLE and f" {phrase} " in text
