"""Search by vector: one index, and the stores that hold many."""

import logging
import math
import multiprocessing
import os
import sqlite3
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmcost_plugins import Memory, SQLite
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import drive
from llmcost_plugins.stores import vectors
from llmcost_plugins.stores.schema import DELETIONS_KEPT
from llmcost_plugins.stores.vectors import VectorIndex
from llmcost_plugins.types import Entries, Entry

NEEDS_USEARCH = 'needs usearch; run: pip install "llmcost-plugins[large]"'


def random_vectors(count: int, dimension: int = 64, seed: int = 0) -> Any:
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)))


def unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype("<f4")


def filled(rows: Any) -> VectorIndex:
    index = VectorIndex()
    for number, row in enumerate(rows):
        index.put(number, row.tobytes(), str(number), f"question {number}")
    return index


def numbers(index: VectorIndex, vector: Any, limit: int) -> list[int]:
    return [int(near.key) for near in index.near(vector.tobytes(), limit)]


def exactly(rows: Any, vector: Any, limit: int) -> list[int]:
    return np.argsort(-(rows @ vector), kind="stable")[:limit].tolist()


@pytest.fixture(params=["memory", "sqlite"])
def entries(request: pytest.FixtureRequest, tmp_path: Path, opened: Callable[..., SQLite]) -> Entries:
    return (Memory() if request.param == "memory" else opened(tmp_path / "cache.db", timeout=5)).entries()


@pytest.mark.parametrize("count", [1, 10, 351, 352, 353, 2_000])
@pytest.mark.parametrize("limit", [1, 11, 100])
def test_the_nearest_are_exact(count: int, limit: int) -> None:
    rows, asked = random_vectors(count), random_vectors(5, seed=1)
    index = filled(rows)
    for vector in asked:
        assert numbers(index, vector, limit) == exactly(rows, vector, limit)
        found = index.near(vector.tobytes(), limit)
        assert np.allclose([near.similarity for near in found], np.sort(rows @ vector)[::-1][:limit], atol=1e-6)


def test_equal_vectors_all_count() -> None:
    rows = np.repeat(random_vectors(1), 1_000, axis=0)
    found = filled(rows).near(rows[0].tobytes(), 11)
    assert len({near.key for near in found}) == 11
    assert all(near.similarity == 1.0 or math.isclose(near.similarity, 1.0, abs_tol=1e-6) for near in found)
    assert max(near.similarity for near in found) <= 1.0


def test_removals_leave_the_others() -> None:
    rows = random_vectors(500)
    index = filled(rows)
    gone = set(np.random.default_rng(2).permutation(500)[:400].tolist())
    assert all(index.remove(number) for number in gone)
    assert not index.remove(next(iter(gone)))
    assert len(index) == 100
    for number in set(range(500)) - gone:
        assert numbers(index, rows[number], 1) == [number]
    for number in set(range(500)) - gone:
        index.remove(number)
    assert index.near(rows[0].tobytes(), 5) == []
    index.put(1, random_vectors(1, dimension=3)[0].tobytes(), "1")
    assert index.dimension == 3


def test_what_has_expired_is_forgotten() -> None:
    rows = random_vectors(100)
    index = VectorIndex()
    for number, row in enumerate(rows):
        index.put(number, row.tobytes(), str(number), expires=float(number) if number % 2 else None)
    index.forget(50.0)
    assert sorted(index) == sorted({*range(0, 100, 2), *range(51, 100, 2)})
    index.forget(1_000.0)
    assert sorted(index) == list(range(0, 100, 2))


@pytest.mark.parametrize("wrong", [b"", b"123", struct.pack("<2f", math.nan, 0), struct.pack("<2f", 1e38, 1e38)])
def test_what_is_no_vector_is_refused_with_the_reason(wrong: bytes) -> None:
    index = filled(random_vectors(3))
    for use in (lambda: index.put(9, wrong, "9"), lambda: index.near(wrong, 1)):
        with pytest.raises(ConfigurationError, match="expected"):
            use()
    with pytest.raises(ConfigurationError, match="of 3 dimensions in a space of 64"):
        index.put(9, random_vectors(1, dimension=3)[0].tobytes(), "9")
    assert len(index) == 3


