"""Asking what judges requests and answers: at once if it is one of ours, within a deadline if it may be slow."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any, TypeAlias

from llmcost_plugins.plan import Plan, do
from llmcost_plugins.routing.rules import Choice
from llmcost_plugins.types import Reply, Request

Scorer: TypeAlias = Callable[[Request], Choice | float | Awaitable[Choice | float | None] | None]
"""Judges how hard a request is, from 0 to 1; None is no opinion, and the rules decide.

An object needs an `id` that names what it decides by, for cached answers to be found again. One with `quick = True` is
called in place; others run in a thread of their own, or on the loop if they are async.
"""

AnswerScorer: TypeAlias = Callable[[Request, Reply], float | Awaitable[float | None] | None]
"""Judges an answer: the probability, from 0 to 1, that it is wrong; None is no opinion. Called as a `Scorer` is."""


def ask_scorer(scorer: Scorer, request: Request, deadline: float) -> Plan[Choice | None]:
    """Return what a scorer says.

    Raises:
        TimeoutError: It took longer than `deadline` seconds.
        Exception: Whatever it raised, and a `ValueError` for what is no judgement.
    """
    said = yield from _ask(scorer, (request,), deadline)
    if said is None:
        return None
    if not isinstance(said, Choice):
        return Choice(_share(said), "the scorer says so")
    return replace(said, difficulty=_share(said.difficulty))


def ask_answer_scorer(scorer: AnswerScorer, request: Request, reply: Reply, deadline: float) -> Plan[float | None]:
    """Return how likely an answer is to be wrong; raises as `ask_scorer` does."""
    said = yield from _ask(scorer, (request, reply), deadline)
    return None if said is None else _share(said)


def in_background(call: Callable[[], object]) -> "Future[object]":
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

    threading.Thread(target=run, name="llmcost-routing", daemon=True).start()
    return future


def _ask(judge: Callable[..., Any], given: tuple[Any, ...], deadline: float) -> Plan[Any]:
    call = partial(judge, *given)
    if getattr(judge, "quick", False):
        return call()

    def wait() -> object:
        return in_background(call).result(deadline)

    async def await_() -> object:
        if inspect.iscoroutinefunction(judge) or inspect.iscoroutinefunction(type(judge).__call__):
            return await asyncio.wait_for(call(), deadline)
        return await asyncio.wait_for(asyncio.wrap_future(in_background(call)), deadline)

    return (yield from do(wait, await_))


def _share(said: object) -> float:
    if isinstance(said, bool) or not isinstance(said, Real) or not 0 <= float(said) <= 1:
        raise ValueError(f"the scorer returned {said!r}; expected a number from 0 to 1, or None for no opinion")
    return float(said)


def _settle(future: "Future[object]", settle: Callable[[], None]) -> None:
    if future.set_running_or_notify_cancel():  # False if nobody waits any more
        settle()


async def _awaited(said: Awaitable[object]) -> object:
    return await said
