"""Single-flight: of identical requests under way, one leads and the others wait for its answer."""

import asyncio
import threading
from concurrent.futures import Future

from llmcost_plugins.plan import Plan, do
from llmcost_plugins.types import Reply


class Turns:
    """Turns within one process; threads and event loops meet on `concurrent.futures.Future`."""

    def __init__(self) -> None:
        self._under_way: dict[str, Future[Reply | None]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._under_way)

    def take(self, key: str) -> Plan[Reply | None]:
        """Return None to the one that leads, and its reply to those that waited; if it leaves, the next leads."""
        while True:
            with self._lock:
                leader = self._under_way.get(key)
                if leader is None:
                    self._under_way[key] = Future()
                    return None
            reply = yield from _wait(leader)
            if reply is not None:
                return reply

    def give(self, key: str, reply: Reply | None) -> None:
        """End the leader's turn with its reply, or with None if it has none to share."""
        with self._lock:
            turn = self._under_way.pop(key, None)
        if turn is not None:
            turn.set_result(reply)


def _wait(leader: "Future[Reply | None]") -> Plan[Reply | None]:
    async def wait() -> Reply | None:
        return await asyncio.shield(asyncio.wrap_future(leader))  # a cancelled waiter must not cancel the turn

    return (yield from do(leader.result, wait))
