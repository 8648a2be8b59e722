"""Passages made shorter for one question."""

import asyncio
import inspect
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmcost_plugins.compression.deadline import before
from llmcost_plugins.compression.evidence import Evidence
from llmcost_plugins.compression.features import Vectors
from llmcost_plugins.compression.head import Head
from llmcost_plugins.compression.keep import boosted
from llmcost_plugins.compression.llmlingua import LLMLingua
from llmcost_plugins.compression.passages import CompressionResult, Kept, Passage
from llmcost_plugins.compression.reading import Reading, read
from llmcost_plugins.compression.scorers import Bm25, Headed, Hybrid, Scorer
from llmcost_plugins.compression.selection import choose, header_costs, header_of, prompt, show
from llmcost_plugins.compression.settings import (
    Score,
    budget_of,
    check_header,
    check_numbers,
    check_scorer,
    checked,
    patterns,
)
from llmcost_plugins.compression.worth import worth_it
from llmcost_plugins.embeddings import RememberingEmbedder, bundled_embedder, embedder_of
from llmcost_plugins.events import ComponentFailed, Compressed, Sink, emit
from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan, do, in_thread
from llmcost_plugins.scope import current_scope
from llmcost_plugins.tokens import count_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_LOOSER = 2  # the guard of LLMLingua leaves a third of Wikipedia's text; half is a distance from that


@dataclass(frozen=True, slots=True)
class Rates:
    """What tokens cost, in pico-USD each: read by the model, read from its provider's prompt cache, embedded."""

    input: int
    cached: int = 0
    embedding: int = 0


@dataclass(slots=True)
class _Job:
    """One compression under way."""

    query: str
    passages: tuple[Passage, ...]
    started: float
    cached_tokens: int
    sink: Sink | None
    readings: tuple[Reading, ...] = ()
    headers: tuple[str, ...] = ()
    tokens: int = 0
    estimated: bool = False
    budget: int = 0
    embedded: int = 0
    reason: str = ""


