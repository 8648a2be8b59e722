"""Which tier a conversation was with, and whether another is worth the prompt cache that is lost with it."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from llmcost_plugins.forks import after_fork
from llmcost_plugins.pricing import PriceBook
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Reply, Request, Tier, Usage

_KEPT = 10_000
_CACHE_SECONDS = 300.0  # how long OpenAI and Anthropic keep a prompt cached by default


class Served(NamedTuple):
    """The last answer of a conversation: who gave it, when, and how many tokens it left in the prompt."""

    tier: str
    time: float
    usage: Usage


class Conversations:
    """Remembers the newest 10,000 conversations of this process, and whose tool calls are under way.

    Several agents may share a thread: the results of tools find who called them by the ids of the calls.
    """

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
        call_id = request.messages[-1].get("tool_call_id")
        keys = [f"{request.scope.tenant}/{call_id}"] if call_id else []
        with self._lock:
            return next((self._served[key] for key in [*keys, conversation_of(request)] if key in self._served), None)

    def remember(self, request: Request, served: Served, reply: Reply) -> None:
        """Keep who answered, and who called which tools."""
        keys = [conversation_of(request), *(f"{request.scope.tenant}/{call_id}" for call_id in _call_ids(reply))]
        with self._lock:
            for key in keys:
                self._served[key] = served
                self._served.move_to_end(key)
            while len(self._served) > _KEPT:
                self._served.popitem(last=False)


def in_tool_loop(request: Request) -> bool:
    """Tell whether the model waits for the results of tools: those are for the one that called them."""
    return bool(request.messages) and request.messages[-1].get("role") in ("tool", "function")


def cheaper_to_stay(
    current: Tier, other: Tier, served: Served, needed: int, prices: PriceBook, now: float, tenant: str | None
) -> bool:
    """Tell whether the current tier, with the conversation in its prompt cache, costs less than a cheaper one without.

    `needed` is the number of tokens of the prompt; the next answer is taken to be as long as the last. False where a
    price is not known.
    """
    if now - served.time > _CACHE_SECONDS:
        return False
    cached = min(served.usage.total_tokens, needed)
    output = served.usage.output_tokens
    usage, fresh = Usage(needed, output, cached_tokens=cached), Usage(needed, output)
    stay = prices.cost(current.provider, current.model_name, usage, at=now, tenant=tenant)
    leave = prices.cost(other.provider, other.model_name, fresh, at=now, tenant=tenant)
    return stay is not None and leave is not None and stay.total <= leave.total


def _goes_on(request: Request) -> bool:
    return any(message.get("role") in ("assistant", "tool", "function") for message in request.messages)


def conversation_of(request: Request) -> str:
    """Name the conversation: by the thread where the framework names one, else by how it began."""
    begun = request.thread or _opening(request), request.scope.tenant, request.scope.user
    return hashlib.blake2b(repr(begun).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _call_ids(reply: Reply) -> list[str]:
    """Return the ids of the tool calls in an answer, as LangChain's and LlamaIndex's bodies have them."""
    body = reply.body if isinstance(reply.body, Mapping) else {}
    calls = body.get("tool_calls") or body.get("tools") or ()
    ids = [call.get("id") or call.get("tool_id") for call in calls if isinstance(call, Mapping)]
    return [str(call_id) for call_id in ids if call_id]


def _opening(request: Request) -> list[str]:
    """Return the system prompt and the first thing that the user said."""
    texts: list[str] = []
    for message in request.messages:
        texts.append(message_text(message))
        if message.get("role") == "user":
            break
    return texts
