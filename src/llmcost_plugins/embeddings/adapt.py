"""Embeddings of any framework as an `Embedder`."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llmcost_plugins.embeddings.embedder import Embedded, Embedder
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan, adrive, do, drive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHARACTERS_A_TOKEN = 4
_SHORTEST = 1e-6  # a vector's length, below which it has no direction


def embedder_of(embeddings: Any) -> Embedder:
    """Return what embeds texts: an `Embedder` as it is, an embedding of LangChain or LlamaIndex, or a function.

    A function takes a list of texts and returns as many vectors. How much of a text such an embedding reads is not
    known; texts over 20,000 characters count as truncated.
    """
    if hasattr(embeddings, "embed") and hasattr(embeddings, "dimension"):
        embedder: Embedder = embeddings
        return embedder
    if hasattr(embeddings, "embed_documents"):
        return AdaptedEmbedder(embeddings.embed_documents, getattr(embeddings, "aembed_documents", None), embeddings)
    if hasattr(embeddings, "get_text_embedding_batch"):
        many, amany = embeddings.get_text_embedding_batch, getattr(embeddings, "aget_text_embedding_batch", None)
        return AdaptedEmbedder(many, amany, embeddings)
    if callable(embeddings):
        return AdaptedEmbedder(embeddings, None, embeddings)
    raise ConfigurationError(
        f"`embedder` is of type {type(embeddings).__name__}; expected an `Embedder`, an embedding of LangChain or "
        "LlamaIndex, or a function of a list of texts"
    )


class AdaptedEmbedder:
    """Another framework's embedding, or a function, as an `Embedder`: vectors are checked and brought to length 1."""

    def __init__(
        self, embed: Callable[[list[str]], Any], aembed: Callable[[list[str]], Any] | None, owner: Any
    ) -> None:
        self._embed = embed
        self._aembed = aembed
        self.id = _id_of(owner)
        self._dimension = 0

    def __repr__(self) -> str:
        return f"AdaptedEmbedder({self.id!r})"

    @property
    def dimension(self) -> int:
        """Length of a vector; 0 until the first text was embedded."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Plan[Embedded]:
        """Return the plan that embeds the texts.

        Raises:
            ConfigurationError: The embedding returned other than one finite vector a text (when the plan runs).
        """
        listed = list(texts)
        rows = yield from do(partial(self._embed, listed), partial(self._arun, listed))
        vectors = self._checked(rows, len(listed))
        tokens = tuple(len(text) // _CHARACTERS_A_TOKEN for text in listed)
        return Embedded(vectors, tuple(len(text) > 20_000 for text in listed), tokens)

    async def _arun(self, texts: list[str]) -> Any:
        return await (asyncio.to_thread(self._embed, texts) if self._aembed is None else self._aembed(texts))

    def _checked(self, rows: Any, count: int) -> "NDArray[np.float32]":
        import numpy as np

        vectors = np.asarray(rows, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != count:
            raise ConfigurationError(f"{self.id} returned the shape {vectors.shape} for {count} texts")
        if self._dimension not in (0, vectors.shape[1]):
            raise ConfigurationError(f"{self.id} returned {vectors.shape[1]} dimensions after {self._dimension}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(vectors).all() or (lengths < _SHORTEST).any():
            raise ConfigurationError(f"{self.id} returned a vector that is not finite, or has no direction")
        self._dimension = vectors.shape[1]
        unit: NDArray[np.float32] = vectors / lengths
        return unit


class RememberingEmbedder:
    """An embedder that embeds no text twice, as long as it remembers it."""

    def __init__(self, embedder: Embedder, *, size: int = 4_096) -> None:
        self._embedder = embedder
        self._size = size
        self._begin()
        after_fork(self, RememberingEmbedder._begin)

    def __repr__(self) -> str:
        return repr(self._embedder)

    def _begin(self) -> None:
        self._known: OrderedDict[str, Embedded] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """That of the embedder behind it."""
        return self._embedder.id

    @property
    def dimension(self) -> int:
        """That of the embedder behind it."""
        return self._embedder.dimension

    def embed(self, texts: Sequence[str]) -> Plan[Embedded]:
        """Return the plan that embeds the texts that are not known yet, and looks up the others."""
        import numpy as np

        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        found = {text: self._known[text] for text in texts if text in self._known}
        if new:
            embedded = yield from self._embedder.embed(new)
            for n, text in enumerate(new):
                found[text] = Embedded(embedded.vectors[n : n + 1], (embedded.truncated[n],), (embedded.tokens[n],))
            self._remember({text: found[text] for text in new})
        if len(texts) == 1:
            return found[texts[0]]
        rows = [found[text] for text in texts]
        vectors = np.concatenate([row.vectors for row in rows]) if rows else np.empty((0, self.dimension), np.float32)
        return Embedded(vectors, tuple(row.truncated[0] for row in rows), tuple(row.tokens[0] for row in rows))

    def _remember(self, rows: dict[str, Embedded]) -> None:
        with self._lock:
            self._known.update(rows)
            while len(self._known) > self._size:
                self._known.popitem(last=False)

    def embed_now(self, texts: Sequence[str]) -> Embedded:
        """Embed the texts and wait for it."""
        return drive(self.embed(texts))

    async def aembed(self, texts: Sequence[str]) -> Embedded:
        """Embed the texts without blocking the event loop."""
        return await adrive(self.embed(texts))


def _id_of(owner: Any) -> str:
    """Name an embedding by its class and model: vectors of different models must never be compared."""
    model = next(
        (m for name in ("model_name", "model", "model_id") if isinstance(m := getattr(owner, name, None), str)), ""
    )
    kind = owner if isinstance(owner, type) or hasattr(owner, "__qualname__") else type(owner)
    return f"{kind.__module__}.{kind.__qualname__}/{model}"
