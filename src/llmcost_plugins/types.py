"""The few plain types that every room shares."""

from collections.abc import Generator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from secrets import token_hex
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from llmcost_plugins.errors import ConfigurationError, InvalidUsage
from llmcost_plugins.plan import Ask, Step

Message: TypeAlias = Mapping[str, Any]
Finish: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "other"]

_ABSURD_TOKENS = 1_000_000_000


def new_id() -> str:
    """Return a fresh id for a request, a call or a hit."""
    return token_hex(16)


class Scope(NamedTuple):
    """Whose request this is; set with `llmcost_plugins.scope`."""

    tenant: str | None = None
    user: str | None = None
    feature: str | None = None
    user_tier: str | None = None


class Usage(NamedTuple):
    """Token counts of one model call.

    `input_tokens` includes cached, cache-writing and audio input; `output_tokens` includes reasoning and audio output.
    `estimated` is true where the provider reported nothing and the counts are ours.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def check(self) -> None:
        """Raise `InvalidUsage` where the counts cannot be true; providers and proxies do report such."""
        read, written, cached, stored, stored_1h, reasoning, heard, spoken, _ = self
        whole = int is type(read) is type(written) is type(cached) is type(stored) is type(stored_1h)
        if (
            whole
            and int is type(reasoning) is type(heard) is type(spoken)
            and cached >= 0 <= stored_1h <= stored
            and cached + stored <= read <= _ABSURD_TOKENS
            and 0 <= heard <= read
            and 0 <= reasoning <= written <= _ABSURD_TOKENS
            and 0 <= spoken <= written
        ):
            return
        self._say_what_is_wrong()

    def _say_what_is_wrong(self) -> None:
        for counter in TOKEN_CLASSES:
            value = getattr(self, counter)
            if type(value) is not int or not 0 <= value <= _ABSURD_TOKENS:
                raise InvalidUsage(f"`{counter}` is {value!r}; expected an integer from 0 to {_ABSURD_TOKENS:,}")
        for part, whole in _PARTS:
            if sum(getattr(self, name) for name in part) > getattr(self, whole):
                raise InvalidUsage(f"{' + '.join(f'`{name}`' for name in part)} exceeds `{whole}` in {self}")


TOKEN_CLASSES = tuple(name for name in Usage._fields if name != "estimated")
_PARTS = (
    (("cached_tokens", "cache_write_tokens"), "input_tokens"),
    (("input_audio_tokens",), "input_tokens"),
    (("cache_write_1h_tokens",), "cache_write_tokens"),
    (("reasoning_tokens",), "output_tokens"),
    (("output_audio_tokens",), "output_tokens"),
)


@dataclass(frozen=True, slots=True)
class Deployment:
    """One of several places where a tier's model runs, with the limits that its provider sets.

    Calls are spread by `weight` over those that are well and within their limits.
    """

    model: Any
    name: str = ""
    provider: str = ""
    model_name: str = ""
    weight: float = 1.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        for limit in ("weight", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, limit)
            if value is not None and not value > 0:
                raise ConfigurationError(f"`{limit}` of a deployment is {value!r}; expected more than 0")


@dataclass(frozen=True, slots=True)
class Tier:
    """One model that a router may choose; tiers are ordered from the cheapest to the strongest.

    `model` is the framework's own model object, or `deployments` holds several: models, or `Deployment`s of them.
    `provider` and `model_name` are what prices are looked up by; doors fill in what they find on the model where
    something is left out. `context_window` and `max_output_tokens` are in tokens. `tools`, `vision` and `json_schema`
    say what the model can do; None where that is not known, and then it is not ruled out. `user_tiers` are the
    `scope(user_tier=...)` that may use it; None lets everyone.
    """

    name: str
    model: Any = None
    provider: str = ""
    model_name: str = ""
    _: KW_ONLY
    deployments: tuple[Any, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    json_schema: bool | None = None
    user_tiers: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.model is not None and self.deployments:
            raise ConfigurationError(f"tier {self.name!r} has a `model` and `deployments`; pass one of them")
        places = tuple(one if isinstance(one, Deployment) else Deployment(one) for one in self.deployments)
        object.__setattr__(self, "deployments", places)
        if isinstance(self.user_tiers, str):
            raise ConfigurationError(f"`user_tiers` is {self.user_tiers!r}; expected a collection such as {{'pro'}}")
        if self.user_tiers is not None:
            object.__setattr__(self, "user_tiers", frozenset(self.user_tiers))
        for limit in ("context_window", "max_output_tokens"):
            value = getattr(self, limit)
            if value is not None and value < 1:
                raise ConfigurationError(f"`{limit}` of tier {self.name!r} is {value!r}; expected a number of tokens")

    @property
    def models(self) -> tuple[Any, ...]:
        """The model, or that of each deployment."""
        return tuple(deployment.model for deployment in self.deployments) or (self.model,)


class Overrides(NamedTuple):
    """What one request asks of the router in place of its settings.

    `tier` is the one to ask first, `force_model` the only one to ask; both name a tier or its model. `budget` is the
    most that a call may cost, in pico-USD.
    """

    threshold: float | None = None
    tier: str | None = None
    force_model: str | None = None
    budget: int | None = None


NO_OVERRIDES = Overrides()


class Fault(NamedTuple):
    """What an error of a model means for other models.

    After `rate_limit` and `unavailable` (timeouts, lost connections, server errors) another may answer; after
    `too_long` one with a larger window may; a `fatal` one (bad request, missing key) would fail anywhere.
    `retry_after` is how many seconds the provider asks to be left alone, None where it does not say.
    """

    kind: Literal["rate_limit", "unavailable", "too_long", "fatal"]
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a door asks for, in plain JSON.

    `messages` are mappings with `role` and `content` in the order of the conversation, ids and response metadata
    already left out. `model` identifies what would answer (model and parameters, or the router's tiers and policy).
    `params` holds all else that changes the answer: tools, response schema, stop words, sampling.
    `question` is the user's own question where the prompt around it holds more (retrieved passages). `tags` are names
    by which the answer may be invalidated later, such as those of the data that it rests on. `thread` names the
    conversation where the framework does, `run_id` the framework's own run, and `overrides` are the caller's wishes.
    """

    messages: tuple[Message, ...]
    model: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    dialect: str = "text"
    scope: Scope = Scope()
    question: str | None = None
    tags: tuple[str, ...] = ()
    thread: str = ""
    run_id: str = ""
    overrides: Overrides = NO_OVERRIDES


