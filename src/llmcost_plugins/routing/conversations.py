"""Which tier a conversation was with, and whether another is worth the prompt cache that is lost with it."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from llmcost_plugins.forks import after_fork
from llmcost_plugins.pricing import PriceBook
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Request, Tier, Usage

_KEPT = 10_000
_CACHE_SECONDS = 300.0  # how long OpenAI and Anthropic keep a prompt cached by default


class Served(NamedTuple):
    """The last answer of a conversation: who gave it, when, and how many tokens it left in the prompt."""

    tier: str
    time: float
    usage: Usage


class Conversations:
    """Remembers the newest 10,000 conversations of this process."""

    def __init__(self) -> None:
        self._begin()
        after_fork(self, Conversations._begin)

    def __reduce__(self) -> tuple[Callable[[], "Conversations"], tuple[()]]:
        return Conversations, ()

    def _begin(self) -> None:
        self._served: OrderedDict[str, Served] = OrderedDict()
        self._lock = threading.Lock()

    def last(self, request: Request) -> Served | None:
        """Return the last answer of a request's conversation, None for one that begins."""
        if not _goes_on(request):
            return None
        with self._lock:
            return self._served.get(conversation_of(request))

    def remember(self, request: Request, served: Served) -> None:
        """Keep who answered."""
        key = conversation_of(request)
        with self._lock:
            self._served[key] = served
            self._served.move_to_end(key)
            if len(self._served) > _KEPT:
                self._served.popitem(last=False)


def in_tool_loop(request: Request) -> bool:
    """Tell whether the model waits for the results of tools: those are for the one that called them."""
    return bool(request.messages) and request.messages[-1].get("role") in ("tool", "function")


def cheaper_to_stay(current: Tier, other: Tier, served: Served, needed: int, prices: PriceBook, now: float) -> bool:
    """Tell whether the current tier, with the conversation in its prompt cache, costs less than a cheaper one without.

    `needed` is the number of tokens of the prompt; the next answer is taken to be as long as the last. False where a
    price is not known.
    """
    if now - served.time > _CACHE_SECONDS:
        return False
    cached = min(served.usage.total_tokens, needed)
    output = served.usage.output_tokens
    stay = prices.cost(current.provider, current.model_name, Usage(needed, output, cached_tokens=cached), at=now)
    leave = prices.cost(other.provider, other.model_name, Usage(needed, output), at=now)
    return stay is not None and leave is not None and stay.total <= leave.total


def _goes_on(request: Request) -> bool:
    return any(message.get("role") in ("assistant", "tool", "function") for message in request.messages)


def conversation_of(request: Request) -> str:
    """Name the conversation: by the thread where the framework names one, else by how it began."""
    scope = request.scope
    begun = [request.thread or "\0".join(_opening(request)), scope.tenant or "", scope.user or ""]
    return hashlib.blake2b("\0\0".join(begun).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _opening(request: Request) -> list[str]:
    """Return the system prompt and the first thing that the user said."""
    texts: list[str] = []
    for message in request.messages:
        texts.append(message_text(message))
        if message.get("role") == "user":
            break
    return texts
