"""Commands and their options."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llmcost_plugins import __version__
from llmcost_plugins.cli.cache import add_cache, add_calibrate
from llmcost_plugins.cli.router import add_router
from llmcost_plugins.errors import LLMCostError

_KEYS = ("OPENAI_API_KEY", "LLMCOST_API_KEY")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 refused with a message, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except LLMCostError as error:
        print(f"llmcost: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("llmcost: interrupted, nothing was written", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmcost", description="Cut an LLM bill, and measure what it saves.")
    parser.add_argument("--version", action="version", version=f"llmcost {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_demo(commands)
    add_cache(commands)
    add_calibrate(commands)
    add_router(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="send traffic through real clients, plain and with the layers, and compare",
        description="Sends the same traffic twice: to the strong model alone, then with cache and router. "
        "Without --base-url a provider on this machine serves it: no key, no cost.",
    )
    demo.add_argument("--traffic", type=Path, help="a .jsonl or .csv file of questions, with or without labels")
    demo.add_argument("--limit", type=int, help="send only the first requests")
    demo.add_argument("--report", type=Path, default=Path("llmcost-demo.html"), help="where the HTML page goes")
    demo.add_argument("--base-url", help="a real OpenAI-compatible endpoint; needs a key in OPENAI_API_KEY")
    demo.add_argument("--model", default="gpt-5.4", help="the strong model (default: %(default)s)")
    demo.add_argument("--weak-model", default="gpt-5.4-mini", help="the weak model (default: %(default)s)")
    demo.add_argument("--yes", action="store_true", help="do not ask before spending money")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from llmcost_plugins.cli.demo import demo

    return demo(
        traffic=options.traffic,
        limit=options.limit,
        report=options.report,
        base_url=options.base_url,
        api_key=next((os.environ[key] for key in _KEYS if os.environ.get(key)), None),
        model=options.model,
        weak_model=options.weak_model,
        yes=options.yes,
    )
