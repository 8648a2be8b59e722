"""What every embedder looks like to the rooms that use one."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llmcost_plugins.plan import Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Texts as vectors, in the order of the texts.

    `vectors` has one row of unit length a text. `tokens` counts a whole text with the model's start and end marks;
    `truncated` tells where that was more than the model reads, so that the vector stands for the text's beginning only.
    """

    vectors: "NDArray[np.float32]"
    truncated: tuple[bool, ...]
    tokens: tuple[int, ...]


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def id(self) -> str:
        """Model, version and quantisation: vectors of embedders with different ids must never be compared."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Generator[Step[Any], Any, Embedded]:
        """Return the plan that embeds the texts; equal texts get equal vectors whatever else is embedded with them."""
        ...
