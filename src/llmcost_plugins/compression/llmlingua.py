"""LLMLingua as a second stage: words are dropped from sentences, what must not break is given back."""

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from llmcost_plugins.compression.integrity import joined, without
from llmcost_plugins.compression.llmlingua_alignment import dropped_spans, kept_spans
from llmcost_plugins.compression.llmlingua_loading import Method, check_perplexity, load
from llmcost_plugins.compression.passages import Span
from llmcost_plugins.compression.shortening import Attempt, Parts, Shortening, passed
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.tokens import count_text

_CHUNK_ENDS = {".", "\n"}  # `llmlingua`'s own default
_LOWEST = 0.01  # rate below which `llmlingua` asks numpy for a percentile over 100


class LLMLingua:
    """Drops words from the sentences of texts with the `llmlingua` package, and ranks texts by it.

    Code, tables, JSON, YAML, lists and headings stay whole; in sentences numbers, names, links and negations stay, and
    no word is cut. The model is loaded on first use or by `warm`; one call runs at a time. `llmlingua2` needs a token
    classifier and does not read the query; `llmlingua` and `longllmlingua` need a causal language model, and to drop
    words (not to `rank`) transformers 4.46 or older.

    Args:
        model: A local directory, which is never looked up elsewhere, or a name at the hub. For `llmlingua2` it must
            have `bert-base-multilingual-cased` or `xlm-roberta-large` in it: `llmlingua` tells the tokenizer by that.
        method: What judges the words.
        device: torch's name of a device, such as `cpu` or `cuda:1`; by default cuda or mps where there is one.
    """

    def __init__(self, model: str | Path, *, method: Method = "llmlingua2", device: str | None = None) -> None:
        if method not in ("llmlingua2", "llmlingua", "longllmlingua"):
            raise ConfigurationError(f"`method` is {method!r}; expected 'llmlingua2', 'llmlingua' or 'longllmlingua'")
        self.model = str(model.expanduser().absolute() if isinstance(model, Path) else model)
        self.method = method
        self.device = device
        self._compressor: Any = None
        self._renew_lock()
        after_fork(self, LLMLingua._renew_lock)

    def __repr__(self) -> str:
        return f"LLMLingua({self.model!r}, method={self.method!r}, device={self.device!r})"

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        return partial(type(self), self.model, method=self.method, device=self.device), ()

    def warm(self) -> None:
        """Load the model now rather than with the first text.

        Raises:
            MissingExtra: `llmlingua`, `torch` or `transformers` is not installed.
            ConfigurationError: The model cannot be loaded, or its path is one that `llmlingua` cannot read.
        """
        self._loaded()

    def close(self) -> None:
        """Let go of the model's memory; later use loads it again."""
        with self._lock:
            self._compressor = None

    def shorten(
        self,
        texts: Sequence[str],
        *,
        query: str = "",
        rate: float | None = None,
        budget: int | None = None,
        count: Callable[[str], int] | None = None,
        spans: Sequence[Sequence[Span]] | None = None,
        keep: Callable[[str], bool] | None = None,
    ) -> Shortening:
        """Drop words until the texts fit a budget, or at a rate.

        This blocks for as long as the model runs; in an event loop call it in a thread.

        Args:
            texts: The original texts.
            query: The question, which `longllmlingua` needs.
            rate: The share of tokens that `llmlingua` is asked to keep, in one pass; what is given back comes on top.
            budget: How many tokens may be left in all texts, instead of a rate.
            count: Counts tokens as the target model does; by default as OpenAI's current models do.
            spans: What an earlier stage kept of each text; nothing else is read, counted or kept.
            keep: Tells a sentence that must stay whole.

        Raises:
            ConfigurationError: As `warm`, or `transformers` is too new for the method, or the amount makes no sense.
        """
        _check_amount(rate, budget)
        if self.method == "longllmlingua" and not query.strip():
            raise ConfigurationError("`longllmlingua` judges words by the question; pass `query`")
        count = count or (lambda text: count_text(text).tokens)
        parts = [Parts.of(text, spans[n] if spans is not None else None, keep) for n, text in enumerate(texts)]
        whole = tuple(part.whole() for part in parts)
        before = sum(count(text.text) for text in whole)
        if (rate is not None and rate >= 1) or (budget is not None and before <= budget):
            return Shortening(tuple(passed(text, "fits") for text in whole), before, before)
        if self.method != "llmlingua2":
            check_perplexity()
        attempt = Attempt(parts, whole, count, lambda prose, share: self._judged(prose, share, query))
        with self._lock:
            try:
                return attempt.at(rate) if rate is not None else attempt.within(budget or 0, before)
            finally:
                self._forget()

    def rank(self, texts: Sequence[str], query: str = "") -> list[float]:
        """Score texts by a causal model's perplexity: the higher, the more a text should be kept.

        `longllmlingua` asks how much a text makes the question expected, `llmlingua` how much the text itself tells.
        Texts longer than the model's window are judged by their beginning, blank ones come last.

        Raises:
            ConfigurationError: As `warm`, or the method does not rank, or there is no question.
        """
        if self.method == "llmlingua2":
            raise ConfigurationError(
                "`llmlingua2` does not rank; use method='longllmlingua' with a causal language model"
            )
        asks = self.method == "longllmlingua"
        if asks and not query.strip():
            raise ConfigurationError("`longllmlingua` ranks by the question; pass `query`")
        with self._lock:
            compressor = self._loaded()
            read = {n: _fitting(compressor, text, query) for n, text in enumerate(texts)}
            places = [n for n, text in read.items() if text.strip()]
            mode = "after" if asks else "none"
            found = compressor.get_rank_results([read[n] for n in places], query, self.method, mode, [0] * len(places))
        scores = [-math.inf] * len(texts)
        for place, perplexity in found:
            value = float(perplexity)
            scores[places[place]] = -math.inf if math.isnan(value) else -value if asks else value
        return scores

    def _judged(self, texts: Sequence[str], rate: float, query: str) -> list[tuple[Span, ...] | str]:
        """Return what would be dropped of each text, or why it could not be judged."""
        judge = self._classified if self.method == "llmlingua2" else self._pruned
        try:
            return list(judge(texts, rate, query))
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - one text that the library cannot take must not cost the others
            if len(texts) == 1:
                return [f"{type(error).__name__}: {error}"]
            return [self._judged([text], rate, query)[0] for text in texts]

    def _classified(self, texts: Sequence[str], rate: float, _: str) -> list[tuple[Span, ...]]:
        compressor = self._loaded()
        chunks = [compressor._PromptCompressor__chunk_context(text, _CHUNK_ENDS) for text in texts]
        legible = [[chunk for chunk in chunks_of if _legible(compressor, chunk)] for chunks_of in chunks]
        if not any(legible):
            return [()] * len(texts)
        _, words, labels = compressor._PromptCompressor__compress(legible, reduce_rate=1 - max(rate, _LOWEST))
        judged = [zip(said, map(bool, label), strict=True) for said, label in zip(words, labels, strict=True)]
        return [dropped_spans(text, words_of) for text, words_of in zip(texts, judged, strict=True)]

    def _pruned(self, texts: Sequence[str], rate: float, query: str) -> list[tuple[Span, ...]]:
        return [self._pruned_one(text, rate, query) if text.strip() else () for text in texts]

    def _pruned_one(self, text: str, rate: float, query: str) -> tuple[Span, ...]:
        compressor = self._loaded()
        asks = self.method == "longllmlingua"
        read = compressor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        kept, _ = compressor.iterative_compress_prompt(
            [query, text] if asks else [text],
            target_token=rate * len(read.input_ids),
            start=compressor.get_prefix_length(query + "\n\n", text) if asks else 0,
            dynamic_ratio=[0.0],
            condition_compare=asks,
        )
        tokens = list(zip(read.input_ids, read.offset_mapping, strict=True))
        return tuple(without((0, len(text)), joined(text, kept_spans(tokens, kept[0].tolist()))))

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def _loaded(self) -> Any:
        with self._lock:
            if self._compressor is None:
                self._compressor = load(self.model, self.method, self.device)
            return self._compressor

    def _forget(self) -> None:
        if self._compressor is not None and self.method == "llmlingua2":
            self._compressor.model.forget()


def _legible(compressor: Any, chunk: str) -> bool:
    """Tell whether the tokenizer knows anything in a chunk; `llmlingua` fails on one of unknown letters alone."""
    return any(token not in compressor.special_tokens for token in compressor.tokenizer.tokenize(chunk))


def _fitting(compressor: Any, text: str, query: str) -> str:
    """Cut a text so that the question still fits the model's window; `llmlingua` would cut the question instead."""
    read = compressor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    room = compressor.max_position_embeddings - compressor.get_token_length(query) - 32  # for what `llmlingua` adds
    offsets = read.offset_mapping[: max(room, 1)]
    return text[: offsets[-1][1]] if offsets else ""


def _check_amount(rate: float | None, budget: int | None) -> None:
    if (rate is None) == (budget is None):
        raise ConfigurationError("pass either `rate` or `budget`")
    if rate is not None and not 0 < rate <= 1:
        raise ConfigurationError(f"`rate` is {rate!r}; expected a share of the tokens above 0, up to 1")
    if budget is not None and budget < 0:
        raise ConfigurationError(f"`budget` is {budget!r}; expected tokens from 0")
