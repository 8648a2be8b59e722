"""Find an answer that may be given again; keep one that may."""

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llmcost_plugins.cache.calibration import Calibration
from llmcost_plugins.cache.checks import Checks
from llmcost_plugins.cache.codec import LARGEST, Stored, decode, decode_again, decode_verified, encode, verified
from llmcost_plugins.cache.fingerprint import (
    LONGEST,
    Fingerprint,
    Share,
    cacheable_identity,
    fingerprint,
    within,
)
from llmcost_plugins.cache.judging import Judge, ask_judge
from llmcost_plugins.cache.operations import Operations
from llmcost_plugins.cache.policy import Mode, Policy, category_of
from llmcost_plugins.cache.question import Context, Template, asked_in, leans_on_context
from llmcost_plugins.cache.recent import Recent
from llmcost_plugins.cache.semantic import Match, Semantic
from llmcost_plugins.cache.settings import (
    calibration_of,
    check_callable,
    check_choice,
    check_error,
    check_recent,
    check_secret,
    check_share,
    check_text,
    check_ttl,
    policies_of,
    texts,
)
from llmcost_plugins.cache.statistics import Statistics
from llmcost_plugins.cache.switch import KillSwitch
from llmcost_plugins.cache.telling import hit_event, miss_event, tell_failure
from llmcost_plugins.cache.turns import Turns
from llmcost_plugins.cache.vetoes import VETOES, Veto
from llmcost_plugins.embeddings import LocalEmbedder, RememberingEmbedder, bundled_embedder, embedder_of
from llmcost_plugins.errors import ConfigurationError, CorruptEntry
from llmcost_plugins.events import Sink, emit
from llmcost_plugins.plan import Plan
from llmcost_plugins.pricing import PriceBook, default_prices
from llmcost_plugins.stores import connect
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Entries, Entry, Hit, Reply, Request, Store, Usage

_SHARES = ("tenant", "user", "global")
_LARGEST_QUESTION = 1_000_000  # characters
_UNRESOLVED = 1_000  # look-ups whose answers `store` may bring
_SAID_BY_OTHERS = ("assistant", "tool")

Read = Callable[[Reply], Any]


class Found(NamedTuple):
    """What a look-up ended in: a `reply`, or a miss that says why and, if `leads`, holds the turn for its key.

    `vector` is that of the question, where it was made; `doubted` an answer that was found and is to be compared with
    the fresh one. `value` is what the hit saves, in pico-USD, and `entry` the key of what answered. `generation` is
    that of `Recent` when the look-up began. A `dry` look-up leaves no trace: it counts nothing, drops nothing and asks
    no judge.
    """

    request: Request
    fingerprint: Fingerprint | None
    reply: Reply | None = None
    reason: str = ""
    category: str = ""
    ttl: float = 0.0
    leads: bool = False
    sink: Sink | None = None
    generation: int = 0
    dry: bool = False
    vector: bytes | None = None
    searched: bool = False
    matches: tuple[Match, ...] = ()
    doubted: Match | None = None
    value: int = 0
    entry: str = ""


