"""A last opinion on whether two questions may share an answer."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from llmcost_plugins.plan import Plan, do

Judge: TypeAlias = Callable[[str, str, str], "bool | Awaitable[bool]"]
"""Takes the question asked, the stored question and the stored answer; tells whether the answer will do."""


def ask_judge(judge: Judge, asked: str, stored: str, answer: str) -> Plan[bool]:
    """Return whether the judge agrees; only a clear yes counts."""
    run = partial(judge, asked, stored, answer)

    def wait() -> bool:
        verdict = run()
        return asyncio.run(_awaited(verdict)) if inspect.isawaitable(verdict) else verdict

    async def await_() -> bool:
        if inspect.iscoroutinefunction(judge):
            return await judge(asked, stored, answer)  # type: ignore[no-any-return]
        return await asyncio.to_thread(wait)

    return (yield from do(wait, await_)) is True


async def _awaited(verdict: Awaitable[bool]) -> bool:
    return await verdict