@pytest.fixture(scope="module")
def crowd() -> Any:
    """25,000 vectors in 400 bunches, as questions lie."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(400, 64))
    return unit(centres[random.integers(0, 400, 25_000)] + 0.6 * random.normal(size=(25_000, 64)))


def near_duplicates(rows: Any, count: int = 300) -> Iterator[tuple[int, Any]]:
    random = np.random.default_rng(4)
    for number in random.integers(0, len(rows), count).tolist():
        yield number, unit(rows[number] + 0.03 * random.normal(size=rows.shape[1]))


def test_many_vectors_are_found_by_a_graph(crowd: Any) -> None:
    pytest.importorskip("usearch", reason=NEEDS_USEARCH)
    index = filled(crowd)
    index.build()
    assert index.uses_graph
    for _, vector in near_duplicates(crowd):
        (found,) = index.near(vector.tobytes(), 1)
        assert [int(found.key)] == exactly(crowd, vector, 1)
        assert math.isclose(found.similarity, float(crowd[int(found.key)] @ vector), abs_tol=1e-6)


def test_a_graph_keeps_up_with_changes(crowd: Any) -> None:
    pytest.importorskip("usearch", reason=NEEDS_USEARCH)
    index = filled(crowd)
    index.build()
    for number in range(3_000):
        index.remove(number)
    for number in range(1_000):
        index.put(100_000 + number, crowd[number].tobytes(), str(100_000 + number))
    for number in range(0, 1_000, 10):
        assert numbers(index, crowd[number], 1) == [100_000 + number]
    assert {*range(1_000, 3_000)}.isdisjoint(n for row in crowd[1_000:1_100] for n in numbers(index, row, 11))
    index.put(20_000, crowd[0].tobytes(), "20000")
    assert {100_000, 20_000} == set(numbers(index, crowd[0], 2))
    index.put(20_000, crowd[20_000].tobytes(), "20000")
    for number in range(3_000, 17_000):
        index.remove(number)
    assert not index.uses_graph
    assert numbers(index, crowd[20_000], 1) == [20_000]


def test_changes_while_the_graph_is_built(crowd: Any) -> None:
    pytest.importorskip("usearch", reason=NEEDS_USEARCH)
    index = filled(crowd)
    numbers(index, crowd[0], 1)  # more than are read at each search: the building begins
    for number in range(2_000):
        index.remove(number)
        index.put(100_000 + number, crowd[number].tobytes(), str(100_000 + number))
    index.build()
    assert index.uses_graph
    assert len(index) == len(crowd)
    for number in range(0, 2_000, 20):
        assert numbers(index, crowd[number], 1) == [100_000 + number]


def test_without_usearch_all_are_read_and_the_remedy_is_told_once(
    crowd: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    vectors._graph_type.cache_clear()
    with caplog.at_level(logging.WARNING, "llmcost_plugins"):
        index = filled(crowd)
        for number in (1, 10_000, 24_999):
            assert numbers(index, crowd[number], 11) == exactly(crowd, crowd[number], 11)
    vectors._graph_type.cache_clear()
    (record,) = caplog.records
    assert 'pip install "llmcost-plugins[large]"' in record.getMessage()
    assert not index.uses_graph


ENDS_EARLY = """
import numpy as np
from llmcost_plugins.stores.vectors import LARGE, VectorIndex
rows = np.random.default_rng(0).normal(size=(LARGE + 1, 256))
rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")
index = VectorIndex()
for number, row in enumerate(rows):
    index.put(number, row.tobytes(), str(number))
