"""What goes into a compressor, and what comes out."""

from dataclasses import dataclass, field

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved text.

    `protected` keeps it whole. `id` is the framework's; passages without one, or with the same, are told apart by their
    place. `score` is the retriever's, None where it gave none.
    """

    text: str
    id: str = ""
    title: str = ""
    score: float | None = None
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of a passage: `index` is its place among those given, `spans` are where its parts stood in the text.

    `text` is what stood there, to the letter, but for JSON that was minified without loss.
    Tokens are the target model's.
    """

    index: int
    text: str
    spans: tuple[Span, ...]
    original_tokens: int
    kept_tokens: int
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class CompressionResult:
    """What was kept of the passages, in the order of the passages given.

    `tokens_before` and `tokens_after` are counted with the target model's tokenizer, headers included; `estimated`
    where that is not at hand. `budget` is what was asked for, None for a pass-through. `scorer` names what chose,
    `reason` why nothing was dropped or why a weaker scorer had to do, "" where all went as asked. `over_budget` is true
    where what is protected alone exceeds the budget; it is kept all the same. `cost` is what the compression itself
    cost, in pico-USD (embedding at a provider), `seconds` how long it took.
    """

    kept: tuple[Kept, ...]
    originals: tuple[Passage, ...] = field(repr=False)
    tokens_before: int
    tokens_after: int
    budget: int | None
    scorer: str
    reason: str = ""
    estimated: bool = False
    over_budget: bool = False
    cost: int = 0
    seconds: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times shorter the passages are."""
        return self.tokens_before / self.tokens_after if self.tokens_after else 1.0

    def expand(self, id: str) -> str:  # noqa: A002 - what it is called everywhere
        """Return the whole text of a passage.

        Raises:
            KeyError: No passage has that id.
        """
        for passage in self.originals:
            if passage.id == id:
                return passage.text
        raise KeyError(id)
