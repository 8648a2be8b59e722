"""Find an answer that may be given again; keep one that may."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from llmcost_plugins.cache.codec import decode, encode
from llmcost_plugins.cache.fingerprint import Fingerprint, cacheable_identity, fingerprint
from llmcost_plugins.cache.policy import category_of
from llmcost_plugins.cache.turns import Turns
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.events import CacheHit, CacheMissed, ComponentFailed, Sink, emit
from llmcost_plugins.plan import Plan
from llmcost_plugins.stores import connect
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Entries, Entry, Hit, Reply, Request, Store, Usage

_DAY = 86_400.0
_SHOWN = 200  # of a question, in explanations


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up ended in: a `reply`, or a miss that says why and, if `leads`, holds the turn for its key."""

    request: Request
    fingerprint: Fingerprint | None
    reply: Reply | None = None
    reason: str = ""
    ttl: float = 0.0
    leads: bool = False
    sink: Sink | None = None


class Cache:
    """Answers a request again where that is safe: the same question, asked of the same model in the same setting.

    Two requests share an answer only within one tenant (`scope`), namespace, version, model with its parameters, tools,
    system prompt and earlier turns. Questions that differ in spacing, end marks or the case of plain words count as
    one. Creative and personal questions are never answered from the cache; those about the moment only for `live_ttl`.
    Answers that broke off or were filtered are not kept; those that call tools only answer the same words. A cache that
    fails is a cache that misses.

    Args:
        store: Where answers are kept: a store or a URL (`sqlite:///cache.db`), in this process's memory by default.
        namespace: Keeps applications that share a store apart.
        version: Change it to forget everything, as after a change of the data that answers rest on.
        ttl: Seconds that an answer is kept.
        live_ttl: The same for questions about the moment ("is it open right now?").
        require_scope: Neither answer nor keep anything without a tenant set by `scope(tenant=...)`.
        secret: Makes keys and checksums HMACs, so that whoever can write to the store cannot forge answers.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: Store | str | None = None,
        *,
        namespace: str = "",
        version: str = "",
        ttl: float = 2 * _DAY,
        live_ttl: float = 300.0,
        require_scope: bool = False,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if ttl <= 0 or live_ttl < 0:
            raise ConfigurationError("`ttl` must be above 0 and `live_ttl` at least 0 seconds")
        self._entries: Entries = connect(store).entries(namespace)
        self._namespace = namespace
        self._version = version
        self._ttl = ttl
        self._live_ttl = live_ttl
        self._require_scope = require_scope
        self._secret = secret
        self._clock = clock
        self._turns = Turns()
        self._kept = 0

    def __repr__(self) -> str:
        return f"Cache(namespace={self._namespace!r}, version={self._version!r}, ttl={self._ttl:.0f})"

    @property
    def turns_held(self) -> int:
        """How many questions are being answered right now."""
        return len(self._turns)

    def find(
        self,
        request: Request,
        sink: Sink | None = None,
        *,
        turn: bool = True,
        read: Callable[[Reply], Any] | None = None,
    ) -> Plan[Found]:
        """Return the answer that may be given again, or a miss.

        Args:
            request: What is asked.
            sink: Where to tell of it; the process's subscribers otherwise.
            turn: Let the first that misses lead, and others wait for its answer.
            read: Makes the reply's `native` from its body. An entry that it raises on is dropped and missed.
        """
        found = self._identify(request, sink)
        print_ = found.fingerprint
        if print_ is None:
            return self._miss(found)
        kept = self._kept
        reply = yield from self._look_up(found, print_, read)
        leads = False
        if reply is None and turn:
            reply, leads = yield from self._take_turn(found, print_, read)
            if leads and self._kept != kept:
                reply = yield from self._look_again(found, print_, read)
                leads = reply is None
        if reply is None or reply.hit is None:
            return self._miss(replace(found, leads=leads))
        self._tell_hit(found, reply, reply.hit, print_.question[:_SHOWN])
        return replace(found, reply=reply)

    def keep(self, found: Found, reply: Reply) -> Plan[None]:
        """Store the answer if it may be given again, and hand it to those that wait for it."""
        print_ = found.fingerprint
        if print_ is None:
            return
        payload = None
        try:
            payload = self._payload(found, print_, reply)
            if payload is not None:
                yield from self._put(found, print_, payload)
        finally:
            if found.leads:
                self._turns.give(print_.exact, payload)

    def leave(self, found: Found) -> Plan[None]:
        """Give up the turn without an answer; the next that waits leads."""
        if found.leads and found.fingerprint is not None:
            self._turns.leave(found.fingerprint.exact)
        return
        yield

    def store(self, request: Request, reply: Reply, sink: Sink | None = None) -> Plan[None]:
        """Keep an answer that was obtained without `find`, as frameworks' own cache hooks do."""
        yield from self.keep(self._identify(request, sink), reply)

    def delete(self, request: Request) -> Plan[bool]:
        """Forget the answer to a request; tell whether there was one."""
        print_ = self._identify(request, None).fingerprint
        return False if print_ is None else (yield from self._entries.delete(print_.key))

    def clear(self) -> Plan[None]:
        """Forget every answer of the cache's namespace."""
        yield from self._entries.clear()

    def _identify(self, request: Request, sink: Sink | None) -> Found:
        refused, ttl = self._refusal(request)
        if refused:
            return Found(request, None, reason=refused, sink=sink)
        try:
            print_ = fingerprint(request, namespace=self._namespace, version=self._version, secret=self._secret)
        except (TypeError, ValueError, RecursionError) as error:
            return Found(request, None, reason=f"the request has no lasting form: {error}", sink=sink)
        return Found(request, print_, reason="not asked before", ttl=ttl, sink=sink)

    def _refusal(self, request: Request) -> tuple[str, float]:
        """Return why a request is never answered from the cache, or how long its answer is kept."""
        if self._require_scope and not request.scope.tenant:
            return "no tenant in scope", 0.0
        if not cacheable_identity(request.model):
            return "the model's description does not last", 0.0
        category = category_of(message_text(request.messages[-1])) if request.messages else "general"
        if category in ("personal", "creative"):
            return category, 0.0
        return "", self._live_ttl if category == "live" else self._ttl

    def _look_up(self, found: Found, print_: Fingerprint, read: Callable[[Reply], Any] | None) -> Plan[Reply | None]:
        try:
            entry = yield from self._entries.get(print_.key)
        except Exception as error:  # noqa: BLE001 - a cache that fails is a cache that misses
            self._tell_failure(found, error)
            return None
        now = self._clock()
        if entry is None or (entry.expires is not None and entry.expires <= now):
            return None
        try:
            return self._opened(entry, print_, now, read)
        except Exception as error:  # noqa: BLE001 - so is an entry of another form, which is no use to keep
            self._tell_failure(found, error)
            yield from self._drop(found, print_)
            return None

    def _opened(
        self, entry: Entry, print_: Fingerprint, now: float, read: Callable[[Reply], Any] | None
    ) -> Reply | None:
        reply, exact = decode(entry.payload, self._secret)
        repeated = exact == print_.exact
        if reply.calls_tools and not repeated:
            return None  # tool arguments may quote the question's form
        hit = Hit("exact" if repeated else "normalised", print_.key[:16], age=max(0.0, now - entry.created))
        return _read(replace(reply, hit=hit), read)

    def _take_turn(
        self, found: Found, print_: Fingerprint, read: Callable[[Reply], Any] | None
    ) -> Plan[tuple[Reply | None, bool]]:
        shared, leads = yield from self._turns.take(print_.exact)
        if shared is None:
            return None, leads
        try:
            reply, _ = decode(shared, self._secret)
            return _read(replace(reply, hit=Hit("coalesced", print_.key[:16])), read), leads
        except Exception as error:  # noqa: BLE001 - what cannot be shared is asked for
            self._tell_failure(found, error)
            return None, leads

    def _look_again(self, found: Found, print_: Fingerprint, read: Callable[[Reply], Any] | None) -> Plan[Reply | None]:
        """Look for an answer that was kept between the first look and the turn; if there is one, the turn is over."""
        try:
            reply = yield from self._look_up(found, print_, read)
        except BaseException:
            self._turns.leave(print_.exact)
            raise
        if reply is not None:
            self._turns.leave(print_.exact)  # the next finds it in its turn
        return reply

    def _payload(self, found: Found, print_: Fingerprint, reply: Reply) -> bytes | None:
        """Return an answer as it is kept and shared, None for one that may not be, or has no lasting form."""
        ended = reply.finish in ("stop", "tool_calls") and bool(reply.text or reply.calls_tools)
        if not ended or reply.hit is not None or reply.degraded:
            return None
        try:
            return encode(reply, print_.exact, self._secret)
        except Exception as error:  # noqa: BLE001 - the answer is paid for and must reach the user
            self._tell_failure(found, error)
            return None

    def _put(self, found: Found, print_: Fingerprint, payload: bytes) -> Plan[None]:
        now = self._clock()
        try:
            yield from self._entries.put(Entry(print_.key, payload, now, now + found.ttl, print_.partition))
            self._kept += 1
        except Exception as error:  # noqa: BLE001 - the answer is paid for and must reach the user
            self._tell_failure(found, error)

    def _drop(self, found: Found, print_: Fingerprint) -> Plan[None]:
        try:
            yield from self._entries.delete(print_.key)
        except Exception as error:  # noqa: BLE001 - the next look-up tries again
            self._tell_failure(found, error)

    def _miss(self, found: Found) -> Found:
        emit(CacheMissed(time=self._clock(), reason=found.reason, scope=found.request.scope), found.sink)
        return found

    def _tell_hit(self, found: Found, reply: Reply, hit: Hit, question: str) -> None:
        event = CacheHit(
            call_id=hit.id,
            time=self._clock(),
            hit=hit,
            provider=reply.provider,
            model=reply.model,
            usage=reply.usage or Usage(),
            scope=found.request.scope,
            question=question,
        )
        emit(event, found.sink)

    def _tell_failure(self, found: Found, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        emit(ComponentFailed(time=self._clock(), component="cache", error=text, scope=found.request.scope), found.sink)


def _read(reply: Reply, read: Callable[[Reply], Any] | None) -> Reply:
    return reply if read is None else replace(reply, native=read(reply))
