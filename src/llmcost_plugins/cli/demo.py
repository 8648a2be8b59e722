"""`llmcost demo`: ask first, run with a progress bar, print the table, write the page."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmcost_plugins.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from llmcost_plugins.replay.demo import Demo, Endpoint, Progress
    from llmcost_plugins.replay.traffic import Traffic


def demo(
    *,
    traffic: Path | None,
    limit: int | None,
    report: Path,
    base_url: str | None,
    api_key: str | None,
    model: str,
    weak_model: str,
    yes: bool,
) -> int:
    """Run the demo; returns the exit code."""
    from llmcost_plugins.replay.demo import Endpoint, run_demo
    from llmcost_plugins.replay.report import check_writable, headline, table_rows, write_report, wrong_hit_lines
    from llmcost_plugins.replay.traffic import load_traffic, support_traffic

    check_writable(report)
    sent = _limited(load_traffic(traffic) if traffic is not None else support_traffic(), limit)
    endpoint = Endpoint(model, weak_model, base_url, api_key or "none")
    if endpoint.real:
        if api_key is None:
            raise ConfigurationError("a real endpoint needs a key: set OPENAI_API_KEY")
        if not _agreed(sent, endpoint, yes=yes):
            print("nothing was sent")
            return 1
    with _progress_bar() as progress:
        result = run_demo(sent, endpoint=endpoint, progress=progress)
    write_report(result, report)
    _print_table(result, table_rows(result))
    print(*wrong_hit_lines(result), headline(result), sep="\n")
    print(f"report: {report.resolve()}")
    return 0 if result.layered.billed_is_served is not False else 1


def _limited(traffic: "Traffic", limit: int | None) -> "Traffic":
    if limit is None:
        return traffic
    if limit < 1:
        raise ConfigurationError(f"`--limit` is {limit}; expected at least 1")
    return replace(traffic, rows=traffic.rows[:limit])


def _agreed(traffic: "Traffic", endpoint: "Endpoint", *, yes: bool) -> bool:
    from llmcost_plugins.ledger.summary import money
    from llmcost_plugins.replay.demo import estimate

    worst = estimate(traffic, endpoint)
    price = (
        f"about {money(worst)} if answers are as long as in the traffic"
        if worst is not None
        else f"an unknown amount (no price for {endpoint.strong})"
    )
    print(f"{2 * len(traffic.rows):,} requests to {endpoint.base_url} will cost {price}.")
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError("spending money needs an answer from a terminal, or --yes")
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


@contextmanager
def _progress_bar() -> "Iterator[Progress | None]":
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress as Bar
    except ModuleNotFoundError as error:
        raise MissingExtra("rich", "demo") from error
    with Bar(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, int] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)  # type: ignore[arg-type]

        yield show


def _print_table(result: "Demo", rows: list[tuple[str, str, str]]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError as error:
        raise MissingExtra("rich", "demo") from error
    table = Table(title=Text(f"{result.traffic.name}: the same {len(result.traffic.rows):,} requests, twice"))
    for heading, side in (("", "left"), ("plain", "right"), ("with layers", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    (console if console.is_terminal else Console(width=110)).print(table)
