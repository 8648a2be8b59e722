"""The demo: the same traffic through the same clients, plain and with the layers, measured against the truth."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcost_plugins.cache import Cache
from llmcost_plugins.compression import Compressor
from llmcost_plugins.errors import MissingExtra, RequestFailed
from llmcost_plugins.events import CacheMissed, Event, listening
from llmcost_plugins.ledger import Ledger, Summary
from llmcost_plugins.ledger.summary import percentile
from llmcost_plugins.plan import drive
from llmcost_plugins.pricing import PriceBook, default_prices
from llmcost_plugins.replay.context import Compression, Reader
from llmcost_plugins.replay.traffic import Row, Traffic
from llmcost_plugins.scope import scope
from llmcost_plugins.stores import Memory
from llmcost_plugins.testing import FakeProvider, Latency
from llmcost_plugins.tokens import count_messages, count_text
from llmcost_plugins.types import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage

_UNKNOWN_ANSWER_TOKENS = 200
_ANSWER_WORDS = 45
_PAGE = 500
_RATIO = 2.0  # for prompts of a few passages; of twenty, four are left without loss

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the models are. Without `base_url` the demo serves them itself, at no cost."""

    strong: str = "gpt-5.4"
    weak: str = "gpt-5.4-mini"
    base_url: str | None = None
    api_key: str = "none"

    @property
    def real(self) -> bool:
        """Whether calls leave this machine and cost money."""
        return self.base_url is not None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. `right` and `wrong_hit` are None where the traffic does not say.

    `hit` is the cache's tier, None for an answer that was bought; `similarity` is the cosine of a hit's two questions.
    `bought_for` is, for a wrong hit, the request whose answer was given again.
    """

    row: Row
    text: str
    tier: str
    hit: str | None
    wrong_hit: bool | None
    right: bool | None
    seconds: float
    cost_so_far: int
    similarity: float = 1.0
    bought_for: Row | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One pass through the traffic. `served` is what the provider counted, None where it is not ours.

    `misses` say of each request that the cache did not answer why that is, `compression` what became of retrieved
    passages.
    """

    name: str
    summary: Summary
    outcomes: tuple[Outcome, ...]
    served: Any = None
    misses: tuple[CacheMissed, ...] = ()
    compression: Compression | None = None

    @property
    def wrong_hits(self) -> list[Outcome]:
        """The requests that were given the answer to another question."""
        return [outcome for outcome in self.outcomes if outcome.wrong_hit]

    @property
    def quality(self) -> float | None:
        """Share of requests with a right answer, None where the traffic does not say of each."""
        judged = [outcome.right for outcome in self.outcomes]
        return None if None in judged else sum(map(bool, judged)) / len(judged)

    @property
    def billed_is_served(self) -> bool | None:
        """Whether the ledger's tokens are those that the provider served, each class of them."""
        if self.served is None:
            return None
        sums = self.summary.totals
        billed = (sums.paid, sums.input_tokens, sums.cached_tokens, sums.output_tokens)
        served = (
            self.served.requests,
            self.served.input_tokens,
            self.served.cached_tokens,
            self.served.output_tokens,
        )
        return billed == served

    def latency(self, share: float) -> float:
        """Return a percentile of the seconds that requests took, hits included."""
        return percentile(sorted(outcome.seconds for outcome in self.outcomes), share) or 0.0


@dataclass(frozen=True, slots=True)
class Demo:
    """Both passes over the same traffic."""

    traffic: Traffic
    endpoint: Endpoint
    plain: Run
    layered: Run

    @property
    def unpriced(self) -> int:
        """How many calls have no known price."""
        return self.plain.summary.totals.unpriced + self.layered.summary.totals.unpriced

    @property
    def saved(self) -> float | None:
        """Share of the plain run's cost that the layers took off it, by the two bills; None where one is not known."""
        before = self.plain.summary.totals.cost
        return None if self.unpriced or not before else 1 - self.layered.summary.totals.cost / before


def estimate(traffic: Traffic, endpoint: Endpoint, prices: PriceBook | None = None) -> int | None:
    """Return about what a demo costs in pico-USD, None for a model without a known price.

    Both passes at the strong model's price, with answers as long as in the traffic; those that it does not hold count
    as 200 tokens. A model that writes more, or thinks, costs more.
    """
    total = 0
    for row in traffic.rows:
        read = count_messages(row.messages, endpoint.strong).tokens
        answer = row.strong_answer
        written = count_text(answer, endpoint.strong).tokens if answer else _UNKNOWN_ANSWER_TOKENS
        book = prices or default_prices()
        cost = book.cost("openai", endpoint.strong, Usage(read, written), at=time.time())
        if cost is None:
            return None
        total += 2 * cost.total
    return total


def run_demo(
    traffic: Traffic,
    *,
    endpoint: Endpoint | None = None,
    latency: float = 0.012,
    progress: Progress | None = None,
) -> Demo:
    """Send the traffic through real OpenAI clients twice: to the strong model alone, then with cache and router.

    Args:
        traffic: What to send, in its order and one at a time, so that a run is repeatable.
        endpoint: A real provider; by default a `FakeProvider` on this machine, which serves the traffic's own answers.
        latency: Median seconds of the fake provider's replies.
        progress: Told the pass, the requests done and their number, after each request.
    """
    endpoint = endpoint or Endpoint()
    desk = _Desk(endpoint)
    store = Memory()
    with _provider(desk, endpoint, latency) as (url, provider):
        strong, weak = (_client(model, url, endpoint) for model in (endpoint.strong, endpoint.weak))
        layers = _layers(weak, strong, Cache(store, clock=desk.clock))
        plain = _pass("plain", traffic, desk, lambda _: strong, _Judge(store), provider, progress)
        reader = Reader(Compressor(ratio=_RATIO, model=endpoint.strong))
        layered = _pass("with layers", traffic, desk, layers, _Judge(store), provider, progress, reader)
    return Demo(traffic, endpoint, plain, layered)


