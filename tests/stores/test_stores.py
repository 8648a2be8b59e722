"""One contract for every store, and what only a file can do or suffer."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import BaseCache
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite

from llmcost_plugins import Cache, Ledger, Memory, SQLite
from llmcost_plugins.errors import ConfigurationError, CorruptStore
from llmcost_plugins.langchain import SemanticCache
from llmcost_plugins.plan import adrive, drive
from llmcost_plugins.stores import connect
from llmcost_plugins.testing import check_entries
from llmcost_plugins.types import Entry, Reply, Request, Store

REPLY = Reply({"content": "a drink"}, text="a drink")


def ask(question: str = "what is tea?") -> Request:
    return Request(({"role": "user", "content": question},), model="m")


def entry(key: str, payload: bytes = b"x", created: float = 1.0, expires: float | None = None) -> Entry:
    return Entry(key, payload, created, expires)


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path, opened: Callable[[Path], SQLite]) -> Callable[[], Store]:
    numbers = count()
    return Memory if request.param == "memory" else lambda: opened(tmp_path / f"{next(numbers)}.db")


def test_the_contract(make: Callable[[], Store]) -> None:
    check_entries(make)


def test_the_contract_async(make: Callable[[], Store]) -> None:
    check_entries(make, lambda plan: asyncio.run(adrive(plan)))


def test_a_store_that_breaks_the_contract_is_told_how() -> None:
    class Forgetful(Memory):
        def entries(self, namespace: str = "") -> Any:
            return Memory().entries(namespace)

    with pytest.raises(AssertionError, match="each `entries"):
        check_entries(Forgetful)


@pytest.mark.parametrize(
    ("url", "kind"),
    [(None, "Memory(entries=0)"), ("memory://", "Memory(entries=0)"), ("sqlite:///a.db", "SQLite('a.db')")],
)
def test_urls(url: str | None, kind: str) -> None:
    assert repr(connect(url)) == kind


def test_a_url_may_hold_a_whole_path(tmp_path: Path) -> None:
    assert repr(connect(f"sqlite:///{tmp_path}/my%20cache.db")) == f"SQLite('{tmp_path}/my cache.db')"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/a.db", "mysql:///x", "cache.db", ""])
def test_other_urls_are_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///path/to/file"):
        Cache(store=url)


def test_a_file_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="create it first"):
        SQLite(tmp_path / "none" / "cache.db")


def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    Cache(store=SQLite(tmp_path / "cache.db"))
    assert list(tmp_path.iterdir()) == []


def test_answers_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    for _ in range(2):
        store = SQLite(path)
        found = drive(Cache(store).find(ask()))
        if found.reply is None:
            drive(Cache(store).store(ask(), REPLY))
        store.close()
    assert found.reply is not None
    assert found.reply.text == "a drink"


def put_many(path: str, start: int) -> None:
    store = SQLite(path, timeout=10)
    for n in range(start, start + 50):
        drive(store.entries().put(entry(str(n), payload=b"x" * 1_000)))
    store.close()


def test_many_processes_write_at_a_time(tmp_path: Path, opened: Callable[[Path], SQLite]) -> None:
    path = tmp_path / "cache.db"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(put_many, [(str(path), 50 * n) for n in range(4)])
    entries = opened(path).entries()
    assert all(drive(entries.get(str(n))) is not None for n in range(200))


WRITER = """
import sys
from llmcost_plugins import SQLite
from llmcost_plugins.plan import drive
from llmcost_plugins.types import Entry
entries = SQLite(sys.argv[1]).entries()
for n in range(10**9):
    drive(entries.put(Entry(str(n), b"x" * 500, float(n))))
    print(n, flush=True)
