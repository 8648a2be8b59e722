"""How often the cache answers, how often wrongly, and how fast, beside the caches that people use today.

python -m benchmarks.cache --data DIR [--quick] [--json]
"""

import asyncio
import itertools
import math
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration
from langchain_openai import ChatOpenAI

from benchmarks import pairs
from benchmarks.cache_rivals import CosineCache, SerialisedPromptCache, available
from benchmarks.harness import interleaved, options, reference_us, report
from llmcost_plugins.cache import Cache, LabelledQuestion, calibrate
from llmcost_plugins.embeddings import Embedded, LocalEmbedder, RememberingEmbedder
from llmcost_plugins.langchain import CostAwareChatModel, SemanticCache
from llmcost_plugins.ledger import Ledger
from llmcost_plugins.plan import Plan, drive
from llmcost_plugins.stores import Memory, SQLite
from llmcost_plugins.testing import FakeProvider, Latency
from llmcost_plugins.types import Message, Reply, Request, Usage

BANKING_ERROR, QQP_ERROR = 0.01, 0.005
VCACHE = {"banking77": 0.081, "qqp": 0.009}  # hits at a bound of 1 %, as measured earlier on streams of this kind
ANSWER = "Open the app, go to Settings and follow the steps there. " * 6
EMBEDDER = RememberingEmbedder(LocalEmbedder(), size=1_000_000)
WANTED = {
    "unrelated_wrong_hits": "0",
    "adversarial_false_hit_rate": "at most 0.02",
    "finance32_false_hits": "at most 1",
    "light_rewrite_recall": "at least 0.97",
    "banking77_hit_rate_at_1pct_error": "at least 0.30",
    "qqp_hit_rate_at_05pct_error": "at least 0.18",
    "error_bound_honoured": "at least 0.95",
    "lru_hit_p50_us": "at most 20",
    "sqlite_hit_p50_us": "at most 100",
    "semantic_10k_p50_us": "at most 400",
    "semantic_100k_p50_us": "at most 500",
    "semantic_with_embedding_p50_ms": "at most 2",
    "semantic_with_embedding_p99_ms": "at most 5",
    "single_flight_calls": "1",
}
Stream = Sequence[tuple[str, str]]


def faq(*store: Any, **options: Any) -> Cache:
    """Return a cache that takes every question for one of an FAQ; all else is as it comes."""
    return Cache(*store, **{"embedder": EMBEDDER, "classify": lambda question: "faq", **options})


