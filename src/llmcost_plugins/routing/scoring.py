"""Asking a scorer how hard a request is: at once if it is one of ours, within a deadline if it may be slow."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import TypeAlias

from llmcost_plugins.plan import Plan, do
from llmcost_plugins.routing.rules import Choice
from llmcost_plugins.types import Request

Scorer: TypeAlias = Callable[[Request], Choice | float | Awaitable[Choice | float | None] | None]
"""Judges how hard a request is, from 0 to 1; None is no opinion, and the rules decide.

An object needs an `id` that names what it decides by, for cached answers to be found again. One with `quick = True` is
called in place; others run in a thread of their own, or on the loop if they are async.
"""


def ask_scorer(scorer: Scorer, request: Request, deadline: float) -> Plan[Choice | None]:
    """Return what a scorer says.

    Raises:
        TimeoutError: It took longer than `deadline` seconds.
        Exception: Whatever it raised, and a `ValueError` for what is no judgement.
    """
    if getattr(scorer, "quick", False):
        return _choice(scorer(request))
    call = partial(scorer, request)

    def wait() -> object:
        return _begun(call).result(deadline)

    async def await_() -> object:
        if inspect.iscoroutinefunction(scorer) or inspect.iscoroutinefunction(type(scorer).__call__):
            return await asyncio.wait_for(call(), deadline)  # type: ignore[arg-type]
        return await asyncio.wait_for(asyncio.wrap_future(_begun(call)), deadline)

    return _choice((yield from do(wait, await_)))


def _choice(said: object) -> Choice | None:
    if said is None or isinstance(said, Choice):
        choice = said
    elif isinstance(said, float | int):
        choice = Choice(float(said), "the scorer says so")
    else:
        raise ValueError(f"the scorer returned {said!r}; expected a `Choice`, a number from 0 to 1 or None")
    if choice is not None and not 0 <= choice.difficulty <= 1:
        raise ValueError(f"the scorer returned {choice.difficulty!r}; expected 0 to 1")
    return choice


def _begun(call: Callable[[], object]) -> "Future[object]":
    """Run a call in a thread of its own: one that never returns costs a thread, and keeps no process from ending."""
    future: Future[object] = Future()
    context = copy_context()

    def run() -> None:
        try:
            said = context.run(call)
            result = asyncio.run(_awaited(said)) if inspect.isawaitable(said) else said
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            _settle(future, partial(future.set_exception, error))
        else:
            _settle(future, partial(future.set_result, result))

    threading.Thread(target=run, name="llmcost-scorer", daemon=True).start()
    return future


def _settle(future: "Future[object]", settle: Callable[[], None]) -> None:
    if future.set_running_or_notify_cancel():  # False if nobody waits any more
        settle()


async def _awaited(said: Awaitable[object]) -> object:
    return await said
