"""The ASGI application behind a fake provider."""

import asyncio
import contextlib
import json
import math
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from llmcost_plugins.testing.admission import RateGate, Script
from llmcost_plugins.testing.anthropic_api import AnthropicMessages
from llmcost_plugins.testing.embeddings import embeddings_body, input_tokens, inputs
from llmcost_plugins.testing.generation import default_answer, generate
from llmcost_plugins.testing.openai_api import OpenAIChat, invalid, required_model
from llmcost_plugins.testing.records import Api, Ledger, Settings
from llmcost_plugins.testing.wire import Asked, Dialect, Event, JsonObject, RefusedError, Reply, Usage

_LISTED_MODELS = ("gpt-5.4", "gpt-5.4-mini", "claude-sonnet-4-6", "claude-haiku-4-5", "text-embedding-3-small")
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)

Endpoint = Callable[["_Exchange"], Awaitable[None]]


@dataclass(slots=True)
class _Exchange:
    """One request on its way to a `Served`; its status is that of a crash until something is generated."""

    api: Api
    request: Request
    send: Send
    started: float
    model: str = ""
    status: int = 500
    body: JsonObject = field(default_factory=dict)
    stream: bool = False
    usage: Usage = field(default_factory=lambda: Usage(input=0))
    output_tokens: int = 0
    usage_reported: bool = False
    complete: bool = False
    chunks_sent: int = 0
    answer: str = ""
    saved: bool = False

    def add_event(self, event: Event) -> None:
        """Count an event as sent."""
        self.chunks_sent += 1
        self.output_tokens = self.usage.reasoning + event.tokens
        self.answer += event.answer
        self.usage_reported = self.usage_reported or event.usage

    def facts(self, finished: float) -> dict[str, Any]:
        """Return the fields of a `Served`."""
        return {
            "api": self.api,
            "path": self.request.url.path,
            "model": self.model,
            "status": self.status,
            "stream": self.stream,
            "input_tokens": self.usage.input,
            "cached_tokens": self.usage.cached,
            "cache_write_tokens": self.usage.written_5m + self.usage.written_1h,
            "cache_write_1h_tokens": self.usage.written_1h,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.usage.reasoning,
            "usage_reported": self.usage_reported,
            "complete": self.complete,
            "chunks_sent": self.chunks_sent,
            "request": self.body,
            "answer": self.answer,
            "started": self.started,
            "finished": finished,
        }