def mean(values: Iterable[bool]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def request(question: str, system: str = "") -> Request:
    """Return a chat request of one question."""
    message: Message = {"role": "user", "content": question}
    return Request(({"role": "system", "content": system}, message) if system else (message,), model="gpt-5.4")


def reply(text: str = ANSWER) -> Reply:
    """Return an answer as it comes from a model."""
    return Reply({"content": text}, text, Usage(200, 80), "openai", "gpt-5.4")


def answers(cache: Cache, asked: str | Request) -> Reply | None:
    """Return what the cache answers, leaving no turn behind."""
    return drive(cache.find(request(asked) if isinstance(asked, str) else asked, silent, turn=False)).reply


def silent(event: Any) -> None:
    """Take an event that nobody counts."""


# ------------------------------------------------------------------------------------------------------ wrong answers


def unrelated_wrong_hits(data: Path) -> dict[str, float]:
    """Count hits among questions of different categories under long system prompts, as LangChain asks them."""
    questions = pairs.unrelated_questions(data)
    result = {}
    for tokens in (200, 500):
        system = pairs.system_prompt(tokens)
        ours = SemanticCache()
        wrong = 0
        for question in questions:
            prompt = dumps([SystemMessage(system), HumanMessage(question)])
            wrong += ours.lookup(prompt, "llm") is not None
            ours.update(prompt, "llm", [ChatGeneration(message=AIMessage(question))])
        result[f"unrelated_wrong_hits_{tokens}"] = float(wrong)
        rival = SerialisedPromptCache(lambda texts: EMBEDDER.embed_now(texts).vectors, system)
        wrong = 0
        for question in questions:
            wrong += rival.get(question, None) is not None
            rival.put(question, None, "")
        result[f"serialised_prompt_wrong_hits_{tokens}"] = float(wrong)
    return {"unrelated_wrong_hits": sum(v for k, v in result.items() if k.startswith("unrelated")), **result}


def accepted(pair: pairs.Pair) -> str | None:
    """Return how the cache answers the question asked once it holds the stored one alone; None where it does not."""
    cache = faq()
    drive(cache.store(request(pair.stored), reply(), silent))
    hit = answers(cache, pair.asked)
    return None if hit is None or hit.hit is None else hit.hit.tier


def pair_figures(data: Path) -> tuple[dict[str, float], str]:
    """Return the shares of pairs that are accepted, with default settings, and a table by kind."""
    light, finance = pairs.light_rewrites(data), pairs.finance_traps(data)
    figures = {
        "finance32_false_hits": float(sum(accepted(pair) is not None for pair in finance)),
        "light_rewrite_recall": mean(accepted(pair) is not None for pair in light),
    }
    try:
        adversarial = pairs.adversarial_pairs(data)
    except SystemExit as missing:  # the word lists are not of Python
        return figures, f"  adversarial pairs left out: {missing}\n{table_of(by_kind(light))}"
    return adversarial_figures(adversarial) | figures, table_of({**by_kind(adversarial), **by_kind(light)})


def adversarial_figures(adversarial: Sequence[pairs.Pair]) -> dict[str, float]:
    cosine = [p for p in adversarial if float(np.dot(*EMBEDDER.embed_now([p.asked, p.stored]).vectors)) >= 0.85]
    return {
        "adversarial_pairs": float(len(adversarial)),
        "adversarial_false_hit_rate": mean(accepted(pair) is not None for pair in adversarial),
        "cosine_085_adversarial_false_hit_rate": len(cosine) / len(adversarial),
    }


def table_of(shares: Mapping[str, float]) -> str:
    return "\n".join(f"  accepted {kind:<18} {share:7.1%}" for kind, share in shares.items())


def by_kind(given: Sequence[pairs.Pair]) -> dict[str, float]:
    totals, hits = Counter(pair.kind for pair in given), Counter(pair.kind for pair in given if accepted(pair))
    return {kind: hits[kind] / total for kind, total in totals.items()}


# ------------------------------------------------------------------------------------------------------------ streams


@dataclass(frozen=True)
class Outcome:
    hits: float
    wrong: float


def play(cache: Cache, stream: Stream) -> Outcome:
    """Send a stream to an empty cache; misses are stored, with their label for an answer."""
    hits = wrong = 0
    for question, label in stream:
        found = drive(cache.find(request(question), silent, turn=False))
        if found.reply is None:
            drive(cache.keep(found, reply(label)))
            continue
        hits += 1
        wrong += found.reply.text != label
    return Outcome(hits / len(stream), wrong / len(stream))


def play_cosine(threshold: float, stream: Stream) -> Outcome:
    """Do as `play` with a static threshold on the cosine."""
    rival, hits, wrong = CosineCache(threshold), 0, 0
    for question, label in stream:
        vector = EMBEDDER.embed_now([question]).vectors[0]
        answer = rival.get(question, vector)
        if answer is None:
            rival.put(question, vector, label)
        hits += answer is not None
        wrong += answer not in (None, label)
    return Outcome(hits / len(stream), wrong / len(stream))


def shuffles(stream: Stream, count: int) -> Iterator[Stream]:
    for seed in range(count):
        shuffled = list(stream)
        random.Random(seed).shuffle(shuffled)
        yield shuffled


def balanced(training: Stream, count: int) -> Stream:
    """Return about so many questions in a fixed order, of each label as many: a stream's own shares are not known."""
    shuffled = list(training)
    random.Random(7).shuffle(shuffled)
    share, taken = math.ceil(count / len({label for _, label in training})), Counter[str]()
    chosen = []
    for question, label in shuffled:
        taken[label] += 1
        if taken[label] <= share:
            chosen.append((question, label))
    return chosen


def stream_figures(
    name: str, key: str, training: Stream, stream: Stream, max_error: float, count: int
) -> dict[str, float]:
    """Calibrate on one set and play another, shuffled, into an empty cache each time."""
    learned = [LabelledQuestion(*row) for row in balanced(training, len(stream))]
    calibration = calibrate(learned, max_error, embedder=EMBEDDER, classify=lambda question: "faq")
    outcomes = [play(faq(calibration=calibration), shuffled) for shuffled in shuffles(stream, count)]
    honoured = mean(outcome.wrong <= max_error for outcome in outcomes)
    hits = statistics.median(outcome.hits for outcome in outcomes)
    static = [play_cosine(0.9, shuffled) for shuffled in shuffles(stream, min(count, 3))]
    return {
        key: hits,
        f"{name}_threshold": calibration.threshold("faq"),
        f"{name}_wrong_share": statistics.median(outcome.wrong for outcome in outcomes),
        f"{name}_bound_honoured": honoured,
        f"{name}_hits_over_vcache": hits / VCACHE[name],
        f"{name}_cosine_090_hit_rate": statistics.median(outcome.hits for outcome in static),
        f"{name}_cosine_090_wrong_share": statistics.median(outcome.wrong for outcome in static),
    }


# -------------------------------------------------------------------------------------------------------------- speed


class GivenVectors:
    """An embedder that knows its texts' vectors beforehand."""

    id, dimension = LocalEmbedder.id, LocalEmbedder.dimension

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def embed(self, texts: Sequence[str]) -> Plan[Embedded]:
        rows = np.stack([self.known[text] for text in texts])
        return Embedded(rows, (False,) * len(texts), (12,) * len(texts))
        yield


def filled(count: int, data: Path) -> tuple[Cache, list[str]]:
    """Return a cache with so many questions, and questions that mean the same as some of them in other words."""
    given, dice = GivenVectors(), np.random.default_rng(0)
    cache = faq(Memory(max_entries=count + 1_000), embedder=given, recent=0)
    texts = [text for text, _ in pairs.banking77_train(data)]
    vectors = EMBEDDER.embed_now(texts).vectors
    for n in range(count):
        turn, row = divmod(n, len(texts))
        near = vectors[row] + (0.06 * dice.standard_normal(vectors.shape[1]).astype(np.float32) if turn else 0)
        text = f"{texts[row]} ({n})" if turn else texts[row]
        given.known[text] = near / np.linalg.norm(near)
        drive(cache.store(request(text), reply(), silent))
    rewrites = pairs.light_rewrites(data)
    for question in {text for pair in rewrites for text in pair[1:]}:
        given.known[question] = EMBEDDER.embed_now([question]).vectors[0]
    for pair in rewrites:
        drive(cache.store(request(pair.stored), reply(), silent))
    return cache, [pair.asked for pair in rewrites if tier_of(answers(cache, pair.asked)) == "semantic"]


def tier_of(found: Reply | None) -> str:
    """Return how an answer was found."""
    return "" if found is None or found.hit is None else found.hit.tier


def in_turn(call: Callable[[Any], Any], questions: Sequence[Any]) -> Callable[[], Any]:
    """Return a call that asks the next question each time."""
    rest = itertools.cycle(questions)
    return lambda: call(next(rest))


def exact_figures(data: Path, folder: Path, repeats: int) -> dict[str, float]:
    """Time repeated questions: from this process, from SQLite, and from LangChain's caches in the same rounds."""
    questions = [text for text, _ in pairs.banking77_train(data)[:1_000]]
    caches = {"lru_hit_p50_us": faq(recent=2_000), "sqlite_hit_p50_us": faq(SQLite(folder / "ours.db"), recent=0)}
    calls: dict[str, Callable[[], Any]] = {}
    for name, cache in caches.items():
        for question in questions:
            drive(cache.store(request(question), reply(), silent))
            answers(cache, question)
        calls[name] = in_turn(partial(answers, cache), [request(question) for question in questions])
    for offer in available():
        if offer.make is not None and offer.name.startswith("langchain "):
            rival = offer.make(folder / "rival.db") if "SQLite" in offer.name else offer.make()
            for question in questions:
                rival.put(question, None, ANSWER)
            calls[f"{offer.name.replace(' ', '_').lower()}_hit_p50_us"] = in_turn(
                lambda q, r=rival: r.get(q, None), questions
            )
    return interleaved(calls, repeats)


def semantic_figures(data: Path, *, quick: bool) -> dict[str, float]:
    """Time questions in other words among 10,000 and 100,000, GPTCache's beside the first, without the embedding."""
    cache, asked = filled(10_000, data)
    calls = {"semantic_10k_p50_us": in_turn(partial(answers, cache), asked)}
    offer = next(offer for offer in available() if offer.name == "gptcache")
    if offer.make is not None:
        rival = offer.make()
        for question, _ in pairs.banking77_train(data)[: 1_000 if quick else 10_000]:
            rival.put(question, EMBEDDER.embed_now([question]).vectors[0], ANSWER)
        calls["gptcache_10k_p50_us"] = in_turn(lambda q: rival.get(q, EMBEDDER.embed_now([q]).vectors[0]), asked)
    figures = interleaved(calls, 100)
    large, asked = filled(25_000 if quick else 100_000, data)
    for index in large._entries._indexes.values():  # type: ignore[attr-defined]
        index.build()  # of itself it is built in the background, while exact search answers
    return figures | interleaved({"semantic_100k_p50_us": in_turn(partial(answers, large), asked)}, 200)


def embedding_figures(data: Path) -> dict[str, float]:
    """Time new short questions with their embedding, from a cache that starts with other questions."""
    cache = Cache(classify=lambda question: "faq")
    train = [text for text, _ in pairs.banking77_train(data)]
    for question in train[:1_000]:
        drive(cache.store(request(question), reply(), silent))
    times = []
    for question in [text for text in train[1_000:] if len(text.split()) <= 16][:1_000]:
        started = time.perf_counter()
        answers(cache, question)
        times.append((time.perf_counter() - started) * 1e3)
    return {
        "semantic_with_embedding_p50_ms": statistics.median(times),
        "semantic_with_embedding_p99_ms": statistics.quantiles(times, n=100)[98],
    }


def single_flight_calls() -> dict[str, float]:
    """Count the provider's calls for 64 identical questions at once: in threads, in tasks, and streamed."""
    counts = []
    for way in (in_threads, in_tasks, in_streams):
        with FakeProvider(latency=Latency(median=0.2)) as provider:
            model = CostAwareChatModel(
                ChatOpenAI(model="gpt-5.4", base_url=provider.url, api_key="none"),  # type: ignore[arg-type]
                cache=True,
                ledger=Ledger(),
            )
            way(model)
            counts.append(provider.calls)
    return {"single_flight_calls": float(max(counts))}


def in_threads(model: CostAwareChatModel) -> None:
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(model.invoke, ["How do I reset a password?"] * 64))


