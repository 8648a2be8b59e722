"""A last opinion on whether two questions may share an answer."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeAlias

from llmcost_plugins.plan import Plan, do

Judge: TypeAlias = Callable[[str, str, str], bool | Awaitable[bool]]
"""Takes the question asked, the stored question and the stored answer; tells whether the answer will do."""


def ask_judge(judge: Judge, asked: str, stored: str, answer: str) -> Plan[bool]:
    """Return whether the judge agrees; only a clear yes counts."""
    run = partial(judge, asked, stored, answer)

    def wait() -> bool:
        verdict = run()
        return _awaited_here(verdict) if inspect.isawaitable(verdict) else verdict

    async def await_() -> bool:
        verdict = run() if inspect.iscoroutinefunction(judge) else await asyncio.to_thread(run)
        return await verdict if inspect.isawaitable(verdict) else verdict

    return (yield from do(wait, await_)) is True


def _awaited_here(verdict: Awaitable[bool]) -> bool:
    """Wait for an async judge in sync code; a thread whose own loop is running, as in a notebook, lends another."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(verdict))
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, asyncio.run, _awaited(verdict)).result()


async def _awaited(verdict: Awaitable[bool]) -> bool:
    return await verdict
