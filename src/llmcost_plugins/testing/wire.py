"""What a request and its reply are in either provider's API, without the format."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, Protocol

from llmcost_plugins.testing.records import Api

JsonObject = dict[str, Any]
Reason = Literal["stop", "stop_sequence", "length", "tool_calls"]

BYTES_PER_TOKEN = 4
_ATTACHMENT_TOKENS = 85


def encode(text: str) -> bytes:
    """Encode as UTF-8, lone surrogates (which JSON can carry) included."""
    return text.encode("utf-8", "surrogatepass")


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text as a quarter of its bytes, rounded up."""
    return -(-len(encode(text)) // BYTES_PER_TOKEN)


def truncate(text: str, tokens: int) -> str:
    """Keep the start of a text that is `tokens` long."""
    return encode(text)[: tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")


class RefusedError(Exception):
    """The request is answered with an error.

    Attributes:
        kind: OpenAI's `error.type`, where the status does not imply it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        kind: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Block:
    """The end of one block of a prompt, in tokens, with the seconds to cache it if it is marked."""

    end: int
    ttl: float | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the model reads it: `BYTES_PER_TOKEN` bytes of `content` are one token."""

    content: bytes
    blocks: tuple[Block, ...] = ()

    @property
    def tokens(self) -> int:
        """The length in tokens."""
        return len(self.content) // BYTES_PER_TOKEN


class PromptWriter:
    """Builds a `Prompt` so that equal beginnings of requests are equal beginnings of prompts."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._blocks: list[Block] = []

    def role(self, name: str) -> None:
        """Start a message, which costs 4 tokens."""
        self._content += encode(f"<|{name}|>")[:16].ljust(16, b"\0")

    def text(self, text: str) -> None:
        """Add a text, which costs at least one token."""
        raw = encode(text)
        self._content += raw + b"\0" * (-len(raw) % BYTES_PER_TOKEN if raw else BYTES_PER_TOKEN)

    def json(self, value: Any) -> None:
        """Add a JSON value as text."""
        self.text(json.dumps(value, ensure_ascii=False))

    def attachment(self, part: Any) -> None:
        """Add an image, sound or file, which costs the same whatever its size."""
        size = _ATTACHMENT_TOKENS * BYTES_PER_TOKEN
        raw = encode(json.dumps(part))
        self._content += (raw[: size - 32] + blake2b(raw, digest_size=32).digest()).rjust(size, b"\0")

    def end_block(self, ttl: float | None) -> None:
        """End a block that a cache marker may sit on."""
        self._blocks.append(Block(len(self._content) // BYTES_PER_TOKEN, ttl))

    def finish(self) -> Prompt:
        """Return the prompt, closed by the 3 tokens that start the reply."""
        return Prompt(bytes(self._content) + b"<|reply|>\0\0\0", tuple(self._blocks))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call."""

    name: str
    schema: JsonObject


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a generation.

    Attributes:
        messages: In OpenAI's format, whichever API was called.
        tool_choice: `auto`, `none`, `required`, or `:` and the name of a tool.
        output_schema: The JSON schema that the text must follow.
    """

    model: str
    messages: list[JsonObject]
    prompt: Prompt
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    output_schema: JsonObject | None = None
    stream: bool = False
    include_usage: bool = True


@dataclass(frozen=True, slots=True)
class Output:
    """One choice of a reply: a text, or a call of `tool` with `text` as its JSON arguments."""

    text: str
    reason: Reason
    tool: str | None = None
    stop_sequence: str | None = None

    @property
    def tokens(self) -> int:
        """What the visible output costs."""
        return count_tokens(self.head + self.text)

    @property
    def head(self) -> str:
        """What comes before the text: the name of the tool."""
        return "" if self.tool is None else f"{self.tool} "


@dataclass(frozen=True, slots=True)
class Usage:
    """The token counts of a reply; `input` includes the cached ones, `output` the reasoning."""

    input: int
    cached: int = 0
    written_5m: int = 0
    written_1h: int = 0
    output: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event.

    Attributes:
        tokens: The visible output tokens that this event and those before it carry.
        answer: The piece of the first choice in it.
        usage: Whether it carries the final token counts.
    """

    data: bytes
    tokens: int
    answer: str = ""
    usage: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What was generated for a request."""

    asked: Asked
    outputs: Sequence[Output]
    usage: Usage


class Dialect(Protocol):
    """One provider's API for generations."""

    api: Api

    def read(self, body: JsonObject) -> Asked:
        """Understand a request, or raise `RefusedError`."""

    def overflow(self, asked: Asked, window: int) -> RefusedError | None:
        """Return the refusal of a request that does not fit the context window."""

    def count_input(self, account: str, asked: Asked) -> Usage:
        """Count the input tokens, using and filling the account's prompt cache."""

    def body(self, reply: Reply) -> JsonObject:
        """Write a reply in one piece."""

    def events(self, reply: Reply) -> list[Event]:
        """Write a reply as stream events."""

    def error(self, refused: RefusedError) -> JsonObject:
        """Write an error."""

    def limit_headers(self, kind: str, limit: int, remaining: int, reset: float) -> dict[str, str]:
        """Write the state of a rate limit; `kind` is `requests` or `tokens`."""

    def forget(self) -> None:
        """Empty the prompt cache."""
