"""The four drivers: every way a plan may go ends with nothing held."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

import pytest

from llmcost_plugins.plan import Ask, Cut, Plan, Step, adrive, adrive_stream, do, drive, drive_stream


class Desk:
    """Plans that hold something while a model answers, and models that may fail at a chosen chunk."""

    def __init__(self) -> None:
        self.held = 0
        self.log: list[str] = []
        self.closed = 0
        self.gate = asyncio.Event()

    def ask(self, name: str, *, chunks: int = 3, fails_at: int | None = None, shown: bool = True) -> Ask[str, str]:
        def stream() -> Generator[str, None, None]:
            try:
                for n in range(chunks):
                    if n == fails_at:
                        raise ConnectionError(name)
                    yield f"{name}{n} "
            finally:
                self.closed += 1

        async def astream() -> AsyncGenerator[str, None]:
            try:
                for n in range(chunks):
                    if n == fails_at:
                        raise ConnectionError(name)
                    yield f"{name}{n} "
                    await asyncio.sleep(0)
            finally:
                self.closed += 1

        def run() -> str:
            return "".join(stream())

        async def arun() -> str:
            return "".join([chunk async for chunk in astream()])

        return Ask(run, arun, stream, astream, "".join) if shown else Ask(run, arun)

    def hanging(self) -> Ask[str, str]:
        async def wait() -> str:
            self.gate.set()
            await asyncio.Event().wait()
            return ""

        async def astream() -> AsyncGenerator[str, None]:
            yield "first "
            yield await wait()

        return Ask(lambda: "", wait, lambda: iter(()), astream, "".join)  # type: ignore[arg-type,return-value]

    def holding(self, plan: Plan[str]) -> Plan[str]:
        yield from do(self._take, self._atake)
        try:
            reply = yield from plan
        except Cut as cut:
            self.log.append(f"cut:{cut.partial}")
            yield from do(self._give, self._agive)
            raise
        except BaseException as error:
            self.log.append(type(error).__name__)
            yield from do(self._give, self._agive)
            raise
        yield from do(self._give, self._agive)
        return reply

    def chain(self, *asks: Ask[str, str], good: Callable[[str], bool] = bool) -> Plan[str]:
        """Ask in turn: fall back on a failure, escalate on an answer that is not good."""
        for ask in asks[:-1]:
            try:
                reply: str = yield ask
            except Exception as error:
                self.log.append(f"fell back from {error}")
                continue
            if good(reply):
                return reply
            self.log.append("escalated")
        last: str = yield asks[-1]
        return last

    def _take(self) -> None:
        self.held += 1

    def _give(self) -> None:
        self.held -= 1

    async def _atake(self) -> None:
        await asyncio.sleep(0)
        self.held += 1

    async def _agive(self) -> None:
        await asyncio.sleep(0)
        self.held -= 1


def replay(text: str) -> list[str]:
    return [f"replayed:{text}"]


async def collect(source: AsyncGenerator[str, None]) -> list[str]:
    return [chunk async for chunk in source]


def everywhere(plan: Callable[[Desk], Plan[str]]) -> list[tuple[str, list[str], Desk]]:
    """Run a plan with each driver; return what was shown or returned, and the desk."""
    results = []
    desk = Desk()
    results.append(("drive", [drive(desk.holding(plan(desk)))], desk))
    desk = Desk()
    results.append(("adrive", [asyncio.run(adrive(desk.holding(plan(desk))))], desk))
    desk = Desk()
    results.append(("drive_stream", list(drive_stream(desk.holding(plan(desk)), replay)), desk))
    desk = Desk()
    results.append(("adrive_stream", asyncio.run(collect(adrive_stream(desk.holding(plan(desk)), replay))), desk))
    return results


def test_an_answer_is_returned_or_shown_as_it_comes() -> None:
    for name, shown, desk in everywhere(lambda desk: desk.chain(desk.ask("a"))):
        assert shown == (["a0 ", "a1 ", "a2 "] if "stream" in name else ["a0 a1 a2 "])
        assert desk.held == 0


def test_fallback_before_the_first_chunk() -> None:
    for name, shown, desk in everywhere(lambda desk: desk.chain(desk.ask("a", fails_at=0), desk.ask("b", chunks=1))):
        assert shown == ["b0 "], name
        assert (desk.held, desk.log) == (0, ["fell back from a"])


def test_escalation_shows_only_the_answer_that_counts() -> None:
    def plan(desk: Desk) -> Plan[str]:
        return desk.chain(desk.ask("draft", shown=False), desk.ask("b", chunks=2), good=lambda _: False)

    for name, shown, desk in everywhere(plan):
        assert "".join(shown) == "b0 b1 ", name
        assert (desk.held, desk.log) == (0, ["escalated"])


def test_a_plan_that_showed_nothing_is_replayed() -> None:
    for name, shown, _ in everywhere(lambda desk: desk.chain(desk.ask("draft", chunks=1, shown=False))):
        assert shown == (["replayed:draft0 "] if "stream" in name else ["draft0 "])


def failing_late(desk: Desk) -> Plan[str]:
    return desk.holding(desk.chain(desk.ask("a", fails_at=2), desk.ask("b")))


def test_nothing_is_spliced_after_the_first_chunk() -> None:
    desk = Desk()
    source = drive_stream(failing_late(desk), replay)
    assert [next(source), next(source)] == ["a0 ", "a1 "]
    with pytest.raises(ConnectionError, match="a"):
        next(source)
    assert (desk.held, desk.log) == (0, ["cut:a0 a1 "])


async def test_nothing_is_spliced_after_the_first_chunk_async() -> None:
    desk = Desk()
    source = adrive_stream(failing_late(desk), replay)
    assert [await anext(source), await anext(source)] == ["a0 ", "a1 "]
    with pytest.raises(ConnectionError, match="a"):
        await anext(source)
    assert (desk.held, desk.log) == (0, ["cut:a0 a1 "])


def test_a_reader_that_leaves() -> None:
    desk = Desk()
    source = drive_stream(desk.holding(desk.chain(desk.ask("a"))), replay)
    assert next(source) == "a0 "
    assert desk.held == 1
    source.close()
    assert (desk.held, desk.log, desk.closed) == (0, ["cut:a0 "], 1)


async def test_a_reader_that_leaves_async() -> None:
    desk = Desk()
    source = adrive_stream(desk.holding(desk.chain(desk.ask("a"))), replay)
    assert await anext(source) == "a0 "
    await source.aclose()
    assert (desk.held, desk.log, desk.closed) == (0, ["cut:a0 "], 1)


@pytest.mark.parametrize("streamed", [False, True], ids=["adrive", "adrive_stream"])
async def test_a_task_that_is_cancelled(streamed: bool) -> None:
    desk = Desk()
    plan = desk.holding(desk.chain(desk.hanging(), desk.ask("b")))
    work: Any = collect(adrive_stream(plan, replay)) if streamed else adrive(plan)
    task = asyncio.ensure_future(work)
    await desk.gate.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (desk.held, desk.log) == (0, ["cut:first "] if streamed else ["CancelledError"])


async def test_cancelling_again_during_the_clean_up_reaches_the_plan() -> None:
    desk, cleaning = Desk(), asyncio.Event()

    def plan() -> Plan[str]:
        try:
            return (yield desk.hanging())
        except BaseException:
            try:
                yield from do(lambda: None, block)
            except asyncio.CancelledError:
                desk.log.append("again")
            raise

    async def block() -> None:
        cleaning.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(adrive(plan()))
    await desk.gate.wait()
    task.cancel()
    await cleaning.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert desk.log == ["again"]


def test_a_failure_in_the_clean_up_is_not_hidden() -> None:
    def plan() -> Plan[str]:
        try:
            return (yield Step(lambda: "1" + 1))  # type: ignore[operator]
        finally:
            raise RuntimeError("clean-up")

    with pytest.raises(RuntimeError, match="clean-up") as caught:
        drive(plan())
    assert isinstance(caught.value.__context__, TypeError)


def test_a_step_that_raises_stop_iteration_does_not_end_the_plan_quietly() -> None:
    def plan() -> Plan[str]:
        return (yield Step(lambda: next(iter(()))))

    with pytest.raises(RuntimeError):
        drive(plan())


def test_steps_without_an_async_face_run_inline() -> None:
    async def main() -> int:
        return await adrive(do(lambda: 3))

    assert asyncio.run(main()) == 3


def test_chunks_that_cannot_be_joined_still_end_the_plan() -> None:
    desk = Desk()

    def plan() -> Plan[str]:
        return (yield Ask(lambda: "", stream=lambda: (chunk for chunk in "ab")))

    with pytest.raises(TypeError, match="needs `join`"):
        list(drive_stream(desk.holding(plan()), replay))
    assert (desk.held, desk.log) == (0, ["cut:None"])