class _Opened(NamedTuple):
    """An entry that answers, its payload once verified, and the answer in it."""

    entry: Entry
    text: bytes
    reply: Reply
    hit: Hit


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
        lot: Draws numbers from 0 to 1, for the shares of `check` and `judge_share`.

    Questions over 20,000 characters are compared to the letter only; those over 1,000,000, and answers over 1,000,000
    bytes, are not kept.
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
        templates: str | Sequence[str] = (),
        context: Context = "strict",
        check: float = 0.0,
        max_error: float = 0.01,
        kill_switch: KillSwitch | None = None,
        tags: str | Sequence[str] = (),
        miss_log: str | Path | None = None,
        require_scope: bool = False,
        secret: bytes | None = None,
        recent: int = 2_048,
        fresh: float = 5.0,
        prices: PriceBook | None = None,
        clock: Callable[[], float] = time.time,
        lot: Callable[[], float] = random.random,
    ) -> None:
        check_choice("share", share, _SHARES)
        check_choice("mode", mode, ("off", "exact", "semantic"))
        check_choice("context", context, ("strict", "version"))
        check_text("namespace", namespace)
        check_text("version", version)
        check_share("check", check)
        check_share("judge_share", judge_share)
        check_error(max_error)
        check_ttl(ttl)
        check_recent(recent, fresh)
        check_secret(secret)
        check_callable("classify", classify)
        check_callable("judge", judge)
        for veto in vetoes:
            check_callable("vetoes", veto)
        if context == "version" and not version:
            raise ConfigurationError('`context="version"` needs a `version`: that of the index that passages come from')
        self._policies = policies_of(policies, classify)
        self._entries: Entries = connect(store).entries(namespace)
        self._namespace = namespace
        self._version = version
        self._share: Share = share
        self._mode: Mode = mode
        self._classify = classify or category_of
        self._ttl = ttl
        inner = bundled_embedder() if embedder is None else embedder_of(embedder)
        self._semantic = Semantic(RememberingEmbedder(inner), vetoes)
        self._calibration = calibration_of(calibration, inner.id, mode)
        self._judge = judge
        self._judge_share = judge_share
        self._templates = tuple(map(Template, texts("templates", templates)))
        self._context: Context = context
        self._checks = Checks(share=check, max_error=max_error, lot=lot)
        self._switch = KillSwitch() if kill_switch is None and inner.id != LocalEmbedder.id else kill_switch
        self._tags = texts("tags", tags)
        self._require_scope = require_scope
        self._secret = secret
        self._recent = Recent(recent, fresh, clock)
        self._prices = prices or default_prices()
        self._clock = clock
        self._turns = Turns()
        self._statistics = Statistics(Path(miss_log) if miss_log is not None else None)
        self._kept = 0
        self._unresolved: OrderedDict[str, Found] = OrderedDict()

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
            return (yield from self._missed(found))
        again = self._found_recently(found, found.fingerprint, read)
        if again is not None:
            yield from self._touch(again, again.entry)
            return self._hit(again)
        found = self._classified(found)
        if found.fingerprint is None:
            return (yield from self._missed(found))
        print_, kept = found.fingerprint, self._kept
        found = yield from self._look_up(found, print_, read)
        if found.reply is None and turn:
            found = yield from self._take_turn(found, print_, read)
            if found.leads and self._kept != kept:
                found = yield from self._look_again(found, print_, read)
        if found.reply is not None:
            return self._hit(found)
        if not turn and self._checks.learns and found.matches:
            self._leave_unresolved(found, print_)
        return (yield from self._missed(found))

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
        if found.fingerprint is None:
            return
        found = self._classified(found)
        if found.fingerprint is not None:
            found = self._unresolved.pop(found.fingerprint.exact, found)
        yield from self.keep(found, reply)

    def _leave_unresolved(self, found: Found, print_: Fingerprint) -> None:
        """Keep a look-up until `store` brings its answer, to be compared with what was found."""
        self._unresolved[print_.exact] = found
        if len(self._unresolved) > _UNRESOLVED:
            self._unresolved.popitem(last=False)

    # --- Who asks what

    def _identify(self, request: Request, sink: Sink | None) -> Found:
        generation = self._recent.generation
        try:
            refused = self._refusal(request)
            print_ = None if refused else self._print(request)
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            print_, refused = None, f"the request has no lasting form: {error}"
        if print_ is not None and len(print_.question) > _LARGEST_QUESTION:
            print_, refused = None, f"the question is longer than {_LARGEST_QUESTION:,} characters"
        return Found(request, print_, reason=refused or "not asked before", sink=sink, generation=generation)

    def _print(self, request: Request) -> Fingerprint:
        return fingerprint(
            request,
            namespace=self._namespace,
            version=self._version,
            secret=self._secret,
            asked=asked_in(request, templates=self._templates, context=self._context),
            share=self._share,
        )

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
        if print_ is None:
            return found
        try:
            category = self._category(print_.question or _said_last(found.request))
        except Exception as error:  # noqa: BLE001 - a user's classifier that fails must not cost the call
            self._tell_failure(found, error)
            return found._replace(fingerprint=None, category="unclassified", reason="unclassified")
        policy = self._policies.get(category)
        if policy is None or policy.mode == "off":
            reason = category if policy is not None else f"unknown category {category!r}"
            return found._replace(fingerprint=None, category=category, reason=reason)
        ttl = policy.ttl if self._ttl is None else min(policy.ttl, self._ttl)
        return found._replace(fingerprint=print_.versioned(policy.version), category=category, ttl=ttl)

    def _category(self, question: str) -> str:
        category = self._classify(question)
        if not isinstance(category, str):
            raise TypeError(f"`classify` returned a {type(category).__name__}; expected the name of a category")
        return category

    # --- By words

    def _found_recently(self, found: Found, print_: Fingerprint, read: Read | None) -> Found | None:
        answer = self._recent.get(print_.exact)
        if answer is None:
            return None
        entry = answer.entry
        try:
            reply = self._reply(decode_again(answer.text), entry, answer.tier, answer.similarity, read)
        except Exception:  # noqa: BLE001 - the store is asked next, and tells of what is wrong with it
            return None
        return Found(
            found.request, print_, reply, category=answer.category, sink=found.sink, value=entry.value, entry=entry.key
        )

    def _look_up(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        try:
            opened = yield from self._get(found, print_, print_.key, read)
        except Exception as error:  # noqa: BLE001 - a cache that fails is a cache that misses
            self._tell_failure(found, error)
            return found._replace(reason="the store failed")
        if opened is not None:
            return (yield from self._given(found, print_, opened))
        return found if found.searched else (yield from self._look_up_by_meaning(found, print_, read))

    def _get(
        self, found: Found, print_: Fingerprint, key: str, read: Read | None, *, similarity: float = 1.0
    ) -> Plan[_Opened | None]:
        """Return the answer that is kept under a key, None where there is none to give; raise if the store fails."""
        entry = yield from self._entries.get(key)
        if entry is None or (entry.expires is not None and entry.expires <= self._clock()):
            return None
        try:
            return self._opened(entry, print_, read, similarity)
        except Exception as error:  # noqa: BLE001 - an entry of another form is no use to keep
            self._tell_failure(found, error)
            if not found.dry:
                yield from self._drop(found, key)
            return None

    def _opened(self, entry: Entry, print_: Fingerprint, read: Read | None, similarity: float) -> _Opened | None:
        text = verified(entry.payload, key=entry.key, secret=self._secret)
        stored = decode_verified(text)
        repeated = stored.exact == print_.exact
        if stored.calls_tools and not repeated:
            return None  # tool arguments may quote the question's form
        if stored.question != entry.question:
            raise CorruptEntry("entry answers another question than it says")
        tier = "exact" if repeated else "normalised"
        if entry.key != print_.key:
            tier = "semantic"
            if within(print_.partition, stored.question, self._secret).exact != stored.exact:
                raise CorruptEntry("entry answers a question of another partition")
        reply = self._reply(stored, entry, tier, similarity, read)
        assert reply.hit is not None  # noqa: S101 - made with one
        return _Opened(entry, text, reply, reply.hit)

    def _reply(self, stored: Stored, entry: Entry, tier: Any, similarity: float, read: Read | None) -> Reply:
        age = max(0.0, self._clock() - entry.created)
        return _native(stored.reply(Hit(tier, entry.key[:16], age, similarity)), read)

    def _given(self, found: Found, print_: Fingerprint, opened: _Opened) -> Plan[Found]:
        """Return the look-up with its answer, which is then at hand for the next."""
        entry, hit = opened.entry, opened.hit
        answered = found._replace(reply=opened.reply, value=entry.value, entry=entry.key)
        if found.dry:
            return answered
        if hit.tier != "semantic" or not self._checks.learns:  # each of those may be drawn for a check
            self._recent.put(print_.exact, entry, opened.text, hit, found.category, found.generation)
        yield from self._touch(found, entry.key)
        return answered

    # --- By meaning

    def _look_up_by_meaning(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        reason = self._too_little_to_compare(found, print_)
        if reason:
            return found._replace(reason=reason, searched=True)
        endpoint = found.request.scope.feature or ""
        if not found.dry:
            self._checks.saw(found.category)
            if self._switch is not None and not self._switch.allows(endpoint):
                return found._replace(reason="switched off: hits are too rare", searched=True)
        try:
            found = yield from self._compared(found, print_)
        except Exception as error:  # noqa: BLE001 - a cache that fails is a cache that misses
            self._tell_failure(found, error)
            return found._replace(reason="the semantic tier failed", searched=True)
        if found.vector is None:
            return found
        found = yield from self._accepted(found, print_, read)
        if self._switch is not None and not found.dry:
            self._switch.note(endpoint, hit=found.reply is not None or found.doubted is not None)
        return found

    def _compared(self, found: Found, print_: Fingerprint) -> Plan[Found]:
        """Return the look-up with the question's vector and what came near it."""
        question = print_.question
        vector = yield from self._semantic.vector(question)
        if vector is None:
            return found._replace(reason="the question is longer than the embedder reads", searched=True)
        matches = yield from self._semantic.matches(
            self._entries,
            self._space(print_, vector),
            vector,
            question,
            self._threshold(found.category),
            self._clock(),
        )
        return found._replace(vector=vector, searched=True, matches=tuple(matches))

    def _too_little_to_compare(self, found: Found, print_: Fingerprint) -> str:
        """Return why a question is compared by its words alone, "" where its meaning may be compared."""
        policy = self._policies[found.category]
        if policy.mode != "semantic" or self._mode != "semantic" or not print_.question:
            return found.reason
        first = not any(message.get("role") in _SAID_BY_OTHERS for message in found.request.messages[:-1])
        if leans_on_context(print_.question, first=first):
            return "a follow-up, which means nothing by itself"
        if print_.form is None:
            long = len(print_.question) > LONGEST
            return "the question is longer than the embedder reads" if long else "form matters: code, markup or quotes"
        return ""

    def _accepted(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        match = found.matches[-1] if found.matches else None
        if match is None or match.verdict != "accepted":
            return found._replace(reason=_reason(found.matches))
        neighbour = match.neighbour
        try:
            opened = yield from self._get(found, print_, neighbour.key, read, similarity=neighbour.similarity)
        except Exception as error:  # noqa: BLE001 - a cache that fails is a cache that misses
            self._tell_failure(found, error)
            return found._replace(reason="the store failed")
        if opened is None:
            return found._replace(reason="what came near cannot be given")
        if found.dry:
            return (yield from self._given(found, print_, opened))
        if self._judge is not None and self._checks.draws(self._judge_share):
            same = yield from self._judged(found, print_.question, neighbour.question, opened.reply.text)
            if not same:
                refused = replace(match, verdict="vetoed", veto="judge")
                return found._replace(matches=(*found.matches[:-1], refused), reason="vetoed: judge")
        if self._checks.wants():
            return found._replace(doubted=match, reason="asked anew, to check the cache")
        return (yield from self._given(found, print_, opened))

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

    def _space(self, print_: Fingerprint, vector: bytes) -> str:
        return print_.space(self._semantic.embedder.id, len(vector) // 4)

    # --- Turns

    def _take_turn(self, found: Found, print_: Fingerprint, read: Read | None) -> Plan[Found]:
        shared, leads = yield from self._turns.take(print_.exact)
        if shared is None:
            return found._replace(leads=leads)
        try:
            stored = decode(shared, key=print_.key, secret=self._secret)
            reply = _native(stored.reply(Hit("coalesced", print_.key[:16])), read)
            return found._replace(reply=reply, value=self._worth(reply, self._clock()))
        except Exception as error:  # noqa: BLE001 - what cannot be shared is asked for
            self._tell_failure(found, error)
            return found._replace(leads=leads)

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
        return again._replace(leads=False)

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
        try:
            if len(payload) > LARGEST:
                raise ValueError(f"the answer takes {len(payload):,} bytes; at most {LARGEST:,} are kept")
            yield from self._learn(found, reply)
            yield from self._store_entry(found, print_, reply, self._entry_of(found, print_, reply, payload))
            self._kept += 1
        except Exception as error:  # noqa: BLE001 - the answer is paid for and must reach the user
            self._tell_failure(found, error)

    def _entry_of(self, found: Found, print_: Fingerprint, reply: Reply, payload: bytes) -> Entry:
        now = self._clock()
        return Entry(
            print_.key,
            payload,
            now,
            now + found.ttl,
            print_.partition,
            question=print_.question,
            tags=(*self._tags, *found.request.tags),
            value=self._worth(reply, now),
        )

    def _store_entry(self, found: Found, print_: Fingerprint, reply: Reply, entry: Entry) -> Plan[None]:
        """Store the entry, with its vector where that can be had: without one it is still found by its words."""
        try:
            vector = yield from self._vector_to_keep(found, print_, reply)
        except Exception as error:  # noqa: BLE001 - see above
            self._tell_failure(found, error)
            vector = None
        self._recent.drop(print_.exact)
        if vector is not None:
            try:
                space = self._space(print_, vector)
                return (yield from self._entries.put(replace(entry, space=space, vector=vector)))
            except ConfigurationError as error:
                self._tell_failure(found, error)
        yield from self._entries.put(entry)

    def _vector_to_keep(self, found: Found, print_: Fingerprint, reply: Reply) -> Plan[bytes | None]:
        """Return the question's vector, None where it is not to be found by meaning."""
        if reply.calls_tools or self._too_little_to_compare(found, print_):
            return None
        return found.vector if found.searched else (yield from self._semantic.vector(print_.question))

    def _learn(self, found: Found, reply: Reply) -> Plan[None]:
        """Learn from a fresh answer whether a stored one would have done; a wrong one that was given is dropped."""
        match = found.doubted or next((m for m in found.matches if m.verdict == "too far"), None)
        if match is None or not self._checks.learns:
            return
        try:
            yield from self._compare(found, match, reply)
        except Exception as error:  # noqa: BLE001 - nothing is learnt, and the answer is kept all the same
            self._tell_failure(found, error)

    def _compare(self, found: Found, match: Match, reply: Reply) -> Plan[None]:
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
        try:
            yield from self._entries.delete(key)
        except Exception as error:  # noqa: BLE001 - the next look-up tries again
            self._tell_failure(found, error)
        finally:
            self._recent.clear()

    # --- Telling

    def _hit(self, found: Found) -> Found:
        reply = found.reply
        assert reply is not None and reply.hit is not None  # noqa: S101, PT018
        self._statistics.hit(found.category, reply.hit.tier, found.value)
        emit(hit_event(found, reply, reply.hit, self._clock()), found.sink)
        return found

    def _missed(self, found: Found) -> Plan[Found]:
        event = miss_event(found, self._clock())
        self._statistics.miss(event)
        emit(event, found.sink)
        try:
            yield from self._statistics.log(event)
        except Exception as error:  # noqa: BLE001 - a log that cannot be written must not cost the call
            self._tell_failure(found, error)
        except BaseException:
            yield from self.leave(found)
            raise
        return found

    def _tell_failure(self, found: Found, error: Exception) -> None:
        tell_failure(found, error, self._clock())


def _said_last(request: Request) -> str:
    """Return the text of the user's last turn where it is no question to compare, as beside an image."""
    last = request.messages[-1] if request.messages else {}
    return message_text(last) if last.get("role") in ("user", "prompt") else ""


def _native(reply: Reply, read: Read | None) -> Reply:
    return reply if read is None else replace(reply, native=read(reply))


def _reason(matches: Sequence[Match]) -> str:
    if not matches:
        return "not asked before"
    veto = next((match.veto for match in matches if match.veto), "")
    return f"vetoed: {veto}" if veto else "nothing near enough"
