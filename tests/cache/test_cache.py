"""The cache room: what it finds, keeps and refuses, and how those that ask the same at once take turns."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.cache import Cache, Found, Policy
from llmcost_plugins.cache import codec as codec_module
from llmcost_plugins.cache.codec import decode, encode
from llmcost_plugins.errors import ConfigurationError, CorruptEntry
from llmcost_plugins.events import CacheHit, CacheMissed, ComponentFailed, Event
from llmcost_plugins.plan import Plan, adrive, drive
from llmcost_plugins.stores import Memory
from llmcost_plugins.types import Entries, Entry, Neighbour, Reply, Request, Scope, Usage

QUESTION = "How do I reset my password?"
REPLY = Reply({"content": "Click it."}, "Click it.", Usage(10, 5), "openai", "gpt-5.4")
CALLING = Reply({"tool_calls": []}, "", Usage(10, 5), calls_tools=True, finish="tool_calls")
LONG = 30.0  # seconds after which a hanging thread fails a test; never waited for otherwise


def ask(content: Any = QUESTION, **changes: Any) -> Request:
    return Request(({"role": "user", "content": content},), model="gpt-5.4", **changes)


def encoded(reply: Reply, secret: bytes | None = None) -> bytes:
    return encode(reply, key="k", exact="e", question="q", secret=secret)


def fields_of(reply: Reply) -> dict[str, Any]:
    names = ("body", "text", "provider", "model", "finish", "calls_tools", "usage")
    return {name: getattr(reply, name) for name in names}


def find(cache: Cache, request: Request, sink: Any = None, *, turn: bool = True) -> Found:
    return drive(cache.find(request, sink, turn=turn))


def keep(cache: Cache, request: Request, reply: Reply = REPLY) -> Found:
    found = find(cache, request)
    assert found.reply is None
    drive(cache.keep(found, reply))
    return found


def answered(cache: Cache, request: Request) -> str | None:
    """Return how the cache answers a request, None if it does not; leaves no turn behind."""
    found = find(cache, request, turn=False)
    return None if found.reply is None or found.reply.hit is None else found.reply.hit.tier


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Spy:
    """A store that keeps what it is given where tests can reach it, and may be told to do more or to fail."""

    def __init__(self) -> None:
        self.by_key: dict[str, Entry] = {}
        self.on_get: Callable[[], None] | None = None
        self.broken: tuple[str, ...] = ()

    def entries(self, namespace: str = "") -> Entries:
        return self

    def _check(self, name: str) -> None:
        if name in self.broken:
            raise OSError(f"{name} failed")

    def get(self, key: str) -> Plan[Entry | None]:
        self._check("get")
        entry = self.by_key.get(key)
        if self.on_get is not None:
            meanwhile, self.on_get = self.on_get, None
            meanwhile()
        return entry
        yield

    def put(self, entry: Entry) -> Plan[None]:
        self._check("put")
        self.by_key[entry.key] = entry
        return
        yield

    def delete(self, key: str) -> Plan[bool]:
        self._check("delete")
        return self.by_key.pop(key, None) is not None
        yield

    def clear(self) -> Plan[None]:
        self.by_key.clear()
        return
        yield

    def near(self, space: str, vector: bytes, limit: int, now: float) -> Plan[list[Neighbour]]:
        self._check("near")
        return []
        yield

    def touch(self, key: str, now: float) -> Plan[None]:
        return
        yield

    def only(self) -> Entry:
        (entry,) = self.by_key.values()
        return entry

    def tamper(self, payload: bytes) -> None:
        self.by_key = {key: replace(entry, payload=payload) for key, entry in self.by_key.items()}


# --- Find, keep, leave


def test_a_kept_answer_is_found_again(clock: Clock) -> None:
    cache = Cache(clock=clock)
    first = find(cache, ask())
    assert (first.reply, first.leads, first.reason) == (None, True, "not asked before")
    drive(cache.keep(first, replace(REPLY, native=object(), call_id="c1")))
    clock.now += 5
    found = find(cache, ask())
    assert found.reply is not None
    assert found.reply.hit is not None
    assert (found.reply.hit.tier, found.reply.hit.age, found.leads) == ("exact", 5, False)
    assert found.reply.native is None
    assert replace(found.reply, hit=None) == REPLY
    assert cache.turns_held == 0


def test_each_hit_has_an_id_of_its_own_and_names_the_entry() -> None:
    cache = Cache()
    keep(cache, ask())
    hits = [found.reply.hit for found in (find(cache, ask()), find(cache, ask())) if found.reply is not None]
    assert len({hit.id for hit in hits if hit}) == 2
    assert len({hit.entry_id for hit in hits if hit}) == 1


def test_another_form_of_the_question_is_found() -> None:
    cache = Cache()
    keep(cache, ask("How do I reset my password?"))
    assert answered(cache, ask("how do i  reset my password")) == "normalised"
    assert answered(cache, ask("How do I change my password?")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "gpt-5.4-mini"},
        {"params": {"temperature": 1}},
        {"dialect": "langchain"},
        {"scope": Scope("acme")},
        {"messages": ({"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION})},
    ],
)
def test_what_must_never_be_shared_is_not(changes: dict[str, Any]) -> None:
    cache = Cache()
    keep(cache, ask())
    assert answered(cache, replace(ask(), **changes)) is None
    assert answered(cache, ask()) == "exact"


def test_users_of_one_tenant_share_and_tenants_do_not() -> None:
    cache = Cache()
    keep(cache, ask(scope=Scope("acme", "u1")))
    assert answered(cache, ask(scope=Scope("acme", "u2", "search"))) == "exact"
    assert answered(cache, ask(scope=Scope("globex", "u1"))) is None
    assert answered(cache, ask()) is None


@pytest.mark.parametrize("changes", [{"namespace": "b"}, {"version": "2"}, {"secret": b"s"}])
def test_caches_apart_on_one_store(changes: dict[str, Any]) -> None:
    store = Memory()
    keep(Cache(store), ask())
    assert answered(Cache(store), ask()) == "exact"
    assert answered(Cache(store, **changes), ask()) is None


@pytest.mark.parametrize(
    "reply",
    [
        replace(REPLY, finish="length"),
        replace(REPLY, finish="content_filter"),
        replace(REPLY, finish=None),
        replace(REPLY, text=""),
    ],
)
def test_answers_that_must_not_be_given_again(reply: Reply) -> None:
    store = Spy()
    cache = Cache(store)
    found = find(cache, ask())
    drive(cache.keep(found, reply))
    assert store.by_key == {}
    assert cache.turns_held == 0


def test_an_answer_without_usage_is_kept() -> None:
    cache = Cache()
    keep(cache, ask(), replace(REPLY, usage=None))
    found = find(cache, ask())
    assert found.reply is not None
    assert found.reply.usage is None


def test_a_call_of_tools_answers_the_same_words_only() -> None:
    cache = Cache()
    keep(cache, ask("Book a table for Anna"), CALLING)
    assert answered(cache, ask("Book a table for Anna")) == "exact"
    assert answered(cache, ask("book a table for anna")) is None


def test_a_hit_is_not_kept_as_a_new_answer(clock: Clock) -> None:
    store = Spy()
    cache = Cache(store, clock=clock)
    keep(cache, ask())
    before = store.only()
    found = find(cache, ask())
    clock.now += 1
    assert found.reply is not None
    drive(cache.keep(found, found.reply))
    assert store.only() == before


def test_storing_without_looking_first() -> None:
    cache = Cache()
    drive(cache.store(ask(), REPLY))
    assert answered(cache, ask()) == "exact"
    assert cache.turns_held == 0


def test_clear_forgets_everything() -> None:
    cache = Cache()
    keep(cache, ask())
    cache.clear()
    assert answered(cache, ask()) is None


async def test_the_async_face_is_the_same() -> None:
    cache = Cache()
    found = await adrive(cache.find(ask()))
    await adrive(cache.keep(found, REPLY))
    again = await adrive(cache.find(ask()))
    assert again.reply is not None
    await asyncio.to_thread(cache.clear)
    left = await adrive(cache.find(ask()))
    await adrive(cache.leave(left))
    assert cache.turns_held == 0


# --- Time


def test_answers_end_with_their_time(clock: Clock) -> None:
    cache = Cache(ttl=60, clock=clock)
    keep(cache, ask())
    clock.now += 59.9
    assert answered(cache, ask()) == "exact"
    clock.now += 0.1
    assert answered(cache, ask()) is None
    keep(cache, ask())
    assert answered(cache, ask()) == "exact"


def test_a_clock_that_goes_back_makes_no_negative_age(clock: Clock) -> None:
    cache = Cache(clock=clock)
    keep(cache, ask())
    clock.now -= 100
    found = find(cache, ask())
    assert found.reply is not None
    assert found.reply.hit is not None
    assert found.reply.hit.age == 0


def test_questions_about_the_moment_have_a_time_of_their_own(clock: Clock) -> None:
    cache, live = (
        Cache(ttl=3_600, policies={"live": Policy(mode="exact", ttl=10)}, clock=clock),
        ask("Is the shop open right now?"),
    )
    keep(cache, live)
    keep(cache, ask())
    clock.now += 9
    assert answered(cache, live) == "exact"
    clock.now += 1
    assert answered(cache, live) is None
    assert answered(cache, ask()) == "exact"


def test_questions_about_the_moment_may_never_be_kept(clock: Clock) -> None:
    cache, live = Cache(policies={"live": Policy(mode="off")}, clock=clock), ask("Is the shop open right now?")
    keep(cache, live)
    assert answered(cache, live) is None


@pytest.mark.parametrize("options", [{"ttl": 0}, {"ttl": -1}, {"policies": {"x": Policy()}}])
def test_times_that_cannot_work(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"ttl|classify"):
        Cache(**options)  # type: ignore[arg-type]


# --- Refusals


def refusal(cache: Cache, request: Request) -> str:
    events: list[Event] = []
    found = find(cache, request, events.append)
    assert (found.reply, found.leads) == (None, False)
    (event,) = events
    assert isinstance(event, CacheMissed)
    assert event.reason == found.reason
    drive(cache.keep(found, REPLY))
    drive(cache.leave(found))
    assert find(cache, request).reply is None
    return found.reason


def test_a_cache_that_requires_a_scope_does_nothing_without() -> None:
    store = Spy()
    cache = Cache(store, require_scope=True)
    assert "tenant" in refusal(cache, ask())
    assert "tenant" in refusal(cache, ask(scope=Scope(user="u1")))
    drive(cache.store(ask(), REPLY))
    assert store.by_key == {}
    keep(cache, ask(scope=Scope("acme")))
    assert answered(cache, ask(scope=Scope("acme"))) == "exact"


def test_an_empty_tenant_is_none() -> None:
    assert "tenant" in refusal(Cache(require_scope=True), ask(scope=Scope("")))


def parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


@pytest.mark.parametrize("form", [str, parts], ids=["text", "parts"])
@pytest.mark.parametrize(
    ("question", "reason"), [("Where is my order?", "personal"), ("Write a poem about rain.", "creative")]
)
def test_personal_and_creative_questions_are_never_answered(
    question: str, reason: str, form: Callable[[str], Any]
) -> None:
    assert refusal(Cache(), ask(form(question))) == reason


def test_the_question_within_a_prompt_is_judged_too() -> None:
    prompt = "Answer from the passages.\n\nOrders arrive within two days.\n\nQ: Where is my order?"
    assert refusal(Cache(), ask(prompt, question="Where is my order?")) == "personal"


@pytest.mark.parametrize(
    "request_",
    [
        ask(params={"tool": object()}),
        replace(ask(), model="<__main__.Model object at 0x7f00>"),
        replace(ask(), model="<class 'app.Model'>"),
    ],
)
def test_requests_without_a_lasting_form_are_not_cached(request_: Request) -> None:
    assert refusal(Cache(), request_)


def test_no_messages_at_all_are_no_failure() -> None:
    cache = Cache()
    found = find(cache, Request(()))
    drive(cache.leave(found))
    assert cache.turns_held == 0


# --- Events


def test_what_a_cache_tells(clock: Clock) -> None:
    events: list[Event] = []
    cache, scope = Cache(clock=clock), Scope("acme", "u1")
    found = find(cache, ask(scope=scope), events.append)
    drive(cache.keep(found, REPLY))
    clock.now += 2
    again = find(cache, ask("how do I reset my password", scope=scope), events.append)
    missed, hit = events
    assert missed == CacheMissed(
        time=1_000_000.0, reason="not asked before", scope=scope, category="faq", question=QUESTION
    )
    assert QUESTION not in repr(missed)
    assert isinstance(hit, CacheHit)
    assert again.reply is not None
    assert again.reply.hit is not None
    assert (hit.call_id, hit.hit) == (again.reply.hit.id, again.reply.hit)
    assert (hit.provider, hit.model, hit.usage, hit.scope) == ("openai", "gpt-5.4", Usage(10, 5), scope)
    assert (hit.time, hit.hit.tier, hit.hit.age) == (1_000_002.0, "normalised", 2)
    assert hit.question == "how do I reset my password"
    assert hit.question not in repr(hit)


# --- Payloads

json_text = st.text() | st.text(st.characters(categories=["Cs"]), max_size=4)
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | json_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_text, inner, max_size=4),
    max_leaves=20,
)
secrets = st.sampled_from([None, b"secret"])


@given(bodies, json_text, st.integers(0, 10**9), secrets)
def test_any_json_survives_the_way_to_bytes_and_back(body: Any, text: str, tokens: int, secret: bytes | None) -> None:
    reply = Reply(body, text, Usage(tokens, tokens, estimated=True), "p", "m", finish="tool_calls", calls_tools=True)
    assert decode(encoded(reply, secret), key="k", secret=secret) == ("e", "q", fields_of(reply))


def test_half_a_surrogate_pair_survives() -> None:
    reply = replace(REPLY, body="\ud83d", text="\ud83d\ude00 \ude00")
    assert decode(encoded(reply), key="k").reply() == reply


@given(st.data(), secrets)
def test_a_changed_payload_is_found_out(data: st.DataObject, secret: bytes | None) -> None:
    payload = bytearray(encoded(REPLY, secret))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptEntry):
        decode(bytes(payload), key="k", secret=secret)


@given(st.binary(max_size=60))
def test_any_other_bytes_are_corrupt(payload: bytes) -> None:
    with pytest.raises(CorruptEntry):
        decode(payload, key="k")


def signed(content: Any) -> bytes:
    text = json.dumps(content).encode()
    checksum = codec_module._checksum("k", text, None)
    return f"{codec_module._VERSION}:{checksum}:".encode() + text


WHOLE = json.loads(encoded(REPLY).split(b":", 2)[2])


@pytest.mark.parametrize(
    "content",
    [
        None,
        5,
        [],
        {},
        {**WHOLE, "usage": {}},
        {**WHOLE, "usage": [1]},
        {k: v for k, v in WHOLE.items() if k != "exact"},
    ],
)
def test_content_of_another_form_is_corrupt(content: Any) -> None:
    with pytest.raises(CorruptEntry):
        decode(signed(content), key="k")
    assert decode(signed(WHOLE), key="k") == ("e", "q", fields_of(REPLY))


@pytest.mark.parametrize("usage", [dict.fromkeys(Usage._fields, "many"), dict.fromkeys(Usage._fields)])
def test_usage_of_another_form_is_corrupt(usage: dict[str, Any]) -> None:
    with pytest.raises(CorruptEntry):
        decode(signed({**WHOLE, "usage": usage}), key="k")


def test_a_body_that_is_no_json_is_refused_and_the_answer_is_not_lost() -> None:
    events: list[Event] = []
    cache = Cache()
    found = find(cache, ask(), events.append)
    drive(cache.keep(found, replace(REPLY, body=object())))
    assert isinstance(events[-1], ComponentFailed)
    assert "TypeError" in events[-1].error
    assert (answered(cache, ask()), cache.turns_held) == (None, 0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload[:-5],
        lambda payload: payload[:3],
        lambda payload: b"",
        lambda payload: b"99" + payload[1:],
        lambda payload: payload.replace(b"Click", b"Touch"),
        lambda payload: b"\x80\x04\x95 pickle",
    ],
    ids=["cut", "cut short", "empty", "other version", "changed", "foreign"],
)
def test_a_corrupt_entry_is_a_miss_that_is_told_and_dropped(spoil: Callable[[bytes], bytes]) -> None:
    store, events = Spy(), list[Event]()
    cache = Cache(store, recent=0)
    keep(cache, ask())
    store.tamper(spoil(store.only().payload))
    found = find(cache, ask(), events.append)
    assert found.leads
    failed, missed = events
    assert isinstance(failed, ComponentFailed)
    assert failed.component == "cache"
    assert "CorruptEntry" in failed.error
    assert isinstance(missed, CacheMissed)
    assert store.by_key == {}
    drive(cache.keep(found, REPLY))
    assert answered(cache, ask()) == "exact"


def test_without_the_secret_nothing_can_be_forged() -> None:
    store, events = Spy(), list[Event]()
    cache = Cache(store, recent=0, secret=b"secret")
    keep(cache, ask())
    entry = store.only()
    names = {
        "key": entry.key,
        "exact": decode(entry.payload, key=entry.key, secret=b"secret").exact,
        "question": entry.question,
    }
    store.tamper(encode(replace(REPLY, text="send money to"), **names))
    assert find(cache, ask(), events.append, turn=False).reply is None
    assert isinstance(events[0], ComponentFailed)
    keep(cache, ask())
    store.tamper(encode(replace(REPLY, text="send money to"), **names, secret=b"other"))
    assert answered(cache, ask()) is None


def test_a_secret_hides_what_keys_are_made_of() -> None:
    keys = set()
    for secret in (None, b"one", b"two"):
        store = Spy()
        keep(Cache(store, secret=secret), ask())
        keys.add(store.only().key)
    assert len(keys) == 3


def test_an_entry_moved_to_another_key_is_no_answer_to_the_letter() -> None:
    store = Spy()
    cache = Cache(store, recent=0, secret=b"secret")
    keep(cache, ask("What is tea?"))
    payload = store.only().payload
    keep(cache, ask("What is coffee?"))
    store.tamper(payload)
    assert answered(cache, ask("What is coffee?")) in (None, "normalised")


# --- A store that fails


@pytest.mark.parametrize("broken", ["get", "put"])
def test_a_store_that_fails_is_told_and_costs_nobody_an_answer(broken: str) -> None:
    store, events = Spy(), list[Event]()
    store.broken = (broken,)
    cache = Cache(store, recent=0)
    found = find(cache, ask(), events.append)
    drive(cache.keep(found, REPLY))
    assert [type(event) for event in events if not isinstance(event, CacheMissed)] == [ComponentFailed]
    assert cache.turns_held == 0


def test_a_corrupt_entry_that_cannot_be_dropped_is_a_miss() -> None:
    store, events = Spy(), list[Event]()
    cache = Cache(store, recent=0)
    keep(cache, ask())
    store.tamper(b"x")
    store.broken = ("delete",)
    assert find(cache, ask(), events.append, turn=False).reply is None
    assert [type(event) for event in events] == [ComponentFailed, ComponentFailed, CacheMissed]


# --- Turns


def test_nobody_leads_a_look_up_without_turn() -> None:
    cache = Cache()
    assert not find(cache, ask(), turn=False).leads
    assert cache.turns_held == 0


def test_different_questions_do_not_wait() -> None:
    cache = Cache()
    assert find(cache, ask("What is tea?")).leads
    assert find(cache, ask("What is coffee?")).leads
    assert cache.turns_held == 2


async def settled(cache: Cache, waiting: int = 1) -> None:
    """Let the tasks that were just started run until they wait."""
    for _ in range(10 * waiting):
        await asyncio.sleep(0)


async def test_waiters_are_given_the_leaders_answer() -> None:
    cache, events = Cache(), list[Event]()
    found = await adrive(cache.find(ask()))
    asking = [asyncio.create_task(adrive(cache.find(ask(), events.append))) for _ in range(5)]
    await settled(cache)
    assert (cache.turns_held, events) == (1, [])
    await adrive(cache.keep(found, replace(REPLY, native=object())))
    others = [await task for task in asking]
    tiers = [other.reply and other.reply.hit and other.reply.hit.tier for other in others]
    assert tiers == ["coalesced"] * 5
    assert all(other.reply is not None and other.reply.native is None and not other.leads for other in others)
    assert len({event.call_id for event in events if isinstance(event, CacheHit)}) == 5
    assert cache.turns_held == 0


async def test_when_the_leader_leaves_the_next_leads() -> None:
    cache = Cache()
    found = await adrive(cache.find(ask()))
    asking = [asyncio.create_task(adrive(cache.find(ask()))) for _ in range(3)]
    await settled(cache)
    led = 0
    while asking:
        await adrive(cache.leave(found))
        done, pending = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        asking = list(pending)
        (found,) = [task.result() for task in done]
        assert found.leads
        assert cache.turns_held == 1
        led += 1
    await adrive(cache.leave(found))
    assert (led, cache.turns_held) == (3, 0)


async def test_an_answer_that_may_not_be_shared_sends_the_waiters_on() -> None:
    cache = Cache()
    found = await adrive(cache.find(ask()))
    asking = [asyncio.create_task(adrive(cache.find(ask()))) for _ in range(3)]
    await settled(cache)
    await adrive(cache.keep(found, replace(REPLY, finish="length")))
    pending = set(asking)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            assert task.result().reply is None
            await adrive(cache.leave(task.result()))
    assert cache.turns_held == 0


async def test_tool_calls_are_not_shared_with_other_words() -> None:
    cache = Cache()
    found = await adrive(cache.find(ask("Book a table for Anna")))
    other = asyncio.create_task(adrive(cache.find(ask("book a table for anna"))))
    same = asyncio.create_task(adrive(cache.find(ask("Book a table for Anna"))))
    await settled(cache, 2)
    await adrive(cache.keep(found, CALLING))
    assert (await same).reply is not None
    not_shared = await other
    assert not_shared.reply is None
    await adrive(cache.leave(not_shared))


async def test_waiters_that_are_cancelled_leave_nothing_and_disturb_nobody() -> None:
    cache = Cache()
    found = await adrive(cache.find(ask()))
    asking = [asyncio.create_task(adrive(cache.find(ask()))) for _ in range(4)]
    await settled(cache)
    for task in asking[:3]:
        task.cancel()
    gone = await asyncio.gather(*asking[:3], return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in gone)
    assert cache.turns_held == 1
    await adrive(cache.keep(found, REPLY))
    assert (await asking[3]).reply is not None
    assert cache.turns_held == 0


async def test_threads_and_tasks_wait_for_one_turn() -> None:
    cache = Cache()
    found = await adrive(cache.find(ask()))
    tasks = [asyncio.create_task(adrive(cache.find(ask()))) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(find, cache, ask()) for _ in range(3)]
        await settled(cache)
        await adrive(cache.keep(found, REPLY))
        replies = [await task for task in tasks] + [await asyncio.wrap_future(future) for future in threads]
    assert all(other.reply is not None and other.reply.text == REPLY.text for other in replies)
    assert cache.turns_held == 0


def test_a_thread_that_leads_is_followed_by_the_next_when_it_leaves() -> None:
    cache, calls = Cache(), []

    def work(name: int) -> str:
        found = find(cache, ask())
        if found.reply is not None:
            return "followed"
        calls.append(name)
        if len(calls) == 1:
            drive(cache.leave(found))
            return "left"
        drive(cache.keep(found, REPLY))
        return "led"

    with ThreadPoolExecutor(8) as pool:
        done = [future.result(LONG) for future in [pool.submit(work, n) for n in range(8)]]
    assert done.count("left") == 1
    assert done.count("led") == 1
    assert cache.turns_held == 0


def test_an_answer_kept_between_look_up_and_turn_is_not_bought_again() -> None:
    store = Spy()
    cache = Cache(store, recent=0)
    store.on_get = lambda: drive(cache.store(ask(), REPLY))
    found = find(cache, ask())
    assert found.reply is not None


def test_a_sync_call_within_the_leaders_event_loop_does_not_wait_for_itself() -> None:
    """The leader could never go on: the thread that would run it waits."""
    cache, outcome = Cache(), list[Found]()

    async def main() -> None:
        leader = await adrive(cache.find(ask()))
        outcome.append(find(cache, ask()))
        await adrive(cache.leave(leader))

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    thread.join(LONG)
    assert outcome
    assert outcome[0].reply is None
    assert cache.turns_held == 0


def test_the_same_caller_may_ask_again_before_it_has_read_the_answer() -> None:
    cache, outcome = Cache(), list[Found]()

    def main() -> None:
        leader = find(cache, ask())
        outcome.append(find(cache, ask()))
        drive(cache.leave(leader))

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    thread.join(LONG)
    assert outcome
    assert not outcome[0].leads
    assert cache.turns_held == 0


# --- Memory


def put(memory: Memory, key: str) -> None:
    drive(memory.entries().put(Entry(key, key.encode(), 0.0)))


def got(memory: Memory, key: str) -> bool:
    return drive(memory.entries().get(key)) is not None


def test_the_entry_unused_for_longest_goes_first() -> None:
    memory = Memory(max_entries=3)
    for key in "abc":
        put(memory, key)
    assert got(memory, "a")
    put(memory, "d")
    assert {key: got(memory, key) for key in "abcd"} == {"a": True, "b": False, "c": True, "d": True}
    assert repr(memory) == "Memory(entries=3)"


def test_replacing_an_entry_drops_no_other() -> None:
    memory = Memory(max_entries=2)
    for key in "abb":
        put(memory, key)
    assert got(memory, "a")
    assert drive(memory.entries().delete("a")) is True
    assert drive(memory.entries().delete("a")) is False
    drive(memory.entries().clear())
    assert repr(memory) == "Memory(entries=0)"


def test_a_memory_stays_bounded_under_threads() -> None:
    memory = Memory(max_entries=10)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(put, memory, str(n)) for n in range(500)]:
            done.result()
    assert repr(memory) == "Memory(entries=10)"


def test_a_memory_needs_room() -> None:
    with pytest.raises(ConfigurationError, match="max_entries"):
        Memory(max_entries=0)


def test_a_cache_says_what_it_is() -> None:
    assert repr(Cache(namespace="shop", secret=b"hidden")) == "Cache(namespace='shop', version='', mode='semantic')"
