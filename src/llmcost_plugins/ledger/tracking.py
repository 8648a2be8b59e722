"""The process's ledger, and ledgers for a block of code."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from llmcost_plugins.events import listening, subscribe
from llmcost_plugins.ledger.ledger import Ledger
from llmcost_plugins.pricing import PriceBook

_process = Ledger()
subscribe(_process.record)
_watchers: list[Callable[[PriceBook | None], AbstractContextManager[object]]] = []


def process_ledger() -> Ledger:
    """Return the ledger of this process, which every component reports to unless it is given another."""
    return _process


@contextmanager
def track(*, prices: PriceBook | None = None) -> Iterator[Ledger]:
    """Record what the block costs and saves in a ledger of its own, beside the process's.

    Covers the threads and tasks that inherit the block's context, as LangChain's batches and asyncio tasks do.
    """
    ledger = Ledger(prices=prices)
    with ExitStack() as stack:
        stack.enter_context(listening(ledger.record))
        for watcher in _watchers:
            stack.enter_context(watcher(prices))
        yield ledger


def watch_with(watcher: Callable[[PriceBook | None], AbstractContextManager[object]]) -> None:
    """Have every later `track` block enter `watcher(prices)`; a framework's door attaches its handler this way."""
    _watchers.append(watcher)
