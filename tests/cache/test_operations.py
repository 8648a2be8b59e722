"""What the keeper of a cache does with it, and what nobody who writes to its store can do."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.cache import Cache, Policy
from llmcost_plugins.cache.codec import decode, encode
from llmcost_plugins.errors import ConfigurationError, CorruptEntry, TrafficError
from llmcost_plugins.events import ComponentFailed, Event
from llmcost_plugins.plan import drive
from llmcost_plugins.stores import Memory, SQLite
from llmcost_plugins.types import Entry, Reply, Request, Scope, Usage

ONE, OTHER = "How do I reset my password?", "How can I reset my password?"
REPLY = Reply({"content": "Click it."}, "Click it.", Usage(10, 5), "openai", "gpt-5.4")


def ask(content: Any = ONE, **changes: Any) -> Request:
    return Request(({"role": "user", "content": content},), model="gpt-5.4", **changes)


def keep(cache: Cache, *questions: str, **changes: Any) -> None:
    for question in questions:
        drive(cache.store(ask(question, **changes), REPLY))


def tier(cache: Cache, question: str = OTHER, sink: Any = None, **changes: Any) -> str | None:
    reply = drive(cache.find(ask(question, **changes), sink, turn=False)).reply
    return None if reply is None or reply.hit is None else reply.hit.tier


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def only(cache: Cache) -> Entry:
    (entry,) = cache._all()
    return entry


# --- Explaining


def test_explaining_says_why_and_leaves_no_trace() -> None:
    judged: list[Any] = []
    cache = Cache(judge=lambda *given: bool(judged.append(given)), check=1.0, lot=lambda: 0.0)
    keep(cache, ONE)
    explained = cache.explain(ask(OTHER))
    assert (explained.tier, explained.category, explained.entry_id) == ("semantic", "faq", only(cache).key[:16])
    assert explained.threshold is not None
    assert "answered (semantic" in str(explained)
    assert "accepted" in str(explained)
    assert cache.explain(ask(ONE)).tier == "exact"
    refused = cache.explain(ask("How do I not reset my password?"))
    assert refused.tier is None
    assert refused.reason.startswith("vetoed")
    assert cache.explain(ask("Where is my order?")).reason == "personal"
    assert cache.explain(Request(())).tier is None
    assert (judged, dict(cache.stats()), cache.misses()) == ([], {}, ())


def test_explaining_in_a_partition_of_the_store() -> None:
    cache = Cache(policies={"faq": Policy(version="2")})
    keep(cache, ONE, scope=Scope("acme"))
    assert cache.explain(OTHER).tier is None
    assert cache.explain(OTHER, partition=only(cache).partition).tier == "semantic"
    assert cache.explain(ONE, partition=only(cache).partition).tier == "exact"


def test_explaining_without_the_secret_destroys_nothing() -> None:
    store = Memory()
    keep(Cache(store, secret=b"s"), ONE)
    stranger = Cache(store)
    entry = only(stranger)
    assert stranger.explain(ONE, partition=entry.partition).tier is None
    drive(store.entries().put(replace(entry, key=stranger._identify(ask(), None).fingerprint.key)))  # type: ignore
    assert stranger.explain(ask(ONE)).tier is None
    assert stranger.count() == 2


# --- Forgetting


def test_a_bad_answer_is_reported_by_its_entry_id() -> None:
    cache = Cache()
    keep(cache, ONE, "What is tea?")
    hit = drive(cache.find(ask(OTHER), turn=False)).reply.hit  # type: ignore[union-attr]
    assert hit is not None
    assert cache.report_bad(hit.entry_id)
    assert not cache.report_bad(hit.entry_id)
    assert cache.count() == 1
    for entry_id in ("", hit.entry_id[:8]):
        with pytest.raises(ConfigurationError, match="entry_id"):
            cache.report_bad(entry_id)


@pytest.mark.parametrize("stored", ["memory", "sqlite"])
def test_deleting_invalidating_purging_and_counting(stored: str, tmp_path: Path) -> None:
    clock = Clock()
    cache = Cache(Memory() if stored == "memory" else SQLite(tmp_path / "c.db"), clock=clock, tags=["all"])
    keep(cache, ONE, tags=("passwords",))
    keep(cache, "What is tea?", "Is it in stock today?")
    assert cache.count() == 3
    assert (cache.delete(ask("how do i reset my password")), cache.delete(ask(ONE))) == (True, False)
    keep(cache, ONE, tags=("passwords",))
    assert (cache.invalidate("passwords"), cache.invalidate("passwords")) == (1, 0)
    clock.now += 301
    assert cache.contents()["expired"] == 1
    assert (cache.purge(), cache.purge(), cache.count()) == (1, 0, 1)
    assert cache.invalidate("all") == 1
    assert cache.contents()["answers"] == 0


def test_misses_and_counts() -> None:
    cache = Cache()
    keep(cache, ONE)
    for question in (OTHER, "How do I not reset my password?", "What is tea?", "Where is my order?"):
        tier(cache, question)
    assert [missed.reason.partition(":")[0] for missed in cache.misses()][-1] == "personal"
    assert cache.misses()[0].nearest == ONE
    assert cache.stats()["faq"].hits["semantic"] == 1
    assert cache.stats()["faq"].vetoes.total() == 1
    assert cache.stats()["personal"].lookups == 1


# --- Warming, export and load


def test_warming() -> None:
    cache = Cache()
    assert cache.warm([(ONE, "Click it."), (ask("What is tea?"), REPLY), ("Where is my order?", "No idea.")]) == 2
    assert cache.warm([(ONE, "Click there.")]) == 1
    assert cache.explain(OTHER).tier == "semantic"
    assert tier(cache, "what is tea") == "normalised"


@pytest.mark.parametrize("secret", [None, b"s"])
def test_an_exported_cache_comes_back_whole(secret: bytes | None, tmp_path: Path) -> None:
    file, clock = tmp_path / "answers.jsonl", Clock()
    cache = Cache(secret=secret, clock=clock, tags=["t"])
    keep(cache, ONE, "caf\u00e9 or tea \ud83d?")
    keep(cache, "What is the news today?")
    assert cache.export(file) == 3
    clock.now += 400
    other = Cache(SQLite(tmp_path / "c.db"), secret=secret, clock=clock)
    assert other.load(file) == 2
    assert (tier(other), tier(other, ONE), tier(other, "caf\u00e9 or tea \ud83d?")) == ("semantic", "exact", "exact")
    assert other.invalidate("t") == 2
    with pytest.raises(TrafficError, match="another `secret`"):
        Cache(secret=b"another").load(file)


def test_loading_replaces_what_is_at_hand(tmp_path: Path) -> None:
    file, cache = tmp_path / "answers.jsonl", Cache(fresh=1e9)
    keep(cache, ONE)
    cache.export(file)
    drive(cache.store(ask(ONE), replace(REPLY, text="Newer.")))
    assert drive(cache.find(ask(ONE))).reply.text == "Newer."  # type: ignore[union-attr]
    cache.load(file)
    assert drive(cache.find(ask(ONE))).reply.text == "Click it."  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 9},
        {"key": 5},
        {"created": "now"},
        {"tags": "t"},
        {"vector": "zz"},
        {"vector": "00"},
        {"reply": {"body": 1}},
        {"reply": []},
        {"question": None},
        {"value": 1.5},
    ],
    ids=str,
)
def test_a_broken_line_is_named_by_file_and_number(change: dict[str, Any], tmp_path: Path) -> None:
    file, cache = tmp_path / "answers.jsonl", Cache()
    keep(cache, ONE)
    cache.export(file)
    good = file.read_text()
    file.write_text(f"{good}\n{json.dumps({**json.loads(good), **change})}\n")
    with pytest.raises(TrafficError, match=r"answers\.jsonl, line 3: expected an exported answer"):
        Cache().load(file)


@pytest.mark.parametrize("line", ["{", "[]", "5", "[" * 100_000, "null"])
def test_a_line_of_another_form_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(TrafficError, match="line 1"):
        Cache().load(tmp_path / "a.jsonl")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            Cache().load(path)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        Cache().export(tmp_path / "no" / "folder.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(TrafficError, match="UTF-8"):
        Cache().load(tmp_path / "bytes.jsonl")


# --- Forged entries


def test_an_entry_whose_question_was_changed_is_corrupt() -> None:
    cache, events = Cache(recent=0, secret=b"s"), list[Event]()
    keep(cache, ONE)
    drive(cache._entries.put(replace(only(cache), question="How could I reset my password?")))
    assert tier(cache, OTHER, events.append) is None
    assert any(isinstance(event, ComponentFailed) and "another question" in event.error for event in events)
    assert cache.count() == 0


def test_an_entry_moved_to_another_tenants_space_is_corrupt() -> None:
    cache, events = Cache(recent=0, secret=b"s"), list[Event]()
    keep(cache, ONE, scope=Scope("acme"))
    theirs = only(cache)
    drive(cache._entries.delete(theirs.key))
    keep(cache, ONE, scope=Scope("globex"))
    ours = only(cache)
    drive(cache._entries.delete(ours.key))
    drive(cache._entries.put(replace(theirs, space=ours.space, partition=ours.partition)))
    assert tier(cache, OTHER, events.append, scope=Scope("globex")) is None
    assert any(isinstance(event, ComponentFailed) and "another partition" in event.error for event in events)
    drive(cache._entries.put(replace(theirs, key=ours.key)))
    assert tier(cache, ONE, scope=Scope("globex")) is None


FORGED: dict[str, Any] = {
    "constructor": {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain_core", "prompts", "PromptTemplate"],
        "kwargs": {},
    },
    "secret": {"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]},
    "bomb": "x",
}


def sealed(key: str, text: bytes) -> bytes:
    from llmcost_plugins.cache.codec import _checksum

    return f"2:{_checksum(key, text, None)}:".encode() + text


def content(entry: Entry, **changes: Any) -> bytes:
    stored = decode(entry.payload, key=entry.key)
    fields = {**stored.fields, "usage": None, "exact": stored.exact, "question": stored.question}
    return json.dumps({**fields, **changes}).encode()


@pytest.mark.parametrize(
    "forge",
    [
        lambda e: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
        lambda e: e.payload[: len(e.payload) // 2],
        lambda e: b"2:" + b"0" * 64 + b":" + e.payload.split(b":", 2)[2],
        lambda e: sealed(e.key, b"[" * 200_000),
        lambda e: sealed(e.key, b'{"a":' * 200_000),
        lambda e: sealed(e.key, content(e) + b" " * 1_000_001),
        lambda e: sealed(e.key, content(e, native={"x": 1})),
        lambda e: sealed(e.key, content(e, hit={"tier": "exact"})),
        lambda e: sealed(e.key, content(e, text=5)),
        lambda e: sealed(e.key, content(e, text={"lc": 1})),
        lambda e: sealed(e.key, content(e, usage={"input_tokens": 10**400})),
        lambda e: sealed(e.key, json.dumps(FORGED["constructor"]).encode()),
        lambda e: sealed(e.key, json.dumps(FORGED["secret"]).encode()),
        lambda e: sealed(e.key, b"9" * 5_000),
        lambda e: sealed(e.key, b"\xff\xfe"),
        lambda e: sealed(e.key, b""),
        lambda e: encode(REPLY, key="another", exact="e", question=ONE),
    ],
)
def test_forged_payloads_are_misses(forge: Any) -> None:
    for question in (ONE, OTHER):
        cache, events = Cache(recent=0), list[Event]()
        keep(cache, ONE)
        entry = only(cache)
        payload = forge(entry)
        with pytest.raises(CorruptEntry):
            decode(payload, key=entry.key)
        drive(cache._entries.put(replace(entry, payload=payload)))
        assert tier(cache, question, events.append) is None
        assert any(isinstance(event, ComponentFailed) for event in events)
        assert cache.count() == 0


def test_an_async_caller_may_keep_house_in_a_thread() -> None:
    cache = Cache()
    keep(cache, ONE)

    async def housekeeping() -> int:
        return await asyncio.to_thread(cache.purge)

    assert asyncio.run(housekeeping()) == 0