def in_tasks(model: CostAwareChatModel) -> None:
    async def ask() -> None:
        await asyncio.gather(*(model.ainvoke("How do I reset a password?") for _ in range(64)))

    asyncio.run(ask())


def in_streams(model: CostAwareChatModel) -> None:
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda question: list(model.stream(question)), ["How do I reset a password?"] * 64))


def main() -> None:
    given = options(__doc__ or "", needs_data=True)
    assert given.data is not None
    data, count = given.data, 4 if given.quick else 20
    figures = unrelated_wrong_hits(data)
    judged, kinds = pair_figures(data)
    figures |= judged
    banking = pairs.banking77_train(data), pairs.banking77_stream(data)
    figures |= stream_figures("banking77", "banking77_hit_rate_at_1pct_error", *banking, BANKING_ERROR, count)
    questions = pairs.qqp_clusters(data, 0), pairs.qqp_clusters(data, 1)
    figures |= stream_figures("qqp", "qqp_hit_rate_at_05pct_error", *questions, QQP_ERROR, count)
    figures["error_bound_honoured"] = min(figures["banking77_bound_honoured"], figures["qqp_bound_honoured"])
    with tempfile.TemporaryDirectory() as folder:
        figures |= exact_figures(data, Path(folder), 1_000)
    figures |= semantic_figures(data, quick=given.quick) | embedding_figures(data) | single_flight_calls()
    figures["reference_us"] = reference_us()
    print(kinds)
    for offer in available():
        print(f"  {offer.name}: {offer.note}")
    report("cache", [(name, value, WANTED.get(name, "")) for name, value in figures.items()], given)


if __name__ == "__main__":
    main()
