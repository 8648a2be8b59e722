"""Find an answer that may be given again; keep one that may."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmcost_plugins.cache.calibration import Calibration, default_calibration
from llmcost_plugins.cache.checks import Checks
from llmcost_plugins.cache.codec import decode, decode_verified, encode, verified
from llmcost_plugins.cache.fingerprint import Fingerprint, Share, cacheable_identity, fingerprint
from llmcost_plugins.cache.judging import Judge, ask_judge
from llmcost_plugins.cache.operations import Operations
from llmcost_plugins.cache.policy import DEFAULT_POLICIES, Mode, Policy, category_of
from llmcost_plugins.cache.question import Context, Template, asked_in, leans_on_context
from llmcost_plugins.cache.recent import Recent
from llmcost_plugins.cache.semantic import Match, Semantic
from llmcost_plugins.cache.statistics import Statistics
from llmcost_plugins.cache.switch import KillSwitch
from llmcost_plugins.cache.turns import Turns
from llmcost_plugins.cache.vetoes import VETOES, Veto
from llmcost_plugins.embeddings import LocalEmbedder, RememberingEmbedder, embedder_of
from llmcost_plugins.errors import ConfigurationError, CorruptEntry
from llmcost_plugins.events import CacheHit, CacheMissed, ComponentFailed, Sink, emit
from llmcost_plugins.plan import Plan
from llmcost_plugins.pricing import PriceBook, default_prices
from llmcost_plugins.stores import connect
from llmcost_plugins.types import Entries, Entry, Hit, Reply, Request, Store, Usage

_SHOWN = 200  # of a question, in explanations
_SHARES = ("tenant", "user", "global")
_LONGEST = 20_000  # characters of a question that the semantic tier looks at

Read = Callable[[Reply], Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up ended in: a `reply`, or a miss that says why and, if `leads`, holds the turn for its key.

    `vector` is that of the question, where it was made; `doubted` an answer that was found and is to be compared with
    the fresh one. `value` is what the hit saves, in pico-USD.
    """

    request: Request
    fingerprint: Fingerprint | None
    reply: Reply | None = None
    reason: str = ""
    category: str = ""
    ttl: float = 0.0
    leads: bool = False
    sink: Sink | None = None
    vector: bytes | None = None
    searched: bool = False
    matches: tuple[Match, ...] = ()
    doubted: Match | None = None
    value: int = 0


