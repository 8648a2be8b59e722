"""A `llmlingua` compressor without its traps: no network, no remote code, no reseeding, no padding computed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from llmcost_plugins.errors import ConfigurationError, MissingExtra
from llmcost_plugins.tokens import count_text

Method = Literal["llmlingua2", "llmlingua", "longllmlingua"]

_FAMILIES = ("bert-base-multilingual-cased", "xlm-roberta-large")
_BATCH_TOKENS = 512  # what one run of the model reads at most on a CPU: bigger batches leave its cache ...
_BATCH_TOKENS_GPU = 16_384  # ... and smaller ones leave a GPU idle
_ALL = 1_000_000  # chunks that the library hands over at once: all
_patching = threading.Lock()


def check(model: str, method: Method) -> None:
    """Refuse a model that cannot be loaded, before anything heavy is imported.

    Raises:
        ConfigurationError: The directory is missing or no model's, or its path hides the tokenizer from `llmlingua`.
    """
    if method == "llmlingua2" and not any(family in model for family in _FAMILIES):
        raise ConfigurationError(
            f"`llmlingua` tells the tokenizer of an LLMLingua-2 model by its name or path, and {model!r} has neither "
            f"{_FAMILIES[0]!r} nor {_FAMILIES[1]!r} in it. Move or link the model to a directory with the one it was "
            f"made from in its name, such as models/{_FAMILIES[1]}-mine"
        )
    folder = Path(model)
    if _is_local(model) and not (folder / "config.json").is_file():
        state = "has no config.json" if folder.is_dir() else "does not exist"
        raise ConfigurationError(f"the model directory {model} {state}; expected one that `save_pretrained` wrote")


def check_perplexity() -> None:
    """Refuse to prune by perplexity where `transformers` hands over its cache in a form `llmlingua` cannot read.

    Raises:
        ConfigurationError: `transformers` is newer than 4.46.
    """
    found = _version("transformers")
    if tuple(int(part) for part in found.split(".")[:2]) > (4, 46):
        raise ConfigurationError(
            f"dropping tokens by perplexity needs transformers 4.46 or older, found {found}; LLMLingua-2 and `rank` "
            'work with this one. For the former, in an environment of its own, run: pip install "transformers==4.46.3"'
        )


def load(model: str, method: Method, device: str | None) -> Any:
    """Return a `PromptCompressor` with the model on the device, by default the fastest there is.

    Raises:
        MissingExtra: `llmlingua`, `torch` or `transformers` is not installed.
        ConfigurationError: The model cannot be loaded, or is not of the kind that the method needs.
    """
    check(model, method)
    library = _library()
    settings = {"trust_remote_code": False, **({"local_files_only": True} if _is_local(model) else {})}
    try:
        with _quiet(library):
            compressor = library.PromptCompressor(
                model,
                device_map=device or _device(),
                model_config=settings,
                use_llmlingua2=method == "llmlingua2",
                **({"llmlingua2_config": {"max_batch_size": _ALL}} if method == "llmlingua2" else {}),
            )
    except Exception as error:
        raise ConfigurationError(f"the model {model} cannot be loaded: {type(error).__name__}: {error}") from error
    _check_kind(compressor.model, model, method)
    compressor.model.eval()
    if method == "llmlingua2":
        on_cpu = compressor.model.device.type == "cpu"
        compressor.model = ClassifierByLength(compressor.model, _BATCH_TOKENS if on_cpu else _BATCH_TOKENS_GPU)
    return compressor


class ClassifierByLength:
    """A token classifier that gives `llmlingua` the same logits without computing the padding.

    The library pads every chunk to 512 tokens. Here chunks of all texts are run sorted by length, each batch as wide as
    its longest; what is asked again at another rate is not computed again until `forget`.
    """

    def __init__(self, model: Any, batch_tokens: int) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self._last: tuple[Any, Any] | None = None

    def __call__(self, input_ids: Any, attention_mask: Any) -> Any:
        """Return the logits of padded chunks as a model's output has them; those of the padding are 0."""
        import torch

        if self._last is None or not torch.equal(self._last[0], input_ids):
            self._last = input_ids, self._logits(input_ids, attention_mask)
        return SimpleNamespace(loss=None, logits=self._last[1])

    def forget(self) -> None:
        """Let go of the last logits."""
        self._last = None

    def _logits(self, ids: Any, mask: Any) -> Any:
        lengths = mask.sum(dim=1).tolist()
        logits = ids.new_zeros((*ids.shape, self.model.config.num_labels), dtype=self.model.dtype)
        for rows in _batches(lengths, self.batch_tokens):
            width = max(lengths[row] for row in rows)
            found = self.model(input_ids=ids[rows, :width], attention_mask=mask[rows, :width]).logits
            logits[rows, :width] = found.to(logits.dtype)
        return logits


def _batches(lengths: list[int], most: int) -> Iterator[list[int]]:
    """Yield the rows of each batch, shortest first; the padded batch has at most `most` tokens, or one row."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and lengths[row] * (len(rows) + 1) > most:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


class _OfflineTokens:
    """Counts as `llmlingua` does with tiktoken, which it would download, and takes texts that name special tokens."""

    def __init__(self) -> None:
        self._count = lru_cache(maxsize=65_536)(lambda text: count_text(text, "gpt-3.5-turbo").tokens)

    def encode(self, text: str) -> range:
        """Return something as long as the text's tokens."""
        return range(self._count(text))


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keep `llmlingua` from downloading tiktoken's file, and from seeding every random generator of the process."""
    with _patching:
        before = library.tiktoken, library.seed_everything
        library.tiktoken = SimpleNamespace(encoding_for_model=lambda _: _OfflineTokens())
        library.seed_everything = lambda _: None
        try:
            yield
        finally:
            library.tiktoken, library.seed_everything = before


def _library() -> Any:
    for package in ("llmlingua", "torch", "transformers"):
        _version(package)
    from llmlingua import prompt_compressor

    return prompt_compressor


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise MissingExtra(package, "llmlingua") from None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _is_local(model: str) -> bool:
    """Tell a directory from a hub's name, which has one slash at most and does not begin with it."""
    return Path(model).exists() or Path(model).is_absolute() or model.startswith((".", "~")) or model.count("/") > 1


def _check_kind(loaded: Any, model: str, method: Method) -> None:
    classifies = type(loaded).__name__.endswith("ForTokenClassification")
    if classifies != (method == "llmlingua2"):
        wanted = "a token classifier" if method == "llmlingua2" else "a causal language model"
        raise ConfigurationError(f"{method} needs {wanted}; {model} is a {type(loaded).__name__}")