class App:
    """Answers both providers' requests.

    Args:
        settings: How to answer.
        ledger: Where to write down what was served.
        script: What to let fail.
        break_connection: Closes the connection of an ASGI scope.
    """

    def __init__(
        self, settings: Settings, ledger: Ledger, script: Script, break_connection: Callable[[Scope], None]
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._script = script
        self._break_connection = break_connection
        self._gate = RateGate(settings.limits, settings.clock)
        self._random = random.Random(settings.seed)  # noqa: S311 - repeatable on purpose
        self._openai = OpenAIChat(settings.clock, settings.model_suffix)
        self._anthropic = AnthropicMessages(settings.clock, settings.model_suffix)
        self._endpoints: dict[str, tuple[Api, Dialect, Endpoint]] = {
            "/v1/chat/completions": ("openai", self._openai, self._generate),
            "/v1/messages": ("anthropic", self._anthropic, self._generate),
            "/v1/embeddings": ("embeddings", self._openai, self._embed),
        }

    def reset(self) -> None:
        """Empty the prompt caches and the rate limits."""
        self._openai.forget()
        self._anthropic.forget()
        self._gate.reset()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._ledger.enter()
        try:
            await self._route(Request(scope, receive, send), send if self._settings.keep_alive else _closing(send))
        finally:
            self._ledger.leave()

    async def _route(self, request: Request, send: Send) -> None:
        path, method = request.url.path, request.method
        if method == "POST" and path in self._endpoints:
            api, dialect, endpoint = self._endpoints[path]
            await self._exchange(_Exchange(api, request, send, self._settings.clock()), dialect, endpoint)
        elif method == "GET" and path == "/v1/models":
            await _send_json(send, 200, _models_body())
        else:
            refused = RefusedError(404, f"Invalid URL ({method} {path})", code="unknown_url")
            dialect = self._anthropic if "anthropic-version" in request.headers else self._openai
            await _send_json(send, refused.status, dialect.error(refused))

    async def _exchange(self, exchange: _Exchange, dialect: Dialect, endpoint: Endpoint) -> None:
        try:
            await endpoint(exchange)
        except RefusedError as refused:
            exchange.status = refused.status
            exchange.complete = True
            self._save(exchange)
            await _send_json(exchange.send, refused.status, dialect.error(refused), refused.headers)
        finally:
            self._save(exchange)

    def _save(self, exchange: _Exchange) -> None:
        """Write the request down once; always before its last byte is sent, so that the client finds it."""
        if not exchange.saved:
            exchange.saved = True
            self._ledger.add(**exchange.facts(self._settings.clock()))

    async def _generate(self, exchange: _Exchange) -> None:
        dialect = self._dialect(exchange)
        account = _account(exchange.request)
        exchange.body = await _json_body(exchange.request)
        exchange.model = str(exchange.body.get("model") or "")
        asked = _understood(dialect, exchange.body)
        exchange.stream = asked.stream
        self._script.check(asked.model)
        self._check_window(dialect, asked)
        with self._gate.admit(dialect, asked.model, asked.prompt.tokens) as gate:
            reply = self._reply(dialect, account, asked)
            exchange.status, exchange.usage = 200, reply.usage
            headers: dict[str, str] = {}
            if gate is not None:
                gate.charge(reply.usage.output)
                headers = gate.headers(dialect)
            deliver = self._stream if asked.stream else self._send_whole
            await deliver(exchange, dialect, reply, headers)

    def _dialect(self, exchange: _Exchange) -> Dialect:
        return self._anthropic if exchange.api == "anthropic" else self._openai

    def _check_window(self, dialect: Dialect, asked: Asked) -> None:
        window = self._settings.context_windows.get(asked.model)
        refused = None if window is None else dialect.overflow(asked, window)
        if refused is not None:
            raise refused

    def _reply(self, dialect: Dialect, account: str, asked: Asked) -> Reply:
        limit = math.inf if asked.max_tokens is None else asked.max_tokens
        reasoning = int(min(self._settings.reasoning_tokens, limit))
        room = None if asked.max_tokens is None else asked.max_tokens - reasoning
        try:
            outputs = generate(asked, self._settings.answer or default_answer, room)
        except Exception as error:
            message = f"The answer function raised {error!r}"
            raise RefusedError(500, message, headers={"x-should-retry": "false"}) from error
        spent = reasoning * asked.n
        counted = dialect.count_input(account, asked)
        output = spent + sum(output.tokens for output in outputs)
        return Reply(asked, outputs, replace(counted, output=output, reasoning=spent))

    async def _send_whole(
        self, exchange: _Exchange, dialect: Dialect, reply: Reply, headers: Mapping[str, str]
    ) -> None:
        exchange.output_tokens = reply.usage.output
        delay = self._delay()
        if delay:
            async with _departure(exchange.request) as gone:
                if await _left_within(gone, delay):
                    return
        exchange.answer = reply.outputs[0].head + reply.outputs[0].text
        exchange.usage_reported = exchange.complete = True
        self._save(exchange)
        await _send_json(exchange.send, 200, dialect.body(reply), headers)

    async def _stream(self, exchange: _Exchange, dialect: Dialect, reply: Reply, headers: Mapping[str, str]) -> None:
        events = dialect.events(reply)
        drop = self._script.take_drop(exchange.model)
        kept = events if drop is None else events[: min(drop.after_chunks, len(events) - 1)]
        async with _departure(exchange.request) as gone:
            await self._send_events(exchange, kept, gone, headers, ends=drop is None)
            if drop is None or gone.done():
                return
            self._save(exchange)
            if drop.mode == "clean":
                await exchange.send({"type": "http.response.body"})
            else:
                self._break_connection(exchange.request.scope)
                await gone

    async def _send_events(
        self,
        exchange: _Exchange,
        events: list[Event],
        gone: "asyncio.Task[None]",
        headers: Mapping[str, str],
        *,
        ends: bool,
    ) -> None:
        """Send events until the client leaves; the reply is over after them if it `ends`."""
        delay = self._delay()
        first = delay * (self._settings.latency.first_token if self._settings.latency else 0.0)
        pause = (delay - first) / max(1, len(events) - 1)
        exchange.output_tokens = exchange.usage.reasoning
        await _start(exchange.send, 200, "text/event-stream", headers)
        for position, event in enumerate(events):
            if await _left_within(gone, pause if position else first):
                return
            exchange.add_event(event)
            if last := ends and position == len(events) - 1:
                exchange.complete = True
                self._save(exchange)
            await exchange.send({"type": "http.response.body", "body": event.data, "more_body": not last})

    def _delay(self) -> float:
        latency = self._settings.latency
        return 0.0 if latency is None else latency.median * math.exp(self._random.gauss(0.0, latency.sigma))

    async def _embed(self, exchange: _Exchange) -> None:
        _account(exchange.request)
        body = exchange.body = await _json_body(exchange.request)
        exchange.model = str(body.get("model") or "")
        model = required_model(body)
        texts = inputs(body)
        tokens = input_tokens(texts)
        self._script.check(model)
        with self._gate.admit(self._openai, model, tokens):
            reply = embeddings_body(body, texts, tokens, model)
            exchange.status, exchange.usage = 200, Usage(input=tokens)
            exchange.usage_reported = exchange.complete = True
            self._save(exchange)
            await _send_json(exchange.send, 200, reply)


@contextlib.asynccontextmanager
async def _departure(request: Request) -> "AsyncIterator[asyncio.Task[None]]":
    """Give a task that is done when the client has left."""

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.create_task(wait())
    try:
        yield gone
    finally:
        gone.cancel()


async def _left_within(gone: "asyncio.Task[None]", seconds: float) -> bool:
    """Wait, at least for one turn of the event loop, and tell whether the client left meanwhile."""
    if seconds > 0:
        await asyncio.wait({gone}, timeout=seconds)
    else:
        await asyncio.sleep(0)
    return gone.done()


def _account(request: Request) -> str:
    """Return the API key, of which any is good."""
    key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if not key:
        raise RefusedError(401, "You didn't provide an API key.", code="invalid_api_key")
    return key


async def _json_body(request: Request) -> JsonObject:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise invalid(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(body, dict):
        raise invalid("The JSON body of your request must be an object.")
    return body


def _understood(dialect: Dialect, body: JsonObject) -> Asked:
    try:
        return dialect.read(body)
    except _MALFORMED as error:
        raise invalid(f"The request is not well formed: {error!r}") from error


def _models_body() -> JsonObject:
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in _LISTED_MODELS]
    return {"object": "list", "data": models}


def _closing(send: Send) -> Send:
    """Announce that the connection ends with the reply."""

    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"].append((b"connection", b"close"))
        await send(message)

    return send_closing


async def _start(send: Send, status: int, content_type: str, headers: Mapping[str, str]) -> None:
    request_id = f"req_{secrets.token_hex(12)}"
    named = {"content-type": content_type, "x-request-id": request_id, "request-id": request_id, **headers}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _send_json(send: Send, status: int, body: JsonObject, headers: Mapping[str, str] | None = None) -> None:
    raw = json.dumps(body).encode()
    sized = {"content-length": str(len(raw)), **(headers or {})}
    await _start(send, status, "application/json", sized)
    await send({"type": "http.response.body", "body": raw})
