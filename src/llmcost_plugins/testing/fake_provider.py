"""An LLM provider for tests and demos: a real HTTP server with made-up answers and known costs."""

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from llmcost_plugins.errors import MissingExtra
from llmcost_plugins.testing.admission import Script
from llmcost_plugins.testing.records import (
    Answer,
    Clock,
    DropMode,
    Failure,
    Latency,
    Ledger,
    Limits,
    Served,
    Settings,
    StreamDrop,
    Totals,
)

if TYPE_CHECKING:
    from llmcost_plugins.testing.app import App
    from llmcost_plugins.testing.server import LoopbackServer


class FakeProvider:
    """Serves OpenAI's chat completions and embeddings and Anthropic's messages on the loopback interface.

    ```python
    with FakeProvider() as provider:
        model = ChatOpenAI(model="gpt-5.4-mini", base_url=provider.url, api_key="any")
        model.invoke("hello")
        assert provider.calls == 1
    ```

    Token counts are estimates (a quarter of the bytes), but exactly those that are served: what a client reports can
    be compared with `served` to the token. A request that offers tools and ends with the user's message is answered
    with a call of the first tool (or the one that `tool_choice` names); one that asks for a JSON format, with JSON
    made up for the schema, unless the answer is a JSON object itself.

    Args:
        answer: Makes the answer from the model's name and the messages in OpenAI's format; runs in the server's
            thread. By default the answer depends on the model and the last user text alone.
        latency: How long replies take.
        limits: Rate limits, for each model by name or for all models alike (but counted for each).
        failures: Scripted refusals, as `fail` adds them.
        failure_rate: The share of requests that are answered with status 500.
        context_windows: The most tokens that prompt and `max_tokens` may have, by model.
        model_suffix: What the model's name has in replies after the one requested, as the providers' snapshot names
            do; Anthropic's models get it without the dashes of the date. None leaves the name as it is.
        reasoning_tokens: Hidden tokens that every choice costs on top of its text.
        keep_alive: Whether connections stay open after a reply. Clients that keep connections for later leave open
            sockets behind in tests that each run an event loop of their own; False avoids that.
        port: The port to listen on; 0 takes a free one.
        seed: Makes latencies and random failures repeatable.
        clock: Ages prompt caches and rate limits and dates `served`, in seconds.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        latency: Latency | None = None,
        limits: Mapping[str, Limits] | Limits | None = None,
        failures: Iterable[Failure] = (),
        failure_rate: float = 0.0,
        context_windows: Mapping[str, int] | None = None,
        model_suffix: str | None = "-2026-03-17",
        reasoning_tokens: int = 0,
        keep_alive: bool = True,
        port: int = 0,
        seed: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._settings = Settings(
            answer=answer,
            latency=latency,
            limits=limits,
            context_windows=context_windows or {},
            model_suffix=model_suffix,
            reasoning_tokens=reasoning_tokens,
            keep_alive=keep_alive,
            seed=seed,
            clock=clock,
        )
        self._port = port
        self._ledger = Ledger()
        self._script = Script(failure_rate, seed)
        self._app: App | None = None
        self._server: LoopbackServer | None = None
        for failure in failures:
            self._script.add_failure(failure)

    def start(self) -> Self:
        """Start listening.

        Raises:
            MissingExtra: The packages of the `demo` extra are not installed.
            PortInUse: Something else listens on the port.
        """
        if self._server is not None:
            raise RuntimeError("This fake provider is running already")
        try:
            from llmcost_plugins.testing.app import App
            from llmcost_plugins.testing.server import LoopbackServer
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "uvicorn", "demo") from error
        server = LoopbackServer(self._port)
        self._app = App(self._settings, self._ledger, self._script, server.break_connection)
        server.start(self._app)
        self._server = server
        return self

    def close(self) -> None:
        """Stop at once, cutting the connections that are open; what was served stays readable."""
        if self._server is not None:
            self._server.close()
            self._server = self._app = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def root_url(self) -> str:
        """The base URL for Anthropic's clients."""
        if self._server is None:
            raise RuntimeError("This fake provider is not running; call start() or use it in a with statement")
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def url(self) -> str:
        """The base URL for OpenAI's clients."""
        return f"{self.root_url}/v1"

    @property
    def served(self) -> list[Served]:
        """What was served so far; a reply is in it before the client has read it to its end."""
        return self._ledger.served()

    @property
    def calls(self) -> int:
        """How many generations have to be paid, embeddings not counted."""
        return sum(served.paid and served.api != "embeddings" for served in self.served)

    def billed(self, model: str | None = None) -> Totals:
        """Add up what has to be paid, embeddings included, for one model or all."""
        paid = [served for served in self.served if served.paid and model in (None, served.model)]
        return Totals(
            requests=len(paid),
            input_tokens=sum(served.input_tokens for served in paid),
            cached_tokens=sum(served.cached_tokens for served in paid),
            cache_write_tokens=sum(served.cache_write_tokens for served in paid),
            output_tokens=sum(served.output_tokens for served in paid),
        )

    def fail(
        self, *, model: str | None = None, status: int = 500, times: int = 1, retry_after: float | None = None
    ) -> None:
        """Refuse the next `times` requests for a model, or for any; `retry_after` seconds go into the header."""
        self._script.add_failure(Failure(status=status, model=model, times=times, retry_after=retry_after))

    def drop_stream(
        self, *, after_chunks: int = 3, times: int = 1, model: str | None = None, mode: DropMode = "abort"
    ) -> None:
        """Break the next `times` streams after so many events, and in any case before the last one.

        The mode `abort` closes the connection amid the reply; `clean` ends the reply as if it were whole.
        """
        self._script.add_drop(StreamDrop(after_chunks=after_chunks, model=model, times=times, mode=mode))

    def wait_idle(self, timeout: float = 5.0) -> None:
        """Block until no request is in flight, as after a client left amid a stream.

        Raises:
            TimeoutError: One still was after `timeout` seconds.
        """
        self._ledger.wait_idle(timeout)

    def reset(self) -> None:
        """Forget what was served and scripted, and empty prompt caches and rate limits."""
        self._ledger.clear()
        self._script.clear()
        if self._app is not None:
            self._app.reset()
