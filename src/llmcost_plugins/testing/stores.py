"""What every store must do, as checks to run on one."""

import math
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import Plan, drive
from llmcost_plugins.types import Entries, Entry, Store

_Run: TypeAlias = Callable[[Plan[Any]], Any]


def check_entries(make: Callable[[], Store], run: _Run = drive) -> None:
    """Check that a store keeps answers as caches need it.

    Args:
        make: Returns a store without any entry, a new one each time.
        run: Runs a plan; pass a driver of your own to check the async face.

    Raises:
        AssertionError: The store breaks the contract; the text says how.
    """
    for check in _CHECKS:
        check(make(), run)


def _entry(key: str = "k", payload: bytes = b"answer", created: float = 1.5, expires: float | None = 2.5) -> Entry:
    return Entry(key, payload, created, expires, "partition")


def _keeps(store: Store, run: _Run) -> None:
    entries = store.entries()
    assert run(entries.get("k")) is None, "a new store has no entry"
    run(entries.put(_entry()))
    assert run(entries.get("k")) == _entry(), "`get` returns what was put, expired or not"
    assert run(store.entries().get("k")) == _entry(), "each `entries()` of a namespace shows the same entries"


def _replaces(store: Store, run: _Run) -> None:
    entries = store.entries()
    run(entries.put(_entry()))
    run(entries.put(_entry(payload=b"other", expires=None)))
    assert run(entries.get("k")) == _entry(payload=b"other", expires=None), "`put` replaces the entry of the same key"


def _deletes(store: Store, run: _Run) -> None:
    entries = store.entries()
    assert run(entries.delete("k")) is False, "`delete` tells that there was no entry"
    run(entries.put(_entry()))
    assert run(entries.delete("k")) is True, "`delete` tells that there was one"
    assert run(entries.get("k")) is None, "a deleted entry is gone"


def _separates_namespaces(store: Store, run: _Run) -> None:
    run(store.entries("a").put(_entry()))
    assert run(store.entries("b").get("k")) is None, "namespaces do not see each other's entries"
    assert run(store.entries().get("k")) is None, "nor does the one without a name"


def _clears_one_namespace(store: Store, run: _Run) -> None:
    for namespace in ("a", "b"):
        run(store.entries(namespace).put(_entry()))
    run(store.entries("a").clear())
    assert run(store.entries("a").get("k")) is None, "`clear` removes the namespace's entries"
    assert run(store.entries("b").get("k")) == _entry(), "`clear` leaves other namespaces alone"


def _keeps_odd_values(store: Store, run: _Run) -> None:
    entries = store.entries("na:me/\u00e9 %")
    for odd in (_entry("", b""), _entry("\u00e9\U0001f600" * 50, bytes(range(256)) * 4_000), _entry("x'; --")):
        run(entries.put(odd))
        assert run(entries.get(odd.key)) == odd, "keys and payloads may hold anything"


def _angled(key: str, degrees: float, space: str = "s", expires: float | None = None, **fields: Any) -> Entry:
    return Entry(key, b"a", 0.0, expires, question=f"{key}?", space=space, vector=_vector(degrees), **fields)