@dataclass(frozen=True, slots=True)
class Hit:
    """How a cache answered; `foreign` means one that is not ours. `age` is in seconds, `id` names this answering.

    `similarity` is the cosine between the question and the one that was answered: 1 but for the semantic tier.
    """

    tier: Literal["exact", "normalised", "semantic", "coalesced", "foreign"]
    entry_id: str
    age: float = 0.0
    similarity: float = 1.0
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer: `body` in the dialect's own plain JSON, and what rooms need to judge it.

    `native` is the framework's object. `hit` says how a cache found the answer, None if it is fresh. `finish` is None
    for an answer that did not end properly. `usage` is None where the provider reported none.
    `degraded` marks the answer of a weaker model than the request deserved, given because a stronger one failed: it
    must not be kept. `cost` is in pico-USD, None where no price is known; `routing` tells how the router came to it.
    """

    body: Any
    text: str = ""
    usage: Usage | None = None
    provider: str = ""
    model: str = ""
    price_context: tuple[tuple[str, str], ...] = ()
    finish: Finish | None = "stop"
    calls_tools: bool = False
    degraded: bool = False
    native: Any = field(default=None, compare=False, repr=False)
    hit: Hit | None = None
    call_id: str = field(default="", compare=False)
    cost: int | None = field(default=None, compare=False)
    routing: Mapping[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored answer. Times are seconds since the epoch; `expires` None means never.

    `partition` names the setting that the question was asked in (tenant, model, system prompt ...), `question` is as it
    was asked. `vector` is its embedding, little-endian float32 of length 1, and `space` names the partition and the
    embedder together: only vectors of one space are ever compared, and without a space an entry is not searchable.
    `value` is what one hit saves, in pico-USD.
    """

    key: str
    payload: bytes
    created: float
    expires: float | None = None
    partition: str = ""
    question: str = ""
    space: str = ""
    vector: bytes | None = None
    tags: tuple[str, ...] = ()
    value: int = 0


class Neighbour(NamedTuple):
    """A stored question near another; `similarity` is the cosine of their vectors."""

    key: str
    similarity: float
    question: str


class Entries(Protocol):
    """Where a cache keeps its answers; each method is a plan, so that one implementation serves sync and async.

    Changes made by another process are seen where the store is one that processes share.
    """

    def get(self, key: str) -> Generator[Step[Any], Any, Entry | None]:
        """Return the entry, expired or not, or None."""
        ...

    def put(self, entry: Entry) -> Generator[Step[Any], Any, None]:
        """Store the entry in place of one with the same key."""
        ...

    def delete(self, key: str) -> Generator[Step[Any], Any, bool]:
        """Remove the entry; tell whether there was one."""
        ...

    def clear(self) -> Generator[Step[Any], Any, None]:
        """Remove every entry."""
        ...

    def near(self, space: str, vector: bytes, limit: int, now: float) -> Generator[Step[Any], Any, list[Neighbour]]:
        """Return the entries of the space that are nearest to the vector and not expired, the nearest first.

        `now` never goes back: what has expired once may stay out of sight.

        Raises:
            ConfigurationError: The vector has not length 1, or not as many dimensions as the others of its space;
                `put` raises it as well.
        """
        ...

    def touch(self, key: str, now: float) -> Generator[Step[Any], Any, None]:
        """Count a hit, which makes the entry last longer when room is needed; its expiry stays as it is.

        Where writing costs time, hits are gathered; a process that dies loses the last few.
        """
        ...

    def invalidate(self, tag: str) -> Generator[Step[Any], Any, int]:
        """Remove every entry that has the tag; tell how many there were."""
        ...

    def page(self, after: str | None, limit: int) -> Generator[Step[Any], Any, list[Entry]]:
        """Return the entries, expired or not, that follow the key `after` in the order of keys; None is the start."""
        ...

    def count(self) -> Generator[Step[Any], Any, int]:
        """Tell how many entries there are, expired or not."""
        ...


class Store(Protocol):
    """A connection to where things are kept."""

    def entries(self, namespace: str = "") -> Entries:
        """Return where the caches of a namespace keep their answers."""
        ...


class Caller(Protocol):
    """What a door supplies: how one of its tiers is called."""

    def ask(self, tier: Tier, call_id: str, *, shown: bool) -> Ask[Any, Reply]:
        """Return the step that calls the tier; `shown` allows its chunks to reach the reader as they come."""
        ...

    def read(self, reply: Reply) -> Any:
        """Return a stored answer as the framework's object; raise if its body has not the form for that."""
        ...

    def fault(self, error: Exception) -> Fault:
        """Say what an error means for other models."""
        ...

    def estimate(self, tier: Tier, reply: Reply | None) -> Usage:
        """Count the tokens of a call whose usage was not reported: the request's, and what the reply holds."""
        ...