"""


def test_what_was_written_survives_kill_9(tmp_path: Path, opened: Callable[[Path], SQLite]) -> None:
    path = tmp_path / "cache.db"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        written = [int(next(writer.stdout)) for _ in range(40)]
        os.kill(writer.pid, signal.SIGKILL)
    entries = opened(path).entries()
    assert all(drive(entries.get(str(n))) is not None for n in written)
    drive(entries.put(entry("after")))
    assert drive(entries.get("after")) == entry("after")


def test_a_full_file_lets_the_oldest_go(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    path = tmp_path / "cache.db"
    store = opened(path, max_bytes=2**18)
    entries = store.entries()
    for n in range(1_000):
        drive(entries.put(entry(str(n), payload=os.urandom(1_000), created=float(n))))
    kept = [n for n in range(1_000) if drive(entries.get(str(n))) is not None]
    assert kept == list(range(kept[0], 1_000))
    assert 100 < len(kept) < 300
    store.close()
    assert path.stat().st_size < 2**19


def test_expired_answers_go_first(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    entries = opened(tmp_path / "cache.db", max_bytes=2**18).entries()
    drive(entries.put(entry("old but good", created=0.0)))
    for n in range(400):
        drive(entries.put(entry(str(n), payload=os.urandom(1_000), created=1.0 + n, expires=2.0)))
    assert drive(entries.get("399")) is not None


@pytest.mark.parametrize("damage", [b"not a database at all " * 100, b"SQLite format 3\0" + b"\xff" * 4_000])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, damage: bytes) -> None:
    path, ledger = tmp_path / "cache.db", Ledger()
    path.write_bytes(damage)
    store = SQLite(path)
    cache = Cache(store)
    assert drive(cache.find(ask(), ledger.record)).reply is None
    drive(cache.store(ask(), REPLY, ledger.record))
    found = drive(cache.find(ask(), ledger.record))
    store.close()
    assert found.reply is not None
    assert ledger.totals().component_failures == 1
    (aside,) = tmp_path.glob("cache.db.damaged-*")
    assert aside.read_bytes() == damage


def test_damage_has_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"no database" * 1_000)
    with pytest.raises(CorruptStore, match="set aside as"):
        drive(SQLite(path).entries().get("k"))


def test_a_file_that_cannot_be_written_costs_nobody_an_answer(tmp_path: Path) -> None:
    (tmp_path / "cache.db").mkdir()  # permissions do not stop root
    cache, ledger = Cache(SQLite(tmp_path / "cache.db")), Ledger()
    found = drive(cache.find(ask(), ledger.record))
    drive(cache.keep(found, REPLY))
    assert found.reply is None
    assert ledger.totals().component_failures == 2
    assert (tmp_path / "cache.db").is_dir()


def test_a_lock_held_by_another_is_waited_for_and_then_told(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    path = tmp_path / "cache.db"
    entries = opened(path, timeout=0.05).entries()
    drive(entries.put(entry("k")))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        drive(entries.put(entry("k2")))
    assert drive(entries.get("k")) == entry("k")
    other.execute("ROLLBACK")
    other.close()
    drive(entries.put(entry("k2")))


class TestSyncSuiteOnSQLite(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Iterator[BaseCache]:
        store = SQLite(tmp_path / "cache.db")
        yield SemanticCache(store=store)
        store.close()


class TestAsyncSuiteOnSQLite(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, tmp_path: Path) -> Any:
        store = SQLite(tmp_path / "cache.db")
        yield SemanticCache(store=store)
        store.close()


def test_a_mistake_of_the_caller_is_no_damage(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    store = opened(tmp_path / "cache.db")
    drive(store.entries().put(entry("k")))
    with pytest.raises(ConfigurationError, match="`namespace`"):
        store.entries(7)  # type: ignore[arg-type]
    with pytest.raises(sqlite3.Error):
        drive(store.entries().put(entry("k2", payload=object())))  # type: ignore[arg-type]
    assert drive(store.entries().get("k")) == entry("k")
    assert not list(tmp_path.glob("*.damaged-*"))


def test_one_file_is_set_aside_once_and_all_go_on_with_the_new_one(
    tmp_path: Path, opened: Callable[..., SQLite]
) -> None:
    path = tmp_path / "cache.db"
    one, other = opened(path), opened(path)
    for store in (one, other):
        drive(store.entries().put(entry("before")))
    for store in (one, other):
        store.close()
    path.write_bytes(b"damaged " * 1_000)
    with pytest.raises(CorruptStore):
        drive(one.entries().get("k"))
    drive(one.entries().put(entry("new")))
    assert drive(other.entries().get("new")) == entry("new")
    drive(other.entries().put(entry("newer")))
    assert drive(one.entries().get("newer")) == entry("newer")
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_forked_process_writes_is_there_for_all(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    path = tmp_path / "cache.db"
    store = opened(path)
    drive(store.entries().put(entry("parent")))
    child = os.fork()
    if child == 0:
        drive(store.entries().put(entry("child")))
        os._exit(0 if drive(store.entries().get("parent")) is not None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert drive(store.entries().get("child")) == entry("child")
    store.close()
    assert drive(opened(path).entries().get("child")) == entry("child")
