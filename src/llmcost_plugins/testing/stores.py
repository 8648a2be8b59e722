"""What every store must do, as checks to run on one."""

from collections.abc import Callable

from llmcost_plugins.plan import Plan, drive
from llmcost_plugins.types import Entry, Store


def check_entries(make: Callable[[], Store], run: Callable[[Plan[object]], object] = drive) -> None:
    """Check that a store keeps answers as caches need it.

    Args:
        make: Returns a store without any entry, a new one each time.
        run: Runs a plan; pass a driver of your own to check the async face.

    Raises:
        AssertionError: The store breaks the contract; the text says how.
    """
    for check in (_keeps, _replaces, _deletes, _separates_namespaces, _clears_one_namespace, _keeps_odd_values):
        check(make(), run)


def _entry(key: str = "k", payload: bytes = b"answer", created: float = 1.5, expires: float | None = 2.5) -> Entry:
    return Entry(key, payload, created, expires, "partition")


def _keeps(store: Store, run: Callable[[Plan[object]], object]) -> None:
    entries = store.entries()
    assert run(entries.get("k")) is None, "a new store has no entry"
    run(entries.put(_entry()))
    assert run(entries.get("k")) == _entry(), "`get` returns what was put, expired or not"
    assert run(store.entries().get("k")) == _entry(), "each `entries()` of a namespace shows the same entries"


def _replaces(store: Store, run: Callable[[Plan[object]], object]) -> None:
    entries = store.entries()
    run(entries.put(_entry()))
    run(entries.put(_entry(payload=b"other", expires=None)))
    assert run(entries.get("k")) == _entry(payload=b"other", expires=None), "`put` replaces the entry of the same key"


def _deletes(store: Store, run: Callable[[Plan[object]], object]) -> None:
    entries = store.entries()
    assert run(entries.delete("k")) is False, "`delete` tells that there was no entry"
    run(entries.put(_entry()))
    assert run(entries.delete("k")) is True, "`delete` tells that there was one"
    assert run(entries.get("k")) is None, "a deleted entry is gone"


def _separates_namespaces(store: Store, run: Callable[[Plan[object]], object]) -> None:
    run(store.entries("a").put(_entry()))
    assert run(store.entries("b").get("k")) is None, "namespaces do not see each other's entries"
    assert run(store.entries().get("k")) is None, "nor does the one without a name"


def _clears_one_namespace(store: Store, run: Callable[[Plan[object]], object]) -> None:
    for namespace in ("a", "b"):
        run(store.entries(namespace).put(_entry()))
    run(store.entries("a").clear())
    assert run(store.entries("a").get("k")) is None, "`clear` removes the namespace's entries"
    assert run(store.entries("b").get("k")) == _entry(), "`clear` leaves other namespaces alone"


def _keeps_odd_values(store: Store, run: Callable[[Plan[object]], object]) -> None:
    entries = store.entries("na:me/\u00e9 %")
    for odd in (_entry("", b""), _entry("\u00e9\U0001f600" * 50, bytes(range(256)) * 4_000), _entry("x'; --")):
        run(entries.put(odd))
        assert run(entries.get(odd.key)) == odd, "keys and payloads may hold anything"