class Cache(Operations):
    """Answers a request again where that is safe: the same question, asked of the same model in the same setting.

    Two requests share an answer only within one tenant (`scope`), namespace, version, model with its parameters, tools,
    system prompt and earlier turns. Within that, a question is the same if it is so to the letter, if it differs in
    spacing, end marks or the case of plain words, or if its vector is near enough to that of one answered before and no
    veto finds a difference that counts. Which of these apply, and for how long, is a matter of the question's category.
    Answers that broke off or were filtered are not kept; those that call tools only answer the same words. A cache that
    fails is a cache that misses.

    Args:
        store: Where answers are kept: a store or a URL (`sqlite:///cache.db`), in this process's memory by default.
        namespace: Keeps applications that share a store apart.
        version: Change it to forget everything, as after a change of the data that answers rest on.
        share: Whose requests may share answers: those of one `tenant`, of one `user` of a tenant, or all (`global`).
        mode: The loosest way of comparing that any category may use.
        policies: What is done with the questions of a category, in place of or beside `DEFAULT_POLICIES`.
        classify: Names the category of a question, in place of the rules.
        ttl: The most seconds that any answer is kept.
        embedder: Turns questions into vectors: an `Embedder`, an embedding of LangChain or LlamaIndex, or a function of
            a list of texts. The bundled one by default.
        calibration: What likeness is near enough (see `calibrate`), or the file that holds it. The bundled embedder
            comes with one.
        vetoes: What may refuse a question that is near; functions of two `Reading`s.
        judge: A last opinion on questions that nothing else refuses: a function of the two questions and the stored
            answer. Where it fails, the model is asked.
        judge_share: The share of hits that the judge sees.
        templates: Texts of prompts with `{question}` and other fields, to find the question in prompts made from them.
        context: `strict`: what stands around a question, as retrieved passages do, must be the same; `version`: it may
            differ, and `version` stands for it.
        check: The share of semantic hits that are asked anew and compared, to move thresholds and drop wrong answers.
        max_error: What share of requests may be answered wrongly, for `check`.
        kill_switch: Turns the semantic tier off where it does not pay. None by default with the bundled embedder, whose
            look-ups take a millisecond and no money.
        tags: Names that every entry gets, for `invalidate`.
        miss_log: A file to which every miss is written with what came nearest, for `llmcost cache misses`.
        require_scope: Neither answer nor keep anything without a tenant set by `scope(tenant=...)`.
        secret: Makes keys and checksums HMACs, so that whoever can write to the store cannot forge answers.
        recent: How many answers are kept in this process in front of the store.
        fresh: Seconds for which such an answer is given without another look at the store.
        prices: What answers are valued with, to keep the dearest.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: Store | str | None = None,
        *,
        namespace: str = "",
        version: str = "",
        share: Share = "tenant",
        mode: Mode = "semantic",
        policies: Mapping[str, Policy] | None = None,
        classify: Callable[[str], str] | None = None,
        ttl: float | None = None,
        embedder: Any = None,
        calibration: Calibration | str | Path | None = None,
        vetoes: Sequence[Veto] = VETOES,
        judge: Judge | None = None,
        judge_share: float = 1.0,
        templates: Sequence[str] = (),
        context: Context = "strict",
        check: float = 0.0,
        max_error: float = 0.01,
        kill_switch: KillSwitch | None = None,
        tags: Sequence[str] = (),
        miss_log: str | Path | None = None,
        require_scope: bool = False,
        secret: bytes | None = None,
        recent: int = 2_048,
        fresh: float = 5.0,
        prices: PriceBook | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check_choice("share", share, _SHARES)
        _check_choice("mode", mode, ("off", "exact", "semantic"))
        _check_choice("context", context, ("strict", "version"))
        _check_share("check", check)
        _check_share("judge_share", judge_share)
        if ttl is not None and not ttl > 0:
            raise ConfigurationError(f"`ttl` is {ttl!r}; expected seconds above 0")
        if context == "version" and not version:
            raise ConfigurationError('`context="version"` needs a `version`: that of the index that passages come from')
        unknown = [f"`{name}`" for name in policies or {} if classify is None and name not in DEFAULT_POLICIES]
        if unknown:
            raise ConfigurationError(f"no rule names the category {', '.join(unknown)}; pass `classify` as well")
        self._entries: Entries = connect(store).entries(namespace)
        self._namespace = namespace
        self._version = version
        self._share: Share = share
        self._mode: Mode = mode
        self._policies = {**DEFAULT_POLICIES, **(policies or {})}
        self._classify = classify or category_of
        self._ttl = ttl
        inner = LocalEmbedder() if embedder is None else embedder_of(embedder)
        self._semantic = Semantic(RememberingEmbedder(inner), vetoes)
        self._calibration = default_calibration(inner.id) if calibration is None else Calibration.of(calibration)
        if self._calibration is None and mode == "semantic":
            raise ConfigurationError(
                f"no calibration for {inner.id!r}: pass `calibration=calibrate(pairs, embedder=...)`, "
                'or mode="exact" to do without the semantic tier'
            )
        self._judge = judge
        self._judge_share = judge_share
        self._templates = tuple(Template(text) for text in templates)
        self._context: Context = context
        self._checks = Checks(share=check, max_error=max_error)
        self._switch = KillSwitch() if kill_switch is None and inner.id != LocalEmbedder.id else kill_switch
        self._tags = tuple(tags)
        self._require_scope = require_scope
        self._secret = secret
        self._recent = Recent(recent, fresh, clock)
        self._prices = prices or default_prices()
        self._clock = clock
        self._turns = Turns()
        self._statistics = Statistics(Path(miss_log) if miss_log is not None else None)
        self._kept = 0

    def __repr__(self) -> str:
        return f"Cache(namespace={self._namespace!r}, version={self._version!r}, mode={self._mode!r})"

    @property
    def turns_held(self) -> int:
        """How many questions are being answered right now."""
        return len(self._turns)

    def find(
        self, request: Request, sink: Sink | None = None, *, turn: bool = True, read: Read | None = None
    ) -> Plan[Found]:
        """Return the answer that may be given again, or a miss.

        Args:
            request: What is asked.
            sink: Where to tell of it; the process's subscribers otherwise.
            turn: Let the first that misses lead, and others wait for its answer.
            read: Makes the reply's `native` from its body. An entry that it raises on is dropped and missed.
        """
        found = self._identify(request, sink)
        if found.fingerprint is None:
            return self._miss(found)
        again = self._found_recently(found, found.fingerprint, read)
        if again is not None:
            return again
        found = self._classified(found)
        if found.fingerprint is None:
            return self._miss(found)
        print_, kept = found.fingerprint, self._kept
        found = yield from self._look_up(found, print_, read)
        if found.reply is None and turn:
            found = yield from self._take_turn(found, print_, read)
            if found.leads and self._kept != kept:
                found = yield from self._look_again(found, print_, read)
        return self._miss(found) if found.reply is None else self._hit(found)

    def keep(self, found: Found, reply: Reply) -> Plan[None]:
        """Store the answer if it may be given again, and hand it to those that wait for it."""
        print_ = found.fingerprint
        if print_ is None:
            return
        payload = None
        try:
            payload = self._payload(found, print_, reply)
            if payload is not None:
                yield from self._put(found, print_, reply, payload)
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
        found = self._identify(request, sink)
        yield from self.keep(found if found.fingerprint is None else self._classified(found), reply)

    # --- Who asks what

    def _identify(self, request: Request, sink: Sink | None) -> Found:
        refused = self._refusal(request)
        if refused:
            return Found(request, None, reason=refused, sink=sink)
        asked = asked_in(request, templates=self._templates, context=self._context)
        try:
            print_ = fingerprint(
                request,
                namespace=self._namespace,
                version=self._version,
                secret=self._secret,
                asked=asked,
                share=self._share,
            )
        except (TypeError, ValueError, RecursionError) as error:
            return Found(request, None, reason=f"the request has no lasting form: {error}", sink=sink)
        return Found(request, print_, reason="not asked before", sink=sink)

    def _refusal(self, request: Request) -> str:
        """Return why a request is never answered from the cache, whatever it asks."""
        if self._mode == "off":
            return "the cache is off"
        if self._require_scope and not request.scope.tenant:
            return "no tenant in scope"
        if self._share == "user" and not request.scope.user:
            return "no user in scope"
        return "" if cacheable_identity(request.model) else "the model's description does not last"

    def _classified(self, found: Found) -> Found:
        """Return the look-up with what the category of its question allows; refused where that is nothing."""
        print_ = found.fingerprint
        question = print_.question if print_ is not None else ""
        category, policy = self._policy(found, question)
        if policy is None or policy.mode == "off" or print_ is None:
            return replace(found, fingerprint=None, category=category, reason=category)
        ttl = policy.ttl if self._ttl is None else min(policy.ttl, self._ttl)
        return replace(found, fingerprint=print_.versioned(policy.version), category=category, ttl=ttl)

    def _policy(self, found: Found, question: str) -> tuple[str, Policy | None]:
        try:
            category = self._classify(question)
        except Exception as error:  # noqa: BLE001 - a user's classifier that fails must not cost the call
            self._tell_failure(found, error)
            return "unclassified", None
        policy = self._policies.get(category)
        return (category, policy) if policy is not None else (f"unknown category {category!r}", None)

    # --- By words

    def _found_recently(self, found: Found, print_: Fingerprint, read: Read | None) -> Found | None:
        answer = self._recent.get(print_.exact)
        if answer is None:
            return None
        try:
            reply = self._opened(answer.entry, answer.text, print_, read, answer.tier, answer.similarity)
        except Exception:  # noqa: BLE001 - the store is asked next, and tells of what is wrong with it
            return None
        if reply is None:
            return None
        again = Found(found.request, print_, reply, category=answer.category, sink=found.sink, value=answer.entry.value)
        return self._hit(again)

    def _look_up(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        found = yield from self._get(found, print_, print_.key, read)
        if found.reply is not None or found.searched:
            return found
        return (yield from self._look_up_by_meaning(found, print_, read))

    def _get(
        self, found: Found, print_: Fingerprint, key: str, read: Read | None, *, similarity: float = 1.0
    ) -> Plan[Found]:
        """Return the look-up with the answer that is kept under a key, as it was where there is none to give."""
        try:
            entry = yield from self._entries.get(key)
        except Exception as error:  # noqa: BLE001 - a cache that fails is a cache that misses
            self._tell_failure(found, error)
            return found
        if entry is None or (entry.expires is not None and entry.expires <= self._clock()):
            return found
        tier = "" if key == print_.key else "semantic"
        try:
            text = verified(entry.payload, key=entry.key, secret=self._secret)
            reply = self._opened(entry, text, print_, read, tier, similarity)
        except Exception as error:  # noqa: BLE001 - so is an entry of another form, which is no use to keep
            self._tell_failure(found, error)
            yield from self._drop(found, key)
            return found
        if reply is None or reply.hit is None:
            return found
        self._recent.put(print_.exact, entry, text, reply.hit, found.category)
        yield from self._touch(found, key)
        return replace(found, reply=reply, value=entry.value)

    def _opened(
        self, entry: Entry, text: bytes, print_: Fingerprint, read: Read | None, tier: str, similarity: float
    ) -> Reply | None:
        stored = decode_verified(text)
        repeated = stored.exact == print_.exact
        if stored.calls_tools and not repeated:
            return None  # tool arguments may quote the question's form
        if stored.question != entry.question:
            raise CorruptEntry("entry answers another question than it says")
        how = tier or ("exact" if repeated else "normalised")
        age = max(0.0, self._clock() - entry.created)
        return _native(stored.reply(Hit(how, entry.key[:16], age, similarity)), read)  # type: ignore[arg-type]

    # --- By meaning

    def _look_up_by_meaning(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        reason = self._too_little_to_compare(found, print_)
        if reason:
            return replace(found, reason=reason, searched=True)
        endpoint = found.request.scope.feature or ""
        self._checks.saw(found.category)
        if self._switch is not None and not self._switch.allows(endpoint):
            return replace(found, reason="switched off: hits are too rare", searched=True)
        try:
            vector = yield from self._semantic.vector(print_.question)
            if vector is None:
                return replace(found, reason="the question is longer than the embedder reads", searched=True)
            found = replace(found, vector=vector, searched=True)
            matches = yield from self._semantic.matches(
                self._entries,
                self._space(print_),
                vector,
                print_.question,
                self._threshold(found.category),
                self._clock(),
            )
        except Exception as error:  # noqa: BLE001 - a cache that fails is a cache that misses
            self._tell_failure(found, error)
            return replace(found, searched=True)
        found = yield from self._accepted(replace(found, matches=tuple(matches)), print_, read)
        if self._switch is not None:
            self._switch.note(endpoint, hit=found.reply is not None)
        return found

    def _too_little_to_compare(self, found: Found, print_: Fingerprint) -> str:
        """Return why a question is compared by its words alone, "" where its meaning may be compared."""
        policy = self._policies[found.category]
        if policy.mode != "semantic" or self._mode != "semantic" or not print_.question:
            return found.reason
        first = not any(message.get("role") in ("assistant", "tool") for message in found.request.messages[:-1])
        if leans_on_context(print_.question, first=first):
            return "a follow-up, which means nothing by itself"
        if print_.form is None:
            return "form matters: code, markup or quotes"
        return "" if len(print_.question) <= _LONGEST else "the question is longer than the embedder reads"

    def _accepted(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        match = found.matches[-1] if found.matches else None
        if match is None or match.verdict != "accepted":
            return replace(found, reason=_reason(found.matches))
        neighbour = match.neighbour
        answered = yield from self._get(found, print_, neighbour.key, read, similarity=neighbour.similarity)
        if answered.reply is None:
            return found
        if self._judge is not None and self._checks.draws(self._judge_share):
            same = yield from self._judged(found, print_.question, neighbour.question, answered.reply.text)
            if not same:
                self._recent.clear()
                refused = replace(match, verdict="vetoed", veto="judge")
                return replace(found, matches=(*found.matches[:-1], refused), reason="vetoed: judge")
        if self._checks.wants():
            self._recent.clear()
            return replace(found, doubted=match, reason="asked anew, to check the cache")
        return answered

    def _judged(self, found: Found, question: str, stored: str, answer: str) -> Plan[bool]:
        try:
            assert self._judge is not None  # noqa: S101 - the caller looked
            return (yield from ask_judge(self._judge, question, stored, answer))
        except Exception as error:  # noqa: BLE001 - a judge that fails has not agreed
            self._tell_failure(found, error)
            return False

    def _threshold(self, category: str) -> float:
        policy = self._policies[category]
        assert self._calibration is not None  # noqa: S101 - the semantic tier is not reached without one
        base = policy.threshold if policy.threshold is not None else self._calibration.threshold(category)
        return self._checks.threshold(category, base)

    def _space(self, print_: Fingerprint) -> str:
        embedder = self._semantic.embedder
        return print_.space(embedder.id, embedder.dimension)

    # --- Turns

    def _take_turn(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        shared, leads = yield from self._turns.take(print_.exact)
        if shared is None:
            return replace(found, leads=leads)
        try:
            stored = decode(shared, key=print_.key, secret=self._secret)
            return replace(found, reply=_native(stored.reply(Hit("coalesced", print_.key[:16])), read))
        except Exception as error:  # noqa: BLE001 - what cannot be shared is asked for
            self._tell_failure(found, error)
            return replace(found, leads=leads)

    def _look_again(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        """Look for an answer that was kept between the first look and the turn; if there is one, the turn is over."""
        try:
            again = yield from self._look_up(found, print_, read)
        except BaseException:
            self._turns.leave(print_.exact)
            raise
        if again.reply is None:
            return again
        self._turns.leave(print_.exact)  # the next finds it in its turn
        return replace(again, leads=False)

    # --- Keeping

    def _payload(self, found: Found, print_: Fingerprint, reply: Reply) -> bytes | None:
        """Return an answer as it is kept and shared, None for one that may not be, or has no lasting form."""
        ended = reply.finish in ("stop", "tool_calls") and bool(reply.text or reply.calls_tools)
        if not ended or reply.hit is not None or reply.degraded:
            return None
        try:
            return encode(reply, key=print_.key, exact=print_.exact, question=print_.question, secret=self._secret)
        except Exception as error:  # noqa: BLE001 - the answer is paid for and must reach the user
            self._tell_failure(found, error)
            return None

    def _put(self, found: Found, print_: Fingerprint, reply: Reply, payload: bytes) -> Plan[None]:
        now = self._clock()
        entry = Entry(
            print_.key,
            payload,
            now,
            now + found.ttl,
            print_.partition,
            question=print_.question,
            tags=(*self._tags, *found.request.tags),
            value=self._worth(reply, now),
        )
        try:
            yield from self._compare(found, reply)
            entry = yield from self._searchable(found, print_, reply, entry)
            yield from self._entries.put(entry)
            self._kept += 1
        except Exception as error:  # noqa: BLE001 - the answer is paid for and must reach the user
            self._tell_failure(found, error)

    def _searchable(self, found: Found, print_: Fingerprint, reply: Reply, entry: Entry) -> Plan[Entry]:
        """Return the entry with its vector, where its question may be found by meaning."""
        vector = found.vector
        if not found.searched and not reply.calls_tools and not self._too_little_to_compare(found, print_):
            vector = yield from self._semantic.vector(print_.question)
        if vector is None or reply.calls_tools or self._too_little_to_compare(found, print_):
            return entry
        return replace(entry, space=self._space(print_), vector=vector)

    def _compare(self, found: Found, reply: Reply) -> Plan[None]:
        """Learn from a fresh answer whether a stored one would have done; a wrong one that was given is dropped."""
        match = found.doubted or next((m for m in found.matches if m.verdict == "too far"), None)
        if match is None or not self._checks.learns:
            return
        entry = yield from self._entries.get(match.neighbour.key)
        if entry is None:
            return
        stored = decode(entry.payload, key=entry.key, secret=self._secret).reply()
        same = yield from self._checks.agree(self._semantic.embedder, stored.text, reply.text)
        self._checks.note(found.category, match.likeness, same=same, given=found.doubted is not None)
        if found.doubted is not None and not same:
            yield from self._drop(found, match.neighbour.key)

    def _worth(self, reply: Reply, now: float) -> int:
        """Return what the answer would cost again, in pico-USD; 0 where that is not known."""
        cost = self._prices.cost(reply.provider, reply.model, reply.usage or Usage(), at=now)
        return 0 if cost is None else cost.total

    def _touch(self, found: Found, key: str) -> Plan[None]:
        try:
            yield from self._entries.touch(key, self._clock())
        except Exception as error:  # noqa: BLE001 - it only bears on what is evicted first
            self._tell_failure(found, error)

    def _drop(self, found: Found, key: str) -> Plan[None]:
        self._recent.clear()
        try:
            yield from self._entries.delete(key)
        except Exception as error:  # noqa: BLE001 - the next look-up tries again
            self._tell_failure(found, error)

    # --- Telling

    def _hit(self, found: Found) -> Found:
        reply, print_ = found.reply, found.fingerprint
        assert reply is not None and reply.hit is not None and print_ is not None  # noqa: S101, PT018
        event = CacheHit(
            call_id=reply.hit.id,
            time=self._clock(),
            hit=reply.hit,
            provider=reply.provider,
            model=reply.model,
            usage=reply.usage or Usage(),
            scope=found.request.scope,
            question=print_.question[:_SHOWN],
        )
        self._statistics.hit(found.category, reply.hit.tier, found.value)
        emit(event, found.sink)
        return found

    def _miss(self, found: Found) -> Found:
        nearest = found.matches[0] if found.matches else None
        question = found.fingerprint.question if found.fingerprint is not None else ""
        event = CacheMissed(
            time=self._clock(),
            reason=found.reason,
            scope=found.request.scope,
            category=found.category,
            question=question[:_SHOWN],
            nearest=nearest.neighbour.question[:_SHOWN] if nearest is not None else "",
            similarity=nearest.neighbour.similarity if nearest is not None else 0.0,
            veto=next((match.veto for match in found.matches if match.veto), ""),
        )
        try:
            self._statistics.miss(event)
        except OSError as error:
            self._tell_failure(found, error)
        emit(event, found.sink)
        return found

    def _tell_failure(self, found: Found, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        emit(ComponentFailed(time=self._clock(), component="cache", error=text, scope=found.request.scope), found.sink)


def _native(reply: Reply, read: Read | None) -> Reply:
    return reply if read is None else replace(reply, native=read(reply))


def _reason(matches: Sequence[Match]) -> str:
    if not matches:
        return "not asked before"
    veto = next((match.veto for match in matches if match.veto), "")
    return f"vetoed: {veto}" if veto else "nothing near enough"


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigurationError(f"`{name}` is {value!r}; expected one of {', '.join(choices)}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigurationError(f"`{name}` is {value!r}; expected a share from 0 to 1")