class Compressor:
    """Keeps of retrieved passages what serves the question: whole sentences and blocks, to the letter.

    Where a scorer fails or is late, the next simpler one does its work: `hybrid+head`, `hybrid`, `bm25`, and in the
    end the passages as they came. The result and an event say so.

    Args:
        scorer: `"hybrid+head"` (embeddings and words, weighed by a trained head), `"hybrid"` (in fixed shares),
            `"bm25"` (words alone, no model), a `Scorer`, or a function of a question and texts that returns a number a
            text, such as a cross-encoder; it may be async.
        ratio: How many times shorter the passages are to be; 4 where no budget is given.
        tokens: How many tokens may be left, rather than a share.
        window: The model's window: what is left over by `reserve` tokens (prompt and answer) is the budget.
        reserve: See `window`.
        model: Whose tokens are counted.
        embedder: The bundled one by default, or what `embedder_of` takes.
        head: A head of your own, from `fit`.
        protect: Regular expressions; what matches is kept even over the budget.
        min_tokens: Shorter contexts pass through where a ratio is asked for.
        deadline: Seconds after which no further scorer's step begins; those that are awaited are cut short.
        header: What your prompt puts above a passage, with `{title}` and `{number}`; counted, not written.
        rates: Where given, passages pass through if the shorter ones would cost more.
        remembered: How many vectors, and how many passages, are remembered.
        second_stage: Drops words from the sentences that were chosen, out of twice as many as the budget has room for:
            for ratios of 6 to 10. Sentences are no longer whole then; numbers, names, links and negations stay.
        clock: Seconds.
    """

    def __init__(
        self,
        scorer: "str | Scorer | Score" = "hybrid+head",
        *,
        ratio: float | None = None,
        tokens: int | None = None,
        window: int | None = None,
        reserve: int = 0,
        model: str = "",
        embedder: Any = None,
        head: Head | None = None,
        protect: Sequence[str | re.Pattern[str]] = (),
        min_tokens: int = 300,
        deadline: float | None = None,
        header: str = "{title}",
        rates: Rates | None = None,
        remembered: int = 20_000,
        second_stage: LLMLingua | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_scorer(scorer)
        check_numbers(min_tokens, deadline, remembered)
        check_header(header)
        self._scorers = _chain(scorer, head)
        self._budget = budget_of(ratio, tokens, window, reserve)
        self._model, self._protect, self._header = model, patterns(protect), header
        self._min_tokens, self._deadline, self._rates, self._clock = min_tokens, deadline, rates, clock
        self._embedder = RememberingEmbedder(
            bundled_embedder() if embedder is None else embedder_of(embedder), size=remembered
        )
        self._remembered = remembered
        self._second_stage = second_stage
        self._begin()
        after_fork(self, Compressor._begin)

    def _begin(self) -> None:
        self._read: OrderedDict[tuple[str, str, bool], Reading] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings; a copy remembers nothing yet."""
        return {name: value for name, value in vars(self).items() if name not in ("_read", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()
        after_fork(self, Compressor._begin)

    def compress(
        self, query: str, passages: Sequence[Passage], *, cached_tokens: int = 0, sink: Sink | None = None
    ) -> Plan[CompressionResult]:
        """Return the plan that shortens passages for a question.

        Args:
            query: The question.
            passages: What was retrieved; they are never changed.
            cached_tokens: How many of their tokens the provider would read from its prompt cache, for `rates`.
            sink: Where the events go.

        Raises:
            ConfigurationError: The question is no text, or an item is no passage.
        """
        return self._compress(_Job(query, checked(query, passages), self._clock(), cached_tokens, sink))

    def index(self, passages: Sequence[Passage]) -> Plan[None]:
        """Return the plan that reads and embeds passages beforehand, so that questions about them find that done."""
        listed = checked("", passages)
        readings = yield from in_thread(partial(self._readings, listed))
        if any(scorer.needs_vectors for scorer in self._scorers):
            yield from self._embedder.embed([text for reading in readings for text in reading.to_embed()])

    # ------------------------------------------------------------------------------------------------------- the plan

    def _compress(self, job: _Job) -> Plan[CompressionResult]:
        try:
            result = yield from self._shortened(job)
        except Exception as error:  # noqa: BLE001 - a prompt is never lost to a compressor
            self._tell_failure(job, error)
            result = yield from self._passed(job, f"failed: {_said(error)}")
        self._tell(job, result)
        return result

    def _shortened(self, job: _Job) -> Plan[CompressionResult]:
        yield from in_thread(partial(self._prepare, job))
        if reason := self._needless(job):
            return (yield from self._passed(job, reason))
        for scorer in self._scorers:
            try:
                scores = yield from self._scores(job, scorer)
                twice = yield from self._in_two_stages(job, scorer.name, scores)
                return twice or (yield from in_thread(partial(self._select, job, scorer.name, scores)))
            except Exception as error:  # noqa: BLE001 - the next scorer does its work
                self._tell_failure(job, error)
                job.reason = "; ".join(filter(None, (job.reason, f"{scorer.name} failed: {_said(error)}")))
        return (yield from self._passed(job, job.reason))

    def _passed(self, job: _Job, reason: str) -> Plan[CompressionResult]:
        return (yield from in_thread(partial(self._whole, job, reason)))

    def _in_two_stages(self, job: _Job, scorer: str, scores: "NDArray[np.float64]") -> Plan[CompressionResult | None]:
        """Return what the second stage leaves of a looser choice; None where there is none, or it cannot do it."""
        if self._second_stage is None:
            return None
        try:
            result = yield from in_thread(partial(self._thinned, job, scorer, scores, self._second_stage))
        except Exception as error:  # noqa: BLE001 - the first stage does the whole work
            self._tell_failure(job, error)
            job.reason = _and(job.reason, f"{self._second_stage.method} failed: {_said(error)}")
            return None
        if result is None:
            job.reason = _and(job.reason, f"{self._second_stage.method} left too much")
        return result

    def _scores(self, job: _Job, scorer: Scorer) -> Plan["NDArray[np.float64]"]:
        import numpy as np

        end = None if self._deadline is None or scorer.name == "bm25" else job.started + self._deadline
        scores = yield from before(self._asked(job, scorer), end, self._clock)
        checked_scores: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
        if checked_scores.shape != (sum(len(reading.units) for reading in job.readings),):
            raise ValueError(f"it gave scores of the shape {checked_scores.shape}")
        if not np.isfinite(checked_scores).all():
            raise ValueError("it gave a score that is no number")
        return checked_scores

    def _asked(self, job: _Job, scorer: Scorer) -> Plan[Any]:
        evidence = yield from in_thread(partial(Evidence, job.query, job.readings))
        if not len(evidence):
            return []  # nothing but blanks
        if isinstance(scorer, _Function):
            return (yield from scorer.ask(evidence))
        vectors = (yield from self._vectors(job)) if scorer.needs_vectors else None
        return (yield from in_thread(partial(scorer.score, evidence, vectors)))

    def _vectors(self, job: _Job) -> Plan[Vectors]:
        texts = [text for reading in job.readings for text in reading.to_embed()]
        embedded = yield from self._embedder.embed([job.query, *texts])
        job.embedded = sum(embedded.tokens)
        return Vectors(embedded.vectors[0], embedded.vectors[1:])

    # ------------------------------------------------------------------------------------------------ what never waits

    def _prepare(self, job: _Job) -> None:
        job.headers = tuple(header_of(self._header, n, passage) for n, passage in enumerate(job.passages))
        whole = prompt(job.headers, [passage.text for passage in job.passages])
        job.tokens, exact = count_text(whole, self._model)
        job.estimated = not exact
        job.budget = self._budget.of(job.tokens)
        job.readings = self._readings(job.passages)

    def _needless(self, job: _Job) -> str:
        """Return why there is nothing to do, "" where there is."""
        if not job.tokens:
            return "there is no text"
        if not job.query.strip():
            return "the question is empty" if self._budget.tokens is None or job.tokens <= job.budget else ""
        if self._budget.tokens is None and job.tokens < self._min_tokens:
            return f"shorter than {self._min_tokens} tokens"
        return "fits the budget" if job.tokens <= job.budget else ""

    def _readings(self, passages: Sequence[Passage]) -> tuple[Reading, ...]:
        return tuple(self._reading(passage) for passage in passages)

    def _reading(self, passage: Passage) -> Reading:
        key = (passage.title, passage.text, passage.protected)
        with self._lock:
            if (known := self._read.get(key)) is not None:
                self._read.move_to_end(key)
                return known
        reading = read(passage, self._count, self._protect)
        with self._lock:
            self._read[key] = reading
            while len(self._read) > self._remembered:
                self._read.popitem(last=False)
        return reading

    def _count(self, text: str) -> int:
        return count_text(text, self._model).tokens

    def _select(self, job: _Job, scorer: str, scores: "NDArray[np.float64]") -> CompressionResult:
        texts = [unit.text for reading in job.readings for unit in reading.units]
        kept, after = self._fitting(job, boosted(scores, texts))
        over = after > job.budget
        if self._budget.tokens is None and (after >= job.tokens or not kept):
            return self._whole(job, _and(job.reason, "nothing that could be left out fits the budget"))
        if self._rates is not None and not self._pays(job, after, self._rates):
            return self._whole(job, _and(job.reason, "it would cost more than it saves"))
        reason = job.reason if kept else _and(job.reason, "no part of the passages fits the budget")
        return self._result(job, kept, after, scorer, _and(reason, "over budget: protected" if over else ""), over)

    def _thinned(
        self, job: _Job, scorer: str, scores: "NDArray[np.float64]", stage: LLMLingua
    ) -> CompressionResult | None:
        """Return a choice of twice the budget with words dropped from it, None where that is still over the budget."""
        texts = [unit.text for reading in job.readings for unit in reading.units]
        kept, _ = self._fitting(replace(job, budget=min(job.tokens, _LOOSER * job.budget)), boosted(scores, texts))
        whole = [part for part in kept if job.passages[part.index].protected]
        rest = [part for part in kept if not job.passages[part.index].protected]
        costs = header_costs(job.headers, self._count)
        fixed = sum(costs[part.index] for part in kept) + sum(part.kept_tokens for part in whole)
        shortened = stage.shorten(
            [job.passages[part.index].text for part in rest],
            query=job.query,
            budget=max(0, job.budget - fixed),
            count=self._count,
            spans=[part.spans for part in rest],
            keep=self._is_protected,
        )
        shorter = [
            replace(part, text=short.text, spans=short.spans, kept_tokens=self._count(short.text))
            for part, short in zip(rest, shortened.texts, strict=True)
            if short.text
        ]
        thin = sorted([*whole, *shorter], key=lambda part: part.index)
        left = {part.index: part.text for part in thin}
        after = self._count(prompt(job.headers, [left.get(n, "") for n in range(len(job.passages))]))
        if not thin or after > job.budget:
            return None
        return self._result(job, tuple(thin), after, f"{scorer}+{stage.method}", job.reason, over=False)

    def _is_protected(self, text: str) -> bool:
        return any(pattern.search(text) for pattern in self._protect)

    def _fitting(self, job: _Job, scores: "NDArray[np.float64]") -> tuple[tuple[Kept, ...], int]:
        """Return the best units whose tokens, counted as one prompt, are within the budget, and their tokens.

        Parts are counted one by one first; where that was too few, as much less is tried again.
        """
        costs, budget = header_costs(job.headers, self._count), job.budget
        while True:
            kept = tuple(self._kept(job, scores, budget, costs))
            texts = {part.index: part.text for part in kept}
            whole = prompt(job.headers, [texts.get(n, "") for n in range(len(job.passages))])
            after = self._count(whole) if whole else 0
            if after <= job.budget or budget <= 0:
                return kept, after
            budget -= after - job.budget

    def _kept(self, job: _Job, scores: "NDArray[np.float64]", budget: int, costs: Sequence[int]) -> Iterator[Kept]:
        chosen = choose(job.readings, scores, budget, costs)
        place = 0
        for n, (passage, reading, units) in enumerate(zip(job.passages, job.readings, chosen, strict=True)):
            if units:
                shown = show(passage, reading, units)
                best = max(float(scores[place + unit]) for unit in units)
                original = sum(reading.tokens)
                yield Kept(n, shown.text, shown.spans, original, sum(reading.tokens[unit] for unit in units), best)
            place += len(reading.units)

    def _pays(self, job: _Job, after: int, rates: Rates) -> bool:
        return worth_it(
            job.tokens,
            after,
            input_rate=rates.input,
            cached_tokens=job.cached_tokens,
            cached_rate=rates.cached,
            embedded_tokens=job.embedded,
            embedding_rate=rates.embedding,
        )

    # ---------------------------------------------------------------------------------------------------- what is told

    def _whole(self, job: _Job, reason: str) -> CompressionResult:
        """Return the passages as they came."""
        tokens = [self._count(passage.text) for passage in job.passages]
        kept = tuple(
            Kept(n, passage.text, ((0, len(passage.text)),) if passage.text else (), count, count)
            for n, (passage, count) in enumerate(zip(job.passages, tokens, strict=True))
        )
        return self._result(job, kept, job.tokens, "none", reason, over=False, budget=None)

    def _result(
        self,
        job: _Job,
        kept: tuple[Kept, ...],
        after: int,
        scorer: str,
        reason: str,
        over: bool,
        budget: int | None = -1,
    ) -> CompressionResult:
        return CompressionResult(
            kept=kept,
            originals=job.passages,
            tokens_before=job.tokens,
            tokens_after=after,
            budget=job.budget if budget == -1 else budget,
            scorer=scorer,
            reason=reason,
            estimated=job.estimated,
            over_budget=over,
            cost=job.embedded * (self._rates.embedding if self._rates else 0),
            seconds=self._clock() - job.started,
        )

    def _tell(self, job: _Job, result: CompressionResult) -> None:
        emit(
            Compressed(
                time=self._clock(),
                tokens_before=result.tokens_before,
                tokens_after=result.tokens_after,
                scorer=result.scorer,
                reason=result.reason,
                requested=self._requested(job),
                reached=result.ratio,
                seconds=result.seconds,
                cost=result.cost,
                estimated=result.estimated,
                over_budget=result.over_budget,
                scope=current_scope(),
            ),
            job.sink,
        )

    def _requested(self, job: _Job) -> float | None:
        if self._budget.ratio is not None:
            return self._budget.ratio
        return job.tokens / job.budget if job.tokens > job.budget > 0 else None

    def _tell_failure(self, job: _Job, error: Exception) -> None:
        failure = ComponentFailed(
            time=self._clock(), component="compression", error=_said(error), scope=current_scope()
        )
        emit(failure, job.sink)


@dataclass(frozen=True, slots=True)
class _Function:
    """A function of a question and texts as a scorer."""

    function: Score
    name: str
    needs_vectors: bool = False

    def score(self, evidence: Evidence, vectors: Vectors | None) -> "NDArray[np.float64]":
        scores: NDArray[np.float64] = self.function(evidence.query, evidence.texts)
        return scores

    def ask(self, evidence: Evidence) -> Plan[Any]:
        """Ask the function where it does not hold up the event loop; one that is async is awaited."""
        call = partial(self.function, evidence.query, evidence.texts)
        if inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(
            getattr(self.function, "__call__", None)  # noqa: B004 - to tell an async one
        ):
            return (yield from do(lambda: asyncio.run(call()), call))
        return (yield from in_thread(call))


def _chain(scorer: "str | Scorer | Score", head: Head | None) -> "tuple[Scorer, ...]":
    """Return the scorer and those that stand in for it, in turn."""
    if isinstance(scorer, str):
        built_in: tuple[Scorer, ...] = (Headed(head), Hybrid(), Bm25())
        names = [one.name for one in built_in]
        return built_in[names.index(scorer) :]
    if hasattr(scorer, "score"):
        return cast("Scorer", scorer), Bm25()
    return _Function(scorer, getattr(scorer, "__name__", type(scorer).__name__)), Bm25()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _and(reason: str, more: str) -> str:
    return "; ".join(filter(None, (reason, more)))
