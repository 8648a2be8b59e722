"""What goes first when room is needed."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins import Memory, SQLite
from llmcost_plugins.plan import drive
from llmcost_plugins.stores.worth import worth
from llmcost_plugins.types import Entries, Entry

DAY = 86_400.0


def entry(key: object, created: float = 0.0, value: int = 0, size: int = 1, **fields: Any) -> Entry:
    return Entry(str(key), os.urandom(size), created, value=value, **fields)


def kept(entries: Entries) -> set[str]:
    return {entry.key for entry in drive(entries.page(None, 100_000))}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[..., SQLite]]:
    stores: list[SQLite] = []

    def open_(**options: Any) -> SQLite:
        stores.append(SQLite(tmp_path / "cache.db", **options))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def test_worth_doubles_with_value_and_uses_and_is_halved_by_a_day() -> None:
    assert worth(2_000, 0, 0.0) == pytest.approx(worth(1_000, 1, 0.0))
    assert worth(2_000, 0, 0.0) == pytest.approx(worth(1_000, 0, DAY))
    assert worth(0, 0, 0.0) == worth(1, 0, 0.0)


def test_memory_lets_the_least_worth_go() -> None:
    entries = Memory(max_entries=3).entries()
    drive(entries.put(entry("dear", value=4_000)))
    drive(entries.put(entry("used", value=1_000)))
    drive(entries.put(entry("cheap", value=1_000)))
    drive(entries.touch("used", 0.0))
    drive(entries.put(entry("new", value=1_000)))
    assert kept(entries) == {"dear", "used", "new"}
    drive(entries.put(entry("newer", created=3 * DAY, value=1_000)))
    drive(entries.put(entry("newest", created=3 * DAY, value=1_000)))
    drive(entries.put(entry("last", created=3 * DAY, value=1_000)))
    assert kept(entries) == {"newer", "newest", "last"}


def test_memory_lets_the_longest_unused_go_among_equals() -> None:
    entries = Memory(max_entries=3).entries()
    for key in "abc":
        drive(entries.put(entry(key)))
    drive(entries.get("a"))
    drive(entries.put(entry("d")))
    assert kept(entries) == {"a", "c", "d"}
    drive(entries.put(entry("c")))
    drive(entries.put(entry("e")))
    assert kept(entries) == {"c", "d", "e"}


def test_memory_remembers_nothing_of_what_is_gone() -> None:
    entries = Memory(max_entries=100).entries()
    for n in range(5_000):
        drive(entries.put(entry(n % 150, created=float(n), tags=(f"tag {n}",))))
        if n % 3 == 0:
            drive(entries.delete(str(n % 150)))
    assert len(kept(entries)) == drive(entries.count()) <= 100
    assert len(entries._ranks) < 500
    assert len(entries._by_tag) == drive(entries.count())


def test_a_full_file_keeps_what_is_worth_most(file: Callable[..., SQLite]) -> None:
    entries = file(max_bytes=2**18).entries()
    for n in range(20):
        drive(entries.put(entry(f"dear {n}", value=10**9, size=1_000)))
    drive(entries.put(entry("used", value=1_000, size=1_000)))
    for _ in range(100):
        drive(entries.touch("used", 50.0))
    for n in range(1_000):
        drive(entries.put(entry(n, created=float(n % 100), value=1_000, size=1_000)))
    assert {"used", *(f"dear {n}" for n in range(20))} <= kept(entries)
    assert drive(entries.count()) < 300


def test_expired_answers_make_room_for_good_ones(file: Callable[..., SQLite]) -> None:
    entries = file(max_bytes=2**18).entries()
    for n in range(60):
        drive(entries.put(entry(f"good {n}", created=1.0, size=1_000)))
    for n in range(60):
        drive(entries.put(entry(n, created=10.0, value=10**9, size=1_000, expires=20.0)))
    for n in range(60):
        drive(entries.put(entry(f"new {n}", created=30.0, size=1_000)))
    assert kept(entries) == {*(f"good {n}" for n in range(60)), *(f"new {n}" for n in range(60))}


def test_hits_are_written_together(file: Callable[..., SQLite]) -> None:
    store = file()
    entries = store.entries()
    drive(entries.put(entry("k")))
    for n in range(63):
        drive(entries.touch("k", float(n)))
    assert in_file(store) == {"k": (0, 0.0)}
    drive(entries.touch("k", 5.0))
    assert in_file(store) == {"k": (64, 62.0)}
    drive(entries.touch("k", 99.0))
    drive(entries.put(entry("l", created=1.0)))
    assert in_file(store) == {"k": (65, 99.0), "l": (0, 1.0)}
    drive(entries.touch("l", 98.0))
    store.close()
    assert in_file(store)["l"] == (1, 98.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hits_are_counted_once_after_a_fork(file: Callable[..., SQLite]) -> None:
    store = file()
    drive(store.entries().put(entry("k")))
    drive(store.entries().touch("k", 1.0))
    child = os.fork()
    if child == 0:
        drive(store.entries().get("k"))
        store.close()
        os._exit(0)
    os.waitpid(child, 0)
    drive(store.entries().put(entry("l")))
    assert in_file(store)["k"] == (1, 1.0)


def in_file(store: SQLite) -> dict[str, tuple[int, float]]:
    connection = sqlite3.connect(store.path)
    rows = connection.execute("SELECT key, hits, used FROM answers").fetchall()
    connection.close()
    return {key: (hits, used) for key, hits, used in rows}
