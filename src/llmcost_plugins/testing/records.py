"""What a fake provider is told to do, and the truth about what it served."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Api = Literal["openai", "anthropic", "embeddings"]
DropMode = Literal["abort", "clean"]
Answer = Callable[[str, list[dict[str, Any]]], str]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """The rate limits of one model; `None` is no limit.

    The per-minute limits are counted over a sliding window of 60 seconds of the provider's clock.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """How long replies take: log-normal around `median` seconds.

    Attributes:
        median: Half of the replies take longer than this many seconds.
        sigma: The spread of the logarithm; 0 makes every reply take `median`.
        first_token: The share of a streamed reply's time that passes before its first event.
    """

    median: float
    sigma: float = 0.5
    first_token: float = 0.3


@dataclass(frozen=True, slots=True)
class Failure:
    """A scripted refusal of the next `times` requests for `model` (for any model when None)."""

    status: int = 500
    model: str | None = None
    times: int = 1
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class StreamDrop:
    """A scripted break of the next `times` streams of `model` (of any model when None)."""

    after_chunks: int = 3
    model: str | None = None
    times: int = 1
    mode: DropMode = "abort"


@dataclass(frozen=True, slots=True)
class Settings:
    """The arguments of a `FakeProvider`, which explains them."""

    answer: Answer | None
    latency: Latency | None
    limits: Mapping[str, Limits] | Limits | None
    context_windows: Mapping[str, int]
    model_suffix: str | None
    reasoning_tokens: int
    keep_alive: bool
    seed: int
    clock: Clock


@dataclass(frozen=True, slots=True)
class Served:
    """One request as the provider saw it, with what it would bill for it.

    Attributes:
        index: The position in `FakeProvider.served`, which is the order in which requests finished.
        model: The model as the client named it; empty when the request did not get that far.
        status: The HTTP status; a stream that broke keeps its 200.
        input_tokens: All input tokens, those read from and written to the prompt cache included.
        cached_tokens: The part of `input_tokens` read from the prompt cache.
        cache_write_tokens: The part of `input_tokens` billed as written to the prompt cache.
        cache_write_1h_tokens: The part of `cache_write_tokens` written for an hour.
        output_tokens: The tokens billed; for a stream that was cut, those sent before the cut.
        reasoning_tokens: The part of `output_tokens` that the client never sees as text.
        usage_reported: Whether the client was sent the final token counts.
        complete: False when the client left or the stream was dropped before its end.
        chunks_sent: The stream events sent; 0 for a reply in one piece.
        answer: The text of the first choice as far as it was sent, or its tool call as name and JSON arguments.
        started: When the request arrived, by the provider's clock.
        finished: When its last part was handed to the network, by the provider's clock.
    """

    index: int
    api: Api
    path: str
    model: str
    status: int
    stream: bool
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    reasoning_tokens: int
    usage_reported: bool
    complete: bool
    chunks_sent: int
    request: Mapping[str, Any]
    answer: str
    started: float
    finished: float

    @property
    def paid(self) -> bool:
        """Whether the request got as far as a reply, and so has a price."""
        return self.status == 200


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over the paid requests."""

    requests: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int


class Ledger:
    """The list of what was served, shared by the server's thread and its users' threads."""

    def __init__(self) -> None:
        self._served: list[Served] = []
        self._in_flight = 0
        self._changed = threading.Condition()

    def enter(self) -> None:
        """Count a request as in flight."""
        with self._changed:
            self._in_flight += 1

    def leave(self) -> None:
        """Count a request as over."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def add(self, **facts: Any) -> None:
        """Append a `Served` made of all its fields but `index`."""
        with self._changed:
            self._served.append(Served(index=len(self._served), **facts))

    def served(self) -> list[Served]:
        """Return a copy of the list."""
        with self._changed:
            return self._served.copy()

    def clear(self) -> None:
        """Forget what was served."""
        with self._changed:
            self._served.clear()

    def wait_idle(self, timeout: float) -> None:
        """Block until no request is in flight.

        Raises:
            TimeoutError: One still was after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_flight == 0, timeout):
                raise TimeoutError(f"{self._in_flight} request(s) still in flight after {timeout} seconds")
