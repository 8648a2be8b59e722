"""LLMLingua-2 at MiniLM's size, random weights: batches by length beside the unmodified library.

`python -m benchmarks.compression_llmlingua [--quick] [--json]`; `benchmarks/README.md` explains the metrics.
"""

import random
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness import ROUNDS, options, report
from llmcost_plugins import embeddings, tokens
from llmcost_plugins.compression.llmlingua import LLMLingua
from llmcost_plugins.tokens import count_text

DOCUMENTS = 20
WORDS = 74  # of a document: about 118 tokens of MiniLM's tokenizer; passages of Natural Questions have 106
RATE = 0.5


def metrics(quick: bool) -> list[tuple[str, float, str]]:
    """Time 20 documents, whole and as an extraction to a quarter leaves them; the same words must be kept."""
    if find_spec("llmlingua") is None or find_spec("torch") is None:
        return [("llmlingua2_speedup", float("nan"), 'not installed: pip install "llmcost-plugins[llmlingua]"')]
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = _model(Path(folder))
        plain, lingua = _unmodified(path), LLMLingua(path, device="cpu")
        lingua.warm()
        rounds = 2 if quick else ROUNDS
        return [
            *_compared(plain, lingua, _documents(WORDS), rounds, ""),
            *_compared(plain, lingua, _documents(WORDS // 4), rounds, "_second_stage"),
        ]


def _compared(
    plain: Any, lingua: LLMLingua, texts: list[str], rounds: int, suffix: str
) -> list[tuple[str, float, str]]:
    fast, budget = lingua._compressor, int(0.7 * sum(count_text(text).tokens for text in texts))
    same = _kept(plain, texts) == _kept(fast, texts)
    calls: dict[str, Callable[[], Any]] = {
        "unmodified": lambda: _kept(plain, texts),
        "batched": lambda: _kept(fast, texts),
        "shorten": lambda: lingua.shorten(texts, rate=RATE),
        "shorten_budget": lambda: lingua.shorten(texts, budget=budget),
    }
    found = [{name: _ms(call, fast.model) for name, call in calls.items()} for _ in range(rounds)]
    best = {name: min(one[name] for one in found) for name in calls}
    read = sum(len(fast.tokenizer.tokenize(text)) for text in texts)
    return [
        (f"llmlingua2_tokens{suffix}", read, f"of {DOCUMENTS} documents; the library reads {512 * DOCUMENTS}"),
        (f"llmlingua2_unmodified{suffix}_ms", best["unmodified"], "every document padded to 512 tokens"),
        (f"llmlingua2_batched{suffix}_ms", best["batched"], "the library with batches by length"),
        (f"llmlingua2_shorten{suffix}_ms", best["shorten"], "with spans and the guard, at a rate"),
        (f"llmlingua2_shorten_budget{suffix}_ms", best["shorten_budget"], "the same, to 70 % of the tokens"),
        (f"llmlingua2_speedup{suffix}", best["unmodified"] / best["batched"], "5 or more: unmodified by batched"),
        (f"llmlingua2_same_output{suffix}", float(same), "1"),
    ]


def _kept(compressor: Any, texts: list[str]) -> Any:
    found = compressor.compress_prompt(list(texts), rate=RATE, use_context_level_filter=False, return_word_label=True)
    return found["compressed_prompt_list"], found["fn_labeled_original_prompt"]


def _ms(call: Callable[[], Any], model: Any) -> float:
    model.forget()
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def _documents(words: int) -> list[str]:
    from tests.compression.tiny_models import CORPUS

    known = " ".join(CORPUS[:3]).split()
    chooser = random.Random(7)
    return [" ".join(chooser.choices(known, k=chooser.randint(words // 2, words * 3 // 2))) for _ in range(DOCUMENTS)]


def _model(folder: Path) -> Path:
    from tokenizers import Tokenizer

    from tests.compression.tiny_models import mbert

    tokenizer = Tokenizer.from_file(str(Path(embeddings.__file__).parent / "data" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return mbert(folder, hidden=384, layers=6, tokenizer=tokenizer)


def _unmodified(path: Path) -> Any:
    from llmlingua import PromptCompressor

    folder = next(folder for folder in tokens._folders() if tokens._holds(folder, "cl100k_base"))
    with tokens._environment("TIKTOKEN_CACHE_DIR", str(folder)):
        return PromptCompressor(
            str(path), device_map="cpu", model_config={"trust_remote_code": False}, use_llmlingua2=True
        )


def main() -> None:
    given = options("Measure LLMLingua-2 with batches by length beside the unmodified library.")
    report("compression: LLMLingua-2", metrics(given.quick), given)


if __name__ == "__main__":
    main()
