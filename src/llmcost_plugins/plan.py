"""One implementation for sync, async and streams: work written as a plan of steps, and the drivers that run it.

A plan is a generator that yields every piece of work that may block and receives its result. Plans nest with
`yield from`. A driver throws failures, cancellation and a reader's leaving *into* the plan and runs the steps that
the plan yields in answer, so plans clean up in an ordinary `except BaseException`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")
C = TypeVar("C")


def _no_join(chunks: list[Any]) -> Any:
    raise TypeError("an `Ask` with `stream` or `astream` needs `join`")


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """One piece of work. Where `arun` is None, `run` never blocks and async drivers call it directly."""

    run: Callable[[], T]
    arun: Callable[[], Awaitable[T]] | None = None


@dataclass(frozen=True, slots=True)
class Ask(Step[T], Generic[C, T]):
    """A model call. With `stream`, `astream` and `join` it may be shown to the reader chunk by chunk as it comes.

    `join` makes the result out of the chunks that came, of a stream that was cut as well.
    """

    stream: Callable[[], Generator[C, None, None]] | None = None
    astream: Callable[[], AsyncGenerator[C, None]] | None = None
    join: Callable[[list[C]], T] = _no_join


Plan: TypeAlias = Generator[Step[Any], Any, T]


class Cut(BaseException):
    """A shown stream ended early: `error` is why, `partial` what had been shown by then, joined if that can be.

    Not an `Exception`, so that nothing falls back to another model once the reader has seen a part of this one.
    Drivers raise the `error` itself in the end.
    """

    def __init__(self, error: BaseException, partial: Any) -> None:
        super().__init__(error)
        self.error = error
        self.partial = partial


def do(run: Callable[[], T], arun: Callable[[], Awaitable[T]] | None = None) -> Plan[T]:
    """Turn one step into a plan of its own, for use with `yield from`."""
    result: T = yield Step(run, arun)
    return result


def in_thread(run: Callable[[], T]) -> Plan[T]:
    """Turn work that blocks into a plan that does it in a thread where a loop is running."""

    async def arun() -> T:
        import asyncio  # only where a loop is running: importing the package stays light

        return await asyncio.to_thread(run)

    return do(run, arun)


def drive(plan: Plan[T]) -> T:
    """Run a plan to its end and return what it returns."""
    try:
        step = next(plan)
        while True:
            try:
                result = step.run()
            except BaseException as error:  # noqa: BLE001 - the plan decides what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as stop:
        returned: T = stop.value
        return returned


async def adrive(plan: Plan[T]) -> T:
    """Run a plan to its end without blocking the event loop."""
    try:
        step = next(plan)
        while True:
            try:
                result = step.run() if step.arun is None else await step.arun()
            except BaseException as error:  # noqa: BLE001 - the plan decides what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as stop:
        returned: T = stop.value
        return returned


def drive_stream(plan: Plan[T], replay: Callable[[T], Iterable[C]]) -> Generator[C, None, None]:
    """Run a plan and yield the chunks of the model call that it shows.

    Where it showed none (a hit, an accepted draft), `replay` turns what it returns into chunks.
    """
    shown = False
    try:
        step = next(plan)
        while True:
            chunks: list[Any] = []
            try:
                if isinstance(step, Ask) and step.stream is not None:
                    with closing(step.stream()) as source:
                        for chunk in source:
                            chunks.append(chunk)
                            shown = True
                            yield chunk
                    result = step.join(chunks)
                else:
                    result = step.run()
            except BaseException as error:  # noqa: BLE001 - the plan decides what becomes of it
                step = plan.throw(_cut(step, chunks, error))
            else:
                step = plan.send(result)
    except StopIteration as stop:
        if not shown:
            yield from replay(stop.value)
    except Cut as cut:
        raise cut.error from cut.error.__cause__


async def adrive_stream(plan: Plan[T], replay: Callable[[T], Iterable[C]]) -> AsyncGenerator[C, None]:
    """Run a plan as `drive_stream` does, without blocking the event loop."""
    shown = False
    try:
        step = next(plan)
        while True:
            chunks: list[Any] = []
            try:
                if isinstance(step, Ask) and step.astream is not None:
                    async with aclosing(step.astream()) as source:
                        async for chunk in source:
                            chunks.append(chunk)
                            shown = True
                            yield chunk
                    result = step.join(chunks)
                else:
                    result = step.run() if step.arun is None else await step.arun()
            except BaseException as error:  # noqa: BLE001 - the plan decides what becomes of it
                step = plan.throw(_cut(step, chunks, error))
            else:
                step = plan.send(result)
    except StopIteration as stop:
        if not shown:
            for chunk in replay(stop.value):
                yield chunk
    except Cut as cut:
        raise cut.error from cut.error.__cause__


def _cut(step: Step[Any], chunks: list[Any], error: BaseException) -> BaseException:
    if not chunks or not isinstance(step, Ask):
        return error
    try:
        partial = step.join(chunks)
    except Exception:  # noqa: BLE001 - the plan must be told of `error` whatever the chunks are like
        partial = None
    return Cut(error, partial)