class _Desk:
    """Knows which request is being asked: the provider answers it, and the cache's clock shows its time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.row = Row("", 0.0, ())
        self._started = time.time()

    def answer(self, model: str, messages: Sequence[Any]) -> str:
        strong = model == self._endpoint.strong
        known = self.row.strong_answer if strong else self.row.weak_answer
        return _made_up(model, self.row.question) if known is None else known

    def clock(self) -> float:
        return self._started + self.row.at


@contextmanager
def _provider(desk: _Desk, endpoint: Endpoint, latency: float) -> Iterator[tuple[str, FakeProvider | None]]:
    if endpoint.base_url is not None:
        yield endpoint.base_url, None
        return
    with FakeProvider(desk.answer, latency=Latency(median=latency)) as provider:
        yield provider.url, provider


def _client(model: str, url: str, endpoint: Endpoint) -> "BaseChatModel":
    try:
        from langchain_openai import ChatOpenAI
    except ModuleNotFoundError as error:
        raise MissingExtra("langchain-openai", "demo") from error
    return ChatOpenAI(model=model, base_url=url, api_key=endpoint.api_key, cache=False)  # type: ignore[arg-type]


def _layers(weak: "BaseChatModel", strong: "BaseChatModel", cache: Cache) -> Callable[[Ledger], "BaseChatModel"]:
    from llmcost_plugins.langchain import CostAwareChatModel

    return lambda ledger: CostAwareChatModel(tiers=[weak, strong], cache=cache, ledger=ledger)


def _pass(
    name: str,
    traffic: Traffic,
    desk: _Desk,
    build: "Callable[[Ledger], BaseChatModel]",
    judge: "_Judge",
    provider: FakeProvider | None,
    progress: Progress | None,
    reader: Reader | None = None,
) -> Run:
    from llmcost_plugins.langchain import CostCallbackHandler

    ledger = Ledger(keep=max(20_000, 4 * len(traffic.rows)))
    chat = build(ledger)
    handler = CostCallbackHandler(ledger=ledger)
    if provider is not None:
        provider.reset()
    outcomes: list[Outcome] = []
    misses: list[CacheMissed] = []

    def note(event: Event) -> None:
        if isinstance(event, CacheMissed):
            misses.append(event)

    for number, row in enumerate(traffic.rows, start=1):
        desk.row = row
        started = time.perf_counter()
        try:
            with scope(tenant=row.tenant, user=row.user, feature=row.feature), listening(note):
                messages = row.messages if reader is None else reader.messages(row)
                reply = chat.invoke([dict(message) for message in messages], {"callbacks": [handler]})
        except Exception as error:
            raise RequestFailed(f"request {row.id!r} ({number} of {len(traffic.rows)}) failed: {error}") from error
        seconds = time.perf_counter() - started
        outcomes.append(judge.outcome(row, reply, seconds, ledger.spent))
        if progress is not None:
            progress(name, number, len(traffic.rows))
    served = provider.billed() if provider is not None else None
    done = reader.done if reader is not None and reader.done.prompts else None
    return Run(name, ledger.summary(), tuple(outcomes), served, tuple(misses), done)


class _Judge:
    """Holds each cached reply against the labels of the requests that its text was bought for."""

    def __init__(self, store: Memory) -> None:
        self._entries = store.entries()
        self._bought_for: dict[str, list[Row]] = {}

    def outcome(self, row: Row, reply: "AIMessage", seconds: float, cost_so_far: int) -> Outcome:
        text = str(reply.text)
        mark = reply.response_metadata.get("llmcost", {})
        hit = mark.get("cache")
        if hit is None:
            self._bought_for.setdefault(text, []).append(row)
        bought_for = self._bought_for[text]
        labelled = hit is not None and row.answer_id is not None
        wrong = all(other.answer_id != row.answer_id for other in bought_for) if labelled else None
        return Outcome(
            row=row,
            text=text,
            tier="cache" if hit else str(reply.response_metadata.get("model_name", "")),
            hit=hit,
            wrong_hit=wrong,
            right=False if wrong else _right(row, text),
            seconds=seconds,
            cost_so_far=cost_so_far,
            similarity=mark.get("similarity", 1.0),
            bought_for=self._asked_first(mark["entry_id"], bought_for) if wrong else None,
        )

    def _asked_first(self, entry_id: str, bought_for: Sequence[Row]) -> Row:
        """Return the request that an entry was kept for; several may have been sold the same text."""
        question = self._question(entry_id)
        return next((row for row in reversed(bought_for) if row.question.strip() == question), bought_for[-1])

    def _question(self, entry_id: str) -> str | None:
        after: str | None = None
        while page := drive(self._entries.page(after, _PAGE)):
            for entry in page:
                if entry.key.startswith(entry_id):
                    return entry.question.strip()
            after = page[-1].key
        return None


def _right(row: Row, text: str) -> bool | None:
    if row.strong_answer is not None and text == row.strong_answer:
        return True
    return row.weak_right if row.weak_answer is not None and text == row.weak_answer else None


def _made_up(model: str, question: str) -> str:
    """Return an answer of ordinary length that depends on model and question alone, and quotes neither."""
    digest = hashlib.sha256(f"{model}\0{question}".encode()).hexdigest()
    words = [digest[at : at + 5] for at in range(_ANSWER_WORDS)]
    return f"{' '.join(words)}."
