"""Embeddings of any framework as an `Embedder`."""

import asyncio
import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llmcost_plugins.embeddings.embedder import Embedded, Embedder
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan, adrive, do, drive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHARACTERS_A_TOKEN = 4
_LONGEST = 768  # bytes of a text; three a token
_SHORTEST = 1e-6  # a vector's length, below which it has no direction
_MODEL_NAMES = ("model_name", "model", "model_id", "repo_id", "model_path", "deployment", "deployment_name", "revision")
_UNNAMED = ("", "unknown")  # the latter is LlamaIndex's default
_UNSHARED = "~"
_EXPECTED = "an `Embedder`, an embedding of LangChain or LlamaIndex, or a function of a list of texts"


def embedder_of(embeddings: Any) -> Embedder:
    """Return what embeds texts: an `Embedder` as it is, an embedding of LangChain or LlamaIndex, or a function.

    A function takes a list of texts and returns as many vectors. How much of a text such an embedding reads is not
    known; texts of more than 768 bytes count as truncated, which the smallest windows (256 tokens) still hold.

    Its `id` tells models apart: vectors of two ids are never compared. It is made of the class, or the function's name,
    and of what names the model. Where these do not say which model it is, as for a lambda or a class without a model's
    name, no other object or process shares its vectors; give the object an `id` (a text) that names the model to share.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(embeddings, type) or inspect.iscoroutinefunction(embeddings):
        raise ConfigurationError(f"`embedder` is {embeddings!r}; expected {_EXPECTED}, made and not async")
    if hasattr(embeddings, "embed") and hasattr(embeddings, "dimension") and hasattr(embeddings, "id"):
        embedder: Embedder = embeddings
        return embedder
    if hasattr(embeddings, "embed_documents"):
        return AdaptedEmbedder(embeddings.embed_documents, getattr(embeddings, "aembed_documents", None), embeddings)
    if hasattr(embeddings, "get_text_embedding_batch"):
        amany = embeddings.aget_text_embedding_batch if _is_async(embeddings) else None
        return AdaptedEmbedder(embeddings.get_text_embedding_batch, amany, embeddings)
    if callable(embeddings):
        return AdaptedEmbedder(embeddings, None, embeddings)
    raise ConfigurationError(f"`embedder` is of type {type(embeddings).__name__}; expected {_EXPECTED}")


def same_kind(one: str, other: str) -> bool:
    """Tell whether two ids may be of one embedding, so that a calibration with one is taken for the other."""
    return one.partition(_UNSHARED)[0] == other.partition(_UNSHARED)[0]


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
        if not listed:
            return _nothing(self._dimension)
        rows = yield from do(partial(self._embed, listed), partial(self._arun, listed))
        vectors = self._checked(rows, len(listed))
        tokens = tuple(len(text) // _CHARACTERS_A_TOKEN for text in listed)
        return Embedded(vectors, tuple(map(_may_be_cut, listed)), tokens)

    async def _arun(self, texts: list[str]) -> Any:
        return await (asyncio.to_thread(self._embed, texts) if self._aembed is None else self._aembed(texts))

    def _checked(self, rows: Any, count: int) -> "NDArray[np.float32]":
        import numpy as np

        try:
            vectors = np.asarray(rows, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{self.id} returned no vectors of one length: {error}") from error
        if vectors.ndim != 2 or len(vectors) != count:
            raise ConfigurationError(f"{self.id} returned the shape {vectors.shape} for {count} texts")
        if self._dimension not in (0, vectors.shape[1]):
            raise ConfigurationError(f"{self.id} returned {vectors.shape[1]} dimensions after {self._dimension}")
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths < _SHORTEST).any():
            raise ConfigurationError(f"{self.id} returned a vector that is not finite, or has no direction")
        self._dimension = vectors.shape[1]
        unit: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
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

    def __reduce__(self) -> "tuple[Callable[[], RememberingEmbedder], tuple[()]]":
        return partial(RememberingEmbedder, self._embedder, size=self._size), ()

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
        found = self._recalled(texts)
        new = [text for text in dict.fromkeys(texts) if text not in found]
        if new:
            embedded = yield from self._embedder.embed(new)
            rows = {text: _row(embedded, n) for n, text in enumerate(new)}
            self._remember(rows)
            found |= rows
        return found[texts[0]] if len(texts) == 1 else _joined([found[text] for text in texts], self.dimension)

    def _recalled(self, texts: Sequence[str]) -> dict[str, Embedded]:
        with self._lock:
            found = {text: known for text in texts if (known := self._known.get(text)) is not None}
            for text in found:
                self._known.move_to_end(text)
        return found

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


def _row(embedded: Embedded, n: int) -> Embedded:
    """Return one text's vector by itself, so that it does not keep those of its batch in memory."""
    return Embedded(embedded.vectors[n : n + 1].copy(), (embedded.truncated[n],), (embedded.tokens[n],))


def _joined(rows: Sequence[Embedded], dimension: int) -> Embedded:
    import numpy as np

    if not rows:
        return _nothing(dimension)
    vectors = np.concatenate([row.vectors for row in rows])
    return Embedded(vectors, tuple(row.truncated[0] for row in rows), tuple(row.tokens[0] for row in rows))


def _nothing(dimension: int) -> Embedded:
    import numpy as np

    return Embedded(np.empty((0, dimension), np.float32), (), ())


def _may_be_cut(text: str) -> bool:
    return len(text.encode("utf-8", "surrogatepass")) > _LONGEST


def _is_async(embeddings: Any) -> bool:
    """Tell whether a LlamaIndex embedding has async methods of its own: the inherited ones block the event loop."""
    methods = (getattr(type(embeddings), f"_aget_text_embedding{plural}", None) for plural in ("", "s"))
    return any(
        not getattr(method, "__module__", "llama_index.core").startswith("llama_index.core") for method in methods
    )


def _id_of(owner: Any) -> str:
    """Name an embedding by its class and model: vectors of different models must never be compared."""
    if isinstance(given := getattr(owner, "id", None), str) and given:
        return given
    is_function = inspect.isfunction(owner)
    kind = owner if is_function else type(owner)
    home = _home(kind.__module__)
    names = [name for attribute in _MODEL_NAMES if (name := getattr(owner, attribute, None)) and isinstance(name, str)]
    model = "/".join(name for name in dict.fromkeys(names) if name not in _UNNAMED)
    name = f"{home or kind.__module__}.{kind.__qualname__}/{model}"
    lasting = home and (model or (is_function and "<" not in kind.__qualname__))
    return name if lasting else f"{name}{_UNSHARED}{uuid4().hex}"


def _home(module: str) -> str:
    """Return what names a module in every process; `__main__` is each program's own, "" where it has no file."""
    if module != "__main__":
        return module
    file = getattr(sys.modules["__main__"], "__file__", None)
    return str(Path(file).resolve()) if file else ""
