"""The semantic tier within the cache: judge, switch, what is at hand, bad input, and what it costs when parts fail."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmcost_plugins.cache import Cache, Calibration, KillSwitch, Policy
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.events import CacheHit, CacheMissed, ComponentFailed, Event
from llmcost_plugins.plan import adrive, drive
from llmcost_plugins.stores import Memory, SQLite
from llmcost_plugins.types import Entry, Reply, Request, Scope, Usage

ONE, OTHER = "How do I reset my password?", "How can I reset my password?"
REPLY = Reply({"content": ["Click it."]}, "Click it.", Usage(10, 5), "openai", "gpt-5.4")
FAR = "Do you ship to Norway?"


def ask(content: Any = ONE, **changes: Any) -> Request:
    return Request(({"role": "user", "content": content},), model="gpt-5.4", **changes)


def keep(cache: Cache, *questions: str, **changes: Any) -> None:
    for question in questions:
        drive(cache.store(ask(question, **changes), REPLY))


def look(cache: Cache, question: str = OTHER, sink: Any = None, **changes: Any) -> Any:
    return drive(cache.find(ask(question, **changes), sink, turn=False))


def tier(cache: Cache, question: str = OTHER, **changes: Any) -> str | None:
    reply = look(cache, question, **changes).reply
    return None if reply is None else reply.hit.tier


def failures(events: list[Event]) -> list[str]:
    return [event.error for event in events if isinstance(event, ComponentFailed)]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_paraphrase_is_answered_and_says_how_near_it_was() -> None:
    clock = Clock()
    cache = Cache(clock=clock)
    keep(cache, ONE)
    clock.now += 60
    hit = look(cache).reply.hit
    assert (hit.tier, hit.age) == ("semantic", 60)
    assert 0.9 < hit.similarity < 1
    again = look(cache).reply.hit
    assert (again.tier, again.similarity, again.entry_id) == ("semantic", hit.similarity, hit.entry_id)
    assert again.id != hit.id


def test_hits_do_not_make_an_answer_last_longer() -> None:
    clock = Clock()
    cache = Cache(clock=clock, ttl=10)
    keep(cache, ONE)
    for _ in range(9):
        clock.now += 1
        assert tier(cache) == "semantic"
    clock.now += 1
    assert (tier(cache), tier(cache, ONE)) == (None, None)


def test_a_policy_may_change_its_threshold_version_and_mode() -> None:
    store = Memory()
    keep(Cache(store), ONE)
    assert tier(Cache(store, policies={"faq": Policy(threshold=1.9)})) is None
    assert tier(Cache(store, policies={"faq": Policy(mode="exact")})) is None
    assert tier(Cache(store, policies={"faq": Policy(version="2")})) is None
    versioned = Cache(store, policies={"faq": Policy(version="2")})
    keep(versioned, ONE)
    assert (tier(versioned), tier(Cache(store))) == ("semantic", "semantic")


# --- The judge


@pytest.mark.parametrize(("verdict", "expected"), [(True, "semantic"), (False, None), ("yes", None), (1, None)])
@pytest.mark.parametrize("kind", ["sync", "async", "object"])
def test_only_a_clear_yes_of_the_judge_lets_an_answer_pass(verdict: Any, expected: str | None, kind: str) -> None:
    asked: list[tuple[str, str, str]] = []

    def judge(*given: str) -> Any:
        asked.append(given)  # type: ignore[arg-type]
        return verdict

    async def ajudge(*given: str) -> Any:
        return judge(*given)

    class Judging:
        async def __call__(self, *given: str) -> Any:
            return judge(*given)

    cache = Cache(judge={"sync": judge, "async": ajudge, "object": Judging()}[kind])
    keep(cache, ONE)

    async def within_a_loop() -> Any:
        waited = tier(cache)  # a notebook's sync call
        found = await adrive(cache.find(ask(OTHER + " "), turn=False))
        return waited, found.reply and found.reply.hit and found.reply.hit.tier

    assert tier(cache, OTHER + "  ") == expected
    assert asyncio.run(within_a_loop()) == (expected, expected)
    assert asked == [(OTHER + mark, ONE, "Click it.") for mark in ("  ", "", " ")]
    assert tier(cache, ONE) == "exact"


def test_a_judge_that_fails_has_not_agreed() -> None:
    def judge(*given: str) -> bool:
        raise OSError("no line")

    cache, events = Cache(judge=judge), list[Event]()
    keep(cache, ONE)
    found = look(cache, sink=events.append)
    assert (found.reply, found.reason) == (None, "vetoed: judge")
    assert failures(events) == ["OSError: no line"]


def test_what_the_judge_refused_is_at_nobodys_hand_and_what_was_at_hand_stays() -> None:
    seen: list[str | None] = []

    def judge(asked: str, stored: str, answer: str) -> bool:
        if not seen:
            seen.append(None)
            seen.append(cache._recent.get(cache._identify(ask(OTHER), None).fingerprint.exact))  # type: ignore
        return False

    cache = Cache(judge=judge)
    keep(cache, ONE, FAR)
    assert tier(cache, FAR) == "exact"
    assert tier(cache) is None
    assert seen == [None, None]
    assert cache._recent.get(cache._identify(ask(FAR), None).fingerprint.exact) is not None  # type: ignore[union-attr]


def test_a_share_of_the_hits_is_judged() -> None:
    lots, asked = iter([0.1, 0.9]), list[str]()
    cache = Cache(judge=lambda *given: bool(asked.append(given[0])) or True, judge_share=0.5, lot=lambda: next(lots))
    keep(cache, ONE)
    assert (tier(cache, OTHER + " "), tier(cache, OTHER + "  ")) == ("semantic", "semantic")
    assert asked == [OTHER + " "]


# --- Checks through the cache


@pytest.mark.parametrize("hook", [False, True], ids=["turns", "framework's hook"])
def test_a_checked_hit_is_asked_anew_and_a_wrong_entry_goes(hook: bool) -> None:
    cache = Cache(check=1.0, max_error=0.5, lot=lambda: 0.0)
    keep(cache, ONE)
    found = drive(cache.find(ask(OTHER), turn=not hook))
    assert (found.reply, found.reason) == (None, "asked anew, to check the cache")
    fresh = replace(REPLY, text="Call us on 555.")
    drive(cache.store(ask(OTHER), fresh) if hook else cache.keep(found, fresh))
    assert tier(cache, ONE) is None
    assert look(cache, OTHER).reply.text == "Call us on 555."


def test_a_check_that_agrees_keeps_both() -> None:
    cache = Cache(check=1.0, lot=lambda: 0.0)
    keep(cache, ONE)
    drive(cache.keep(drive(cache.find(ask(OTHER))), REPLY))
    assert (tier(cache, ONE), tier(cache, OTHER)) == ("exact", "exact")


def test_a_hit_at_hand_is_no_way_around_the_checks() -> None:
    lots = iter([0.9, 0.0])
    cache = Cache(check=0.5, lot=lambda: next(lots))
    keep(cache, ONE)
    assert tier(cache) == "semantic"
    assert look(cache).reason == "asked anew, to check the cache"


# --- The kill switch


def test_the_switch_turns_off_where_hits_stay_rare_and_on_again() -> None:
    switch = KillSwitch()
    passed = 0
    for _ in range(200):
        passed += switch.allows("chat")
        switch.note("chat", hit=False)
    assert passed == 200
    probes = 0
    for _ in range(400):
        if switch.allows("chat"):
            probes += 1
            switch.note("chat", hit=True)
    assert probes == 20
    assert switch.allows("chat")
    assert switch.allows("search")


def test_the_switch_stays_on_where_hits_are_not_rare_or_grow() -> None:
    switch = KillSwitch()
    for number in range(1_000):
        switch.note("often", hit=number % 5 == 0)
        switch.note("filling", hit=number % 100 < number // 100)
        assert switch.allows("often")
        assert switch.allows("filling")


def test_a_switched_off_cache_still_answers_the_same_words() -> None:
    cache = Cache(kill_switch=KillSwitch(window=1))
    keep(cache, ONE)
    for question in ("What is tea?", "What is rain?"):
        assert tier(cache, question) is None
    assert look(cache).reason == "switched off: hits are too rare"
    assert tier(cache, ONE) == "exact"
    assert tier(cache, OTHER, scope=Scope(feature="search")) == "semantic"


@pytest.mark.parametrize("options", [{"min_hit_rate": 0}, {"probe": 0}, {"window": 0}])
def test_switches_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        KillSwitch(**options)


# --- What is at hand


@pytest.mark.parametrize(
    "forget",
    [
        lambda cache: cache.delete(ask(ONE)),
        lambda cache: cache.invalidate("faq"),
        lambda cache: cache.report_bad(look(cache, ONE).reply.hit.entry_id),
        lambda cache: cache.clear(),
        lambda cache: cache.bump_version("2"),
    ],
    ids=["delete", "invalidate", "report_bad", "clear", "bump_version"],
)
def test_what_was_forgotten_is_not_given_from_what_is_at_hand(forget: Callable[[Cache], Any]) -> None:
    cache = Cache(tags=["faq"], fresh=1e9)
    keep(cache, ONE)
    assert (tier(cache, ONE), tier(cache)) == ("exact", "semantic")
    forget(cache)
    assert (tier(cache, ONE), tier(cache)) == (None, None)


def test_a_look_that_began_before_a_deletion_leaves_nothing_at_hand() -> None:
    cache = Cache(fresh=1e9)
    keep(cache, ONE)
    plan = cache._look_up(cache._classified(begun := cache._identify(ask(ONE), None)), begun.fingerprint, None)  # type: ignore[arg-type]
    cache.delete(ask(ONE))
    keep(cache, ONE)
    drive(plan)  # it read the store after the deletion, and cannot know
    assert cache._recent.get(begun.fingerprint.exact) is None  # type: ignore[union-attr]


def test_another_process_is_believed_after_fresh_seconds(tmp_path: Path) -> None:
    clock = Clock()
    caches = [Cache(SQLite(tmp_path / "c.db"), clock=clock, fresh=5) for _ in range(2)]
    keep(caches[0], ONE)
    assert tier(caches[0], ONE) == "exact"
    caches[1].clear()
    clock.now += 4
    assert tier(caches[0], ONE) == "exact"
    clock.now += 2
    assert tier(caches[0], ONE) is None


def test_hits_at_hand_are_counted_told_and_touched_like_others() -> None:
    class Touched(Memory):
        def entries(self, namespace: str = "") -> Any:
            entries = super().entries(namespace)
            inner = entries.touch
            entries.touch = lambda key, now: (touched.append(key), inner(key, now))[1]  # type: ignore[method-assign]
            return entries

    touched: list[str] = []
    cache, events = Cache(Touched()), list[Event]()
    keep(cache, ONE)
    for _ in range(3):
        look(cache, ONE, events.append)
    assert [type(event) for event in events] == [CacheHit] * 3
    assert len(touched) == 3
    counts = cache.stats()["faq"]
    assert (counts.lookups, counts.hits["exact"], counts.hit_rate) == (3, 3, 1.0)
    assert counts.saved == 3 * events_value(cache)
    assert counts.saved_dollars > 0


def events_value(cache: Cache) -> int:
    return next(iter(cache._all())).value


def test_no_body_is_two_callers() -> None:
    cache = Cache()
    keep(cache, ONE)
    for question in (ONE, OTHER):
        for _ in range(3):
            body = look(cache, question).reply.body
            assert body == {"content": ["Click it."]}
            body["content"].append("spoilt")


def test_the_one_unused_for_longest_goes_first() -> None:
    cache = Cache(recent=2)
    keep(cache, "What is tea?", "What is rain?", "What is sand?")
    for question in ("What is tea?", "What is rain?", "What is tea?", "What is sand?"):
        look(cache, question)

    def at_hand(question: str) -> bool:
        return cache._recent.get(cache._identify(ask(question), None).fingerprint.exact) is not None  # type: ignore

    assert [at_hand(f"What is {it}?") for it in ("tea", "rain", "sand")] == [True, False, True]


# --- Bad input, and parts that fail


@pytest.mark.parametrize("text", ["", " ", "?", "\0", "\ud83d", "a" * 100_000, "word " * 50_000])
def test_any_text_is_taken(text: str) -> None:
    cache, events = Cache(), list[Event]()
    found = drive(cache.find(ask(text), events.append))
    drive(cache.keep(found, REPLY))
    assert tier(cache, text) == "exact"
    assert failures(events) == []


def test_what_is_too_large_is_not_kept_and_that_is_told() -> None:
    cache, events = Cache(), list[Event]()
    found = drive(cache.find(ask("a" * 1_000_001), events.append))
    assert found.reason == "the question is longer than 1,000,000 characters"
    drive(cache.keep(found, REPLY))
    found = drive(cache.find(ask(), events.append))
    drive(cache.keep(found, replace(REPLY, text="a" * 1_000_001)))
    assert failures(events)[0].endswith("at most 1,000,000 are kept")
    assert (cache.count(), cache.turns_held) == (0, 0)


def test_a_question_longer_than_the_embedder_reads_is_compared_by_its_words() -> None:
    cache = Cache()
    long = "How do I " + "really " * 300 + "reset my password?"
    assert look(cache, long).reason == "the question is longer than the embedder reads"
    keep(cache, long)
    assert next(cache._all()).vector is None
    assert tier(cache, long + "!") == "normalised"


def broken(texts: list[str]) -> Any:
    raise ConnectionError("hung up")


def shrinking(texts: list[str]) -> Any:
    return [[1.0] * (8 if "do" in texts[0] else 4)] * len(texts)


EMBEDDERS: dict[str, Callable[[list[str]], Any]] = {
    "raises": broken,
    "nan": lambda texts: [[float("nan")] * 4] * len(texts),
    "inf": lambda texts: [[1e300, 1e300]] * len(texts),
    "nothing": lambda texts: [[0.0] * 4] * len(texts),
    "too few": lambda texts: [],
    "ragged": lambda texts: [[1.0], [1.0, 2.0]],
    "none": lambda texts: None,
    "text": lambda texts: "vectors",
    "other dimensions": shrinking,
}


def calibrated(embedder: Any, **options: Any) -> Cache:
    from llmcost_plugins.embeddings import embedder_of

    calibration = Calibration(embedder_of(embedder).id, 0.01, 0.95, {"all": 0.8})
    return Cache(embedder=embedder, calibration=calibration, **options)


@pytest.mark.parametrize("name", EMBEDDERS)
@pytest.mark.parametrize("hook", [False, True], ids=["turns", "framework's hook"])
def test_with_an_embedder_that_fails_the_exact_tier_goes_on(name: str, hook: bool) -> None:
    cache, events = calibrated(EMBEDDERS[name]), list[Event]()
    for question in (ONE, OTHER):
        found = drive(cache.find(ask(question), events.append, turn=not hook))
        assert found.reply is None
        drive(cache.store(ask(question), REPLY) if hook else cache.keep(found, REPLY))
    assert failures(events)
    assert (tier(cache, ONE), tier(cache, OTHER), cache.turns_held) == ("exact", "exact", 0)


def test_vectors_of_another_length_in_the_store_are_no_harm() -> None:
    cache, events = Cache(), list[Event]()
    keep(cache, ONE)
    entry: Entry = next(cache._all())
    spoilt = Memory()
    other = Cache(spoilt)
    drive(other._entries.put(replace(entry, key="odd", vector=np.array([1.0], np.float32).tobytes())))
    found = drive(other.find(ask(OTHER), events.append))
    assert found.reply is None
    drive(other.keep(found, REPLY))
    assert failures(events)
    assert tier(other, OTHER) == "exact"


@pytest.mark.parametrize("returned", ["elsewhere", 5, None, []])
def test_a_classifier_that_says_nonsense_costs_no_call(returned: Any) -> None:
    cache = Cache(classify=lambda text: returned)
    found = drive(cache.find(ask()))
    assert found.reply is None
    drive(cache.keep(found, REPLY))
    assert found.reason in ("unclassified", "unknown category 'elsewhere'")
    assert cache.count() == cache.turns_held == 0


def test_ones_own_classifier_and_policies() -> None:
    cache = Cache(classify=lambda text: "vip" if "vip" in text else "faq", policies={"vip": Policy(mode="off")})
    assert look(cache, "a vip question").reason == "vip"
    keep(cache, ONE)
    assert tier(cache) == "semantic"


@pytest.mark.parametrize("log", ["missing/folder.jsonl", "misses.jsonl"])
def test_a_miss_log_never_costs_the_call(log: str, tmp_path: Path) -> None:
    cache, events = Cache(miss_log=tmp_path / log), list[Event]()
    keep(cache, FAR)
    found = drive(cache.find(ask("half a pair \ud83d and caf\u00e9"), events.append))
    assert type(events[0]) is CacheMissed
    assert len(failures(events)) == ("/" in log)
    assert asyncio.run(adrive(cache.find(ask("something else"), turn=False))).reply is None
    drive(cache.keep(found, REPLY))
    assert cache.turns_held == 0
    if "/" not in log:
        lines = (tmp_path / log).read_text(encoding="utf-8").splitlines()
        assert len(lines) == 2
        assert "caf\u00e9" in lines[0]


@pytest.mark.parametrize(
    "options",
    [
        {"share": "everyone"},
        {"mode": "fuzzy"},
        {"context": "loose"},
        {"check": 2},
        {"check": "0.1"},
        {"judge_share": -1},
        {"max_error": 0},
        {"ttl": "5"},
        {"secret": b""},
        {"secret": "text"},
        {"namespace": 5},
        {"version": 2},
        {"recent": -1},
        {"fresh": -1},
        {"judge": "gpt"},
        {"classify": "faq"},
        {"vetoes": ["numbers"]},
        {"policies": {"faq": "exact"}},
        {"policies": {"other": Policy()}},
        {"templates": "no field"},
        {"tags": [5]},
        {"embedder": 5},
        {"embedder": lambda texts: texts},
        {"calibration": "nowhere.json"},
        {"calibration": Calibration("another", 0.01, 0.95, {"all": 0.8})},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_when_the_cache_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Cache(**options)


def test_one_tag_is_one_tag() -> None:
    cache = Cache(tags="faq")
    keep(cache, ONE)
    assert cache.invalidate("faq") == 1


@pytest.mark.parametrize("options", [{"threshold": 90}, {"threshold": "high"}, {"ttl": 0}, {"ttl": "1"}, {"mode": "x"}])
def test_policies_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Policy(**options)


# --- Many at once


def test_threads_and_tasks_with_a_paraphrase_at_once() -> None:
    cache, paid, lock = Cache(), list[str](), threading.Lock()

    def served(question: str) -> str:
        found = drive(cache.find(ask(question), lambda event: None))
        if found.reply is None:
            with lock:
                paid.append(question)
            drive(cache.keep(found, REPLY))
            return REPLY.text
        return found.reply.text

    async def tasks() -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(served, q) for q in [ONE, OTHER] * 20))

    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(served, [ONE, OTHER] * 100))
    assert {*texts, *asyncio.run(tasks())} == {"Click it."}
    assert sorted(paid) in ([OTHER], [ONE], sorted([ONE, OTHER]))
    assert cache.turns_held == 0
