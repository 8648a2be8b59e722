"""Plans that must be done by a certain time."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from llmcost_plugins.plan import Plan, Step

T = TypeVar("T")


def before(plan: Plan[T], end: float | None, clock: Callable[[], float]) -> Plan[T]:
    """Run a plan until `end` on the clock: no step begins after it, and one that is awaited is cut short.

    Raises:
        TimeoutError: The plan was not done by then.
    """
    if end is None:
        return (yield from plan)
    try:
        step = next(plan)
        while True:
            try:
                result = yield _cut_short(step, end - clock())
            except BaseException as error:  # noqa: BLE001 - the plan decides what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as stop:
        returned: T = stop.value
        return returned
    finally:
        plan.close()


def _cut_short(step: Step[Any], left: float) -> Step[Any]:
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    arun = step.arun
    if arun is None:
        return step

    async def within() -> Any:
        async with asyncio.timeout(left):
            return await arun()

    return replace(step, arun=within)