index.near(rows[0].tobytes(), 1)
print(index._builder.is_alive())
"""


def test_a_program_may_end_while_a_graph_is_built() -> None:
    pytest.importorskip("usearch", reason=NEEDS_USEARCH)
    ended = subprocess.run([sys.executable, "-c", ENDS_EARLY], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "True", "")


def entry(number: int, vector: Any, **fields: Any) -> Entry:
    fields = {"question": f"question {number}", "space": "s", **fields}
    return Entry(str(number), b"answer", fields.pop("created", 1.0), vector=vector.tobytes(), **fields)


def found(entries: Entries, vector: Any, limit: int = 11, now: float = 1.0) -> list[str]:
    return [near.key for near in drive(entries.near("s", vector.tobytes(), limit, now))]


def test_threads_put_search_and_delete_at_once(entries: Entries) -> None:
    rows, errors = random_vectors(8 * 60), []

    def work(part: int) -> None:
        try:
            for number in range(part * 60, part * 60 + 60):
                drive(entries.put(entry(number, rows[number], tags=(f"part {part}",))))
                assert found(entries, rows[number], 1) == [str(number)]
                drive(entries.touch(str(number), 2.0))
                if number % 2:
                    assert drive(entries.delete(str(number)))
                    assert str(number) not in found(entries, rows[number])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert drive(entries.count()) == 240
    assert sorted(found(entries, rows[0], 1_000), key=int) == [str(n) for n in range(0, 480, 2)]
    assert drive(entries.invalidate("part 3")) == 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_searches_on(entries: Entries) -> None:
    rows = random_vectors(100)
    for number in range(50):
        drive(entries.put(entry(number, rows[number])))
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            found(entries, rows[1])

    searcher = threading.Thread(target=search)
    searcher.start()
    try:
        children = [forked(lambda: searches_on(entries, rows)) for _ in range(10)]
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
    finally:
        stop.set()
        searcher.join()
    assert found(entries, rows[7], 1) == ["7"]


def searches_on(entries: Entries, rows: Any) -> bool:
    drive(entries.put(entry(60, rows[60])))
    return found(entries, rows[60], 1) == ["60"] and found(entries, rows[7], 1) == ["7"]


def forked(check: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_forked_in_the_middle_of_a_change_mends_the_index() -> None:
    rows, memory = random_vectors(3), Memory().entries()
    for number in range(3):
        drive(memory.put(entry(number, rows[number], tags=("t",))))
    with memory._lock, memory._indexes["s"]._lock:
        memory._indexes["s"].__dict__["_items"].pop()
        child = forked(lambda: all(found(memory, rows[n], 1) == [str(n)] for n in range(3)))
    assert os.waitpid(child, 0)[1] == 0


OTHER = {
    "put": lambda e, rows: e.put(entry(100, rows[100])),
    "replace": lambda e, rows: e.put(entry(1, rows[100])),
    "delete": lambda e, rows: e.delete("1"),
    "invalidate": lambda e, rows: e.invalidate("odd"),
    "clear": lambda e, rows: e.clear(),
}
SEEN = {
    "put": lambda key: key < 10 or key == 100,
    "replace": lambda key: key < 10,
    "delete": lambda key: key < 10 and key != 1,
    "invalidate": lambda key: key < 10 and key % 2 == 0,
    "clear": lambda key: False,
}


def change(path: str, what: str) -> None:
    store = SQLite(path)
    drive(OTHER[what](store.entries(), random_vectors(101)))
    store.close()


@pytest.mark.parametrize("what", OTHER)
@pytest.mark.parametrize("mine_comes_between", [False, True])
def test_what_another_process_changes_is_seen(
    tmp_path: Path, opened: Callable[..., SQLite], what: str, mine_comes_between: bool
) -> None:
    path, rows = tmp_path / "cache.db", random_vectors(101)
    entries = opened(path).entries()
    for number in range(10):
        drive(entries.put(entry(number, rows[number], tags=("odd",) if number % 2 else ())))
    assert len(found(entries, rows[0], 100)) == 10
    other = multiprocessing.get_context("spawn").Process(target=change, args=(str(path), what))
    other.start()
    other.join()
    assert other.exitcode == 0
    if mine_comes_between:
        drive(entries.put(entry(50, rows[50])))
    expected = {str(key) for key in range(101) if SEEN[what](key)} | ({"50"} if mine_comes_between else set())
    assert set(found(entries, rows[0], 100)) == expected
    if what == "replace":
        assert found(entries, rows[100], 1) == ["1"]


def test_deletions_beyond_the_list_are_seen(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    rows = random_vectors(20)
    mine, others = (opened(tmp_path / "cache.db").entries() for _ in range(2))
    for number in range(20):
        drive(mine.put(entry(number, rows[number])))
    assert len(found(mine, rows[0], 100)) == 20
    drive(others.delete("3"))
    skip = f"INSERT INTO deletions (number, id) SELECT max(number) + {DELETIONS_KEPT} + 1, -1 FROM deletions"
    with sqlite3.connect(tmp_path / "cache.db") as connection:
        connection.execute(skip)
        connection.execute("DELETE FROM deletions WHERE id != -1")
    connection.close()
    assert set(found(mine, rows[0], 100)) == {str(n) for n in range(20)} - {"3"}
    drive(others.delete("4"))
    assert set(found(mine, rows[0], 100)) == {str(n) for n in range(20)} - {"3", "4"}


def test_the_list_of_deletions_stays_short(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    store, vector = opened(tmp_path / "cache.db"), random_vectors(1)[0].tobytes()
    drive(store.entries().put(Entry("k", b"", 0.0, space="s", vector=vector)))
    fill = """
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500)
        INSERT INTO answers (namespace, key, payload, created, part, space, used, worth)
        SELECT '', i, '', 0, '', 's', 0, 0 FROM n
    """
    store.perform(lambda c: c.execute(fill))
    drive(store.entries().clear())
    assert store.perform(lambda c: c.execute("SELECT count(*) FROM deletions").fetchone()[0]) == DELETIONS_KEPT


def test_a_damaged_vector_is_not_found_and_harms_nothing(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    store, rows = opened(tmp_path / "cache.db"), random_vectors(3)
    entries = store.entries()
    for number in range(3):
        drive(entries.put(entry(number, rows[number])))
    store.perform(lambda c: c.execute("UPDATE answers SET vector = x'00' WHERE key = '1'"))
    assert set(found(entries, rows[0])) == {"0", "2"}


def test_a_file_set_aside_takes_its_vectors_along(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    path, rows = tmp_path / "cache.db", random_vectors(3)
    store = opened(path)
    for number in range(3):
        drive(store.entries().put(entry(number, rows[number])))
    assert len(found(store.entries(), rows[0])) == 3
    for file in tmp_path.iterdir():
        file.unlink()
    drive(store.entries().put(entry(7, rows[0])))
    assert found(store.entries(), rows[0]) == ["7"]


FORMER = """
CREATE TABLE entries (
    namespace TEXT NOT NULL, key TEXT NOT NULL, part TEXT NOT NULL,
    payload BLOB NOT NULL, created REAL NOT NULL, expires REAL
);
CREATE UNIQUE INDEX entries_by_key ON entries (namespace, key);
INSERT INTO entries VALUES ('', 'k', 'p', x'616263', 1.5, 2.5), ('n', 'k', 'p', x'', 3.5, NULL);
"""


def test_a_file_of_the_former_form_keeps_its_entries(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    path, vector = tmp_path / "cache.db", random_vectors(1)[0]
    with sqlite3.connect(path) as connection:
        connection.executescript(FORMER)
    connection.close()
    one, other = opened(path), opened(path)
    assert drive(one.entries().get("k")) == Entry("k", b"abc", 1.5, 2.5, "p")
    assert drive(other.entries("n").get("k")) == Entry("k", b"", 3.5, None, "p")
    drive(other.entries().put(entry(1, vector)))
    assert found(one.entries(), vector) == ["1"]
    assert drive(one.entries().count()) == 2


def test_a_file_of_a_later_form_is_left_alone(tmp_path: Path, opened: Callable[..., SQLite]) -> None:
    path = tmp_path / "cache.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigurationError, match="later version"):
        drive(opened(path).entries().get("k"))
    assert list(tmp_path.glob("*damaged*")) == []
