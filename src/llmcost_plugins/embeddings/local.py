"""The bundled embedder: all-MiniLM-L6-v2 in int8, made by `scripts/export_minilm.py`."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from llmcost_plugins.embeddings.embedder import Embedded
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan, adrive, drive, in_thread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

WINDOW = 256  # tokens that the model was made for, with its start and end marks
_DIMENSION = 384
_DATA = Path(__file__).parent / "data"
_MODEL = "minilm-l6-v2-int8.onnx"
_TOKENIZER = "tokenizer.json"
_SHA256 = {
    _MODEL: "6531e73924832e37bb8ad279a8cbe05dc455d38bb0e2402c89bb4cc81a75739a",
    _TOKENIZER: "5fd1c882abbd30517dced455a2c9768945ec726b96727927e4959348d9de550b",
}


class LocalEmbedder:
    """Embeds texts on this machine with the bundled all-MiniLM-L6-v2, int8, on onnxruntime.

    The model reads 256 tokens (about 200 English words) of each text. Every text is run alone, because in a batch this
    quantisation makes a vector depend on the texts beside it (by a cosine distance of up to 0.025), which a cache's
    keys must not; batches would be 3 to 19 % faster (`scripts/export_minilm.py` has the figures). The model is loaded
    on first use or by `warm`, once for all threads, and again after `close` and in a copy or a pickle. With more than
    one thread, load it after a fork, not before.

    Args:
        threads: How many cores one text may take.
        batch_size: How many texts are embedded between two points where a cancelled caller is let go.
    """

    id = f"all-MiniLM-L6-v2/int8/{_SHA256[_MODEL][:12]}"
    dimension = _DIMENSION

    def __init__(self, *, threads: int = 1, batch_size: int = 32) -> None:
        for name, value in (("threads", threads), ("batch_size", batch_size)):
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"`{name}` is {value!r}; expected an integer from 1")
        self.threads = threads
        self.batch_size = batch_size
        self._encoder: _Encoder | None = None
        self._renew_lock()
        after_fork(self, LocalEmbedder._renew_lock)

    def __repr__(self) -> str:
        return f"LocalEmbedder(threads={self.threads}, batch_size={self.batch_size})"

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        return partial(type(self), threads=self.threads, batch_size=self.batch_size), ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def embed(self, texts: Sequence[str]) -> Plan[Embedded]:
        """Return the plan that embeds the texts.

        Every string has a vector, the empty one as well. Lone surrogates are read as U+FFFD, which the model ignores
        as it does NUL and other control characters.

        Raises:
            TypeError: `texts` is one text, or an item of it is no text.
            ConfigurationError: A file of the model is missing or not the one that was shipped (when the plan runs).
        """
        return self._embed(_checked(texts))

    def embed_now(self, texts: Sequence[str]) -> Embedded:
        """Embed the texts and wait for it."""
        return drive(self.embed(texts))

    async def aembed(self, texts: Sequence[str]) -> Embedded:
        """Embed the texts without blocking the event loop."""
        return await adrive(self.embed(texts))

    def warm(self) -> None:
        """Load the model now rather than with the first text."""
        self._loaded()

    def close(self) -> None:
        """Let go of the model's memory; later use loads it again."""
        with self._lock:
            self._encoder = None

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def _embed(self, texts: list[str]) -> Plan[Embedded]:
        distinct = list(dict.fromkeys(texts))
        rows: dict[str, _Row] = {}
        for start in range(0, len(distinct), self.batch_size):
            part = distinct[start : start + self.batch_size]
            rows.update(zip(part, (yield from in_thread(partial(self._rows, part))), strict=True))
        return _embedded([rows[text] for text in texts])

    def _rows(self, texts: list[str]) -> list["_Row"]:
        encoder = self._loaded()
        return [encoder.row(text) for text in texts]

    def _loaded(self) -> "_Encoder":
        encoder = self._encoder
        if encoder is None:
            with self._lock:
                encoder = self._encoder = self._encoder or _load(self.threads)
        return encoder


@cache
def bundled_embedder() -> LocalEmbedder:
    """Return the process's own embedder, so that many caches load one model."""
    return LocalEmbedder()


class _Row(NamedTuple):
    vector: "NDArray[np.float32]"
    tokens: int


@dataclass(frozen=True, slots=True)
class _Encoder:
    """The loaded model; safe to share between threads."""

    session: Any
    tokenizer: "Tokenizer"

    def row(self, text: str) -> _Row:
        import numpy as np

        ids = self.tokenizer.encode(_readable(text)).ids
        read = ids if len(ids) <= WINDOW else [*ids[: WINDOW - 1], ids[-1]]
        (vectors,) = self.session.run(["embedding"], {"input_ids": np.array([read], dtype=np.int64)})
        return _Row(vectors[0], len(ids))


def _load(threads: int) -> _Encoder:
    import onnxruntime
    from tokenizers import Tokenizer

    model, tokenizer = _verified(_MODEL), _verified(_TOKENIZER)
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return _Encoder(session, Tokenizer.from_buffer(tokenizer))


def _verified(name: str) -> bytes:
    """Read a shipped file, and make sure that it is the one that was shipped."""
    path = _DATA / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != _SHA256[name]:
        state = "is damaged" if content else "is missing"
        raise ConfigurationError(f"{path} {state}. Run: pip install --force-reinstall llmcost-plugins")
    return content


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str | bytes):
        raise TypeError(f"`texts` is one {type(texts).__name__}; expected a list of texts")
    texts = list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"`texts[{position}]` is of type {type(text).__name__}; expected a text")
    return texts


def _readable(text: str) -> str:
    """Return the text as the tokenizer can take it: surrogate pairs joined, lone surrogates replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _embedded(rows: list[_Row]) -> Embedded:
    import numpy as np

    tokens = tuple(row.tokens for row in rows)
    vectors = np.array([row.vector for row in rows], dtype=np.float32).reshape(len(rows), _DIMENSION)
    return Embedded(vectors, tuple(count > WINDOW for count in tokens), tokens)