def _vector(degrees: float) -> bytes:
    return struct.pack("<2f", math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


def _near(entries: Entries, run: _Run, degrees: float = 0.0, space: str = "s", now: float = 1.0) -> list[str]:
    return [found.key for found in run(entries.near(space, _vector(degrees), 10, now))]


def _keeps_every_field(store: Store, run: _Run) -> None:
    entries = store.entries()
    full = _angled("k", 3.0, expires=9.0, partition="p", tags=("a", "\u00e9'\ud800"), value=10**15)
    odd = Entry("odd", b"", 1.0, question="caf\u00e9 \ud83d\0?", space="without a vector")
    for entry in (full, odd):
        run(entries.put(entry))
        assert run(entries.get(entry.key)) == entry, "`get` returns every field as it was put"


def _finds_the_nearest_first(store: Store, run: _Run) -> None:
    entries = store.entries()
    assert _near(entries, run) == [], "nothing is near where nothing is"
    for degrees in (180, 30, 0, 90, 60):
        run(entries.put(_angled(str(degrees), degrees)))
    found = run(entries.near("s", _vector(10.0), 3, 1.0))
    assert [near.key for near in found] == ["0", "30", "60"], "`near` returns the nearest first, as many as asked for"
    assert [near.question for near in found] == ["0?", "30?", "60?"], "`near` tells the questions as they were put"
    for near, degrees in zip(found, (10, 20, 50), strict=True):
        exact = math.cos(math.radians(degrees))
        assert math.isclose(near.similarity, exact, abs_tol=1e-6), "the similarity is the cosine"
    assert len(_near(entries, run)) == 5, "fewer are returned where there are fewer"


def _keeps_spaces_apart(store: Store, run: _Run) -> None:
    entries = store.entries()
    run(entries.put(_angled("here", 80.0)))
    run(entries.put(_angled("elsewhere", 0.0, space="t")))
    run(entries.put(_angled("nowhere", 0.0, space="")))
    run(store.entries("other").put(_angled("other", 0.0)))
    assert _near(entries, run) == ["here"], "only vectors of the space and the namespace are compared"
    assert _near(entries, run, space="t") == ["elsewhere"], "each space finds its own"
    assert _near(entries, run, space="") == [], "an entry without a space is not searchable"


def _finds_nothing_expired(store: Store, run: _Run) -> None:
    entries = store.entries()
    for key, expires in (("a", 5.0), ("b", None), ("c", 7.0)):
        run(entries.put(_angled(key, 0.0, expires=expires)))
    assert sorted(_near(entries, run, now=4.9)) == ["a", "b", "c"], "what has not expired is found"
    assert sorted(_near(entries, run, now=5.0)) == ["b", "c"], "what expires now is not found"
    assert _near(entries, run, now=9.0) == ["b"], "what has expired is not found"
    run(entries.put(_angled("a", 0.0, expires=11.0)))
    assert sorted(_near(entries, run, now=9.0)) == ["a", "b"], "what was put again is found again"


def _searches_what_is_there(store: Store, run: _Run) -> None:
    entries = store.entries()
    for key in "abcd":
        run(entries.put(_angled(key, 0.0)))
    assert len(_near(entries, run)) == 4, "all are found"
    run(entries.delete("a"))
    run(entries.put(_angled("b", 90.0)))
    run(entries.put(_angled("c", 0.0, space="t")))
    run(entries.put(Entry("d", b"a", 0.0)))
    assert _near(entries, run) == ["b"], "what was deleted, or put elsewhere, is not found"
    assert _near(entries, run, space="t") == ["c"], "what was put elsewhere is found there"
    (found,) = run(entries.near("s", _vector(90.0), 10, 1.0))
    assert found.similarity > 0.999, "an entry that was put again is found by its new vector"
    run(entries.clear())
    assert _near(entries, run) == _near(entries, run, space="t") == [], "`clear` removes vectors as well"
    run(entries.put(_angled("a", 0.0)))
    assert _near(entries, run) == ["a"], "a cleared store can be searched again"


def _refuses_what_is_no_vector(store: Store, run: _Run) -> None:
    entries = store.entries()
    run(entries.put(_angled("k", 0.0)))
    for wrong in (
        b"",
        b"123",
        struct.pack("<2f", 3.0, 4.0),
        struct.pack("<2f", 0.0, 0.0),
        struct.pack("<2f", math.nan, 1.0),
        struct.pack("<2f", math.inf, 1.0),
        struct.pack("<3f", 1.0, 0.0, 0.0),
    ):
        refused = Entry("other", b"b", 0.0, space="s", vector=wrong)
        assert _refused(run, entries.put(refused)), "`put` refuses a wrong vector"
        assert _refused(run, entries.near("s", wrong, 1, 1.0)), "`near` refuses a wrong vector"
    assert run(entries.get("other")) is None, "a refused entry is not kept"
    assert _near(entries, run) == ["k"], "a refused entry changes no search"


def _refused(run: _Run, plan: Plan[Any]) -> bool:
    try:
        run(plan)
    except ConfigurationError:
        return True
    return False


def _counts_hits_without_lengthening_lives(store: Store, run: _Run) -> None:
    entries = store.entries()
    run(entries.put(_angled("k", 0.0, expires=5.0)))
    for n in range(200):
        run(entries.touch("k", 4.0 + n))
    run(entries.touch("unknown", 4.0))
    assert run(entries.get("k")) == _angled("k", 0.0, expires=5.0), "`touch` does not change the entry"
    assert run(entries.get("unknown")) is None, "`touch` makes no entry"
    assert _near(entries, run, now=6.0) == [], "`touch` does not put off the expiry"


def _invalidates_by_tag(store: Store, run: _Run) -> None:
    entries, other = store.entries(), store.entries("other")
    for n in range(6):
        run(entries.put(_angled(str(n), 0.0, tags=("all", "even" if n % 2 == 0 else "odd"))))
    run(other.put(_angled("k", 0.0, tags=("even",))))
    run(entries.put(_angled("0", 0.0)))
    assert run(entries.invalidate("none")) == 0, "no entry has the tag"
    assert run(entries.invalidate("even")) == 2, "`invalidate` tells how many entries had the tag"
    assert sorted(_near(entries, run)) == ["0", "1", "3", "5"], "they are gone, and others stay"
    assert run(entries.get("2")) is None, "they are gone for `get` as well"
    assert run(other.get("k")) is not None, "other namespaces stay as they are"
    assert run(entries.invalidate("all")) == 3, "every tag counts, of entries that are there"


def _pages_through_all(store: Store, run: _Run) -> None:
    entries = store.entries()
    assert run(entries.page(None, 10)) == [], "there is no page of nothing"
    assert run(entries.count()) == 0, "a new store counts none"
    put = {key: _angled(key, 0.0, expires=0.5) for key in ("b", "", "a", "\u00e9", "c", "\U0001f600", "B")}
    for entry in put.values():
        run(entries.put(entry))
    run(store.entries("other").put(_entry()))
    seen: list[Entry] = []
    while page := run(entries.page(seen[-1].key if seen else None, 3)):
        assert len(page) <= 3, "a page is no longer than asked for"
        seen += page
    assert seen == [put[key] for key in sorted(put)], "the pages hold every entry once, whole, in the order of keys"
    assert run(entries.count()) == len(put), "`count` counts all, expired or not, of the namespace"


_CHECKS: tuple[Callable[[Store, _Run], None], ...] = (
    _keeps,
    _replaces,
    _deletes,
    _separates_namespaces,
    _clears_one_namespace,
    _keeps_odd_values,
    _keeps_every_field,
    _finds_the_nearest_first,
    _keeps_spaces_apart,
    _finds_nothing_expired,
    _searches_what_is_there,
    _refuses_what_is_no_vector,
    _counts_hits_without_lengthening_lives,
    _invalidates_by_tag,
    _pages_through_all,
)
