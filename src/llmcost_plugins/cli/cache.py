"""`llmcost cache` and `llmcost calibrate`."""

import json
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llmcost_plugins.errors import ConfigurationError, TrafficError

if TYPE_CHECKING:
    from llmcost_plugins.cache import Cache

Commands: TypeAlias = "_SubParsersAction[ArgumentParser]"


def add_cache(commands: Commands) -> None:
    """Add `llmcost cache ...`."""
    cache = commands.add_parser("cache", help="look after the answers in a store")
    actions = cache.add_subparsers(required=True, metavar="action")
    _action(actions, "stats", _stats, "how many answers there are, of which age and worth, in which partitions")
    explain = _action(actions, "explain", _explain, "how a question would be answered, and why")
    explain.add_argument("question")
    explain.add_argument("--partition", help="of the store; the largest by default (see `stats`)")
    _action(actions, "export", _export, "write every answer to a file, in clear text").add_argument("file", type=Path)
    _action(actions, "import", _import, "keep the answers that `export` wrote").add_argument("file", type=Path)
    purge = _action(actions, "purge", _purge, "remove what has expired, or what an option names")
    purge.add_argument("--tag", help="remove every answer with this tag")
    purge.add_argument("--entry", help="remove the answer of this entry id")
    purge.add_argument("--all", action="store_true", help="remove everything of the namespace")
    warm = actions.add_parser("warm", help="keep answers that are known beforehand")
    warm.add_argument("door", help="what answers in the application, such as app:model, a CostAwareChatModel")
    warm.add_argument("answers", type=Path, help='a .jsonl file of {"question": ..., "answer": ...}')
    warm.set_defaults(run=_warm, json=False)
    misses = actions.add_parser("misses", help="why questions were not answered: reads a cache's `miss_log`")
    misses.add_argument("log", type=Path)
    misses.add_argument("--limit", type=int, default=20, help="how many of the nearest misses to show")
    misses.set_defaults(run=_misses, json=False)


def add_calibrate(commands: Commands) -> None:
    """Add `llmcost calibrate`."""
    parser = commands.add_parser(
        "calibrate",
        help="find the likeness from which answers may be given again",
        description='Reads lines of {"asked": ..., "stored": ..., "same": true} or, for a stream in the order of '
        'arrival, {"text": ..., "label": ...}.',
    )
    parser.add_argument("examples", type=Path, help="a .jsonl file of labelled pairs or questions")
    parser.add_argument("--max-error", type=float, default=0.01, help="share of requests (default: %(default)s)")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the bound (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("calibration.json"), help="where it goes")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.set_defaults(run=_calibrate)


def _action(actions: Commands, name: str, run: Callable[[Namespace], int], text: str) -> ArgumentParser:
    parser: ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("--store", required=True, help="the store's URL, such as sqlite:///cache.db")
    parser.add_argument("--namespace", default="", help="of the application, where it set one")
    parser.add_argument("--version", default="", help="of the answers, where the application set one")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    parser.set_defaults(run=run)
    return parser


def _cache(options: Namespace) -> "Cache":
    from llmcost_plugins.cache import Cache

    return Cache(options.store, namespace=options.namespace, version=options.version)


def _stats(options: Namespace) -> int:
    _print(options, _cache(options).contents())
    return 0


def _misses(options: Namespace) -> int:
    rows = list(_rows(options.log))
    for reason, count in Counter(row.get("reason", "") for row in rows).most_common():
        print(f"{count:>7,}  {reason}")
    near = sorted((row for row in rows if row.get("nearest")), key=lambda row: -row["similarity"])
    for row in near[: options.limit]:
        print(f"  {row['similarity']:.3f} {row['question']!r} beside {row['nearest']!r}: {row['reason']}")
    return 0


def _warm(options: Namespace) -> int:
    path = options.answers
    pairs = ((_text(row, "question", path), _text(row, "answer", path)) for row in _rows(path))
    _print(options, {"kept": _door(options.door).warm(pairs)})
    return 0


def _door(name: str) -> Any:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")  # the application's own folder, as with other commands that take module:name
    try:
        door = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"no door at {name!r}: {error}; expected module:name") from error
    if not hasattr(door, "warm"):
        raise ConfigurationError(f"{name!r} is a `{type(door).__name__}`, which keeps no answers")
    return door


def _export(options: Namespace) -> int:
    _print(options, {"exported": _cache(options).export(options.file)})
    return 0


def _import(options: Namespace) -> int:
    _print(options, {"imported": _cache(options).load(options.file)})
    return 0


def _purge(options: Namespace) -> int:
    cache = _cache(options)
    if options.all:
        gone = cache.count()
        cache.clear()
    elif options.tag:
        gone = cache.invalidate(options.tag)
    else:
        gone = int(cache.report_bad(options.entry)) if options.entry else cache.purge()
    _print(options, {"removed": gone})
    return 0


def _explain(options: Namespace) -> int:
    cache = _cache(options)
    partition = options.partition or next(iter(cache.contents()["partitions"]), None)
    explained = cache.explain(options.question, partition=partition)
    if options.json:
        fields = ("question", "category", "tier", "entry_id", "reason", "threshold")
        matches = [
            {"question": m.neighbour.question, "similarity": m.neighbour.similarity, "likeness": m.likeness}
            | {"verdict": m.verdict, "veto": m.veto}
            for m in explained.matches
        ]
        print(json.dumps({name: getattr(explained, name) for name in fields} | {"matches": matches}))
    else:
        print(explained)
    return 0


def _calibrate(options: Namespace) -> int:
    from llmcost_plugins.cache import LabelledPair, LabelledQuestion, calibrate

    def example(row: dict[str, Any]) -> LabelledPair | LabelledQuestion:
        try:
            if "label" in row:
                return LabelledQuestion(str(row["text"]), str(row["label"]))
            return LabelledPair(str(row["asked"]), str(row["stored"]), bool(row["same"]))
        except KeyError as error:
            raise TrafficError(str(options.examples), 0, f"expected a field {error}") from error

    examples: list[Any] = [example(row) for row in _rows(options.examples)]
    calibration = calibrate(examples, options.max_error, confidence=options.confidence)
    calibration.save(options.out)
    if options.json:
        print(json.dumps({"thresholds": dict(calibration.thresholds), "file": str(options.out)}))
    else:
        print(calibration)
        print(f"use it with: Cache(calibration={str(options.out)!r})")
    return 0


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise TrafficError(str(path), number, f"expected a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise TrafficError(str(path), number, "expected a JSON object")
        yield row


def _text(row: dict[str, Any], name: str, path: Path) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise TrafficError(str(path), 0, f"expected a text in the field {name!r} of each line")
    return value


def _print(options: Namespace, values: dict[str, Any]) -> None:
    print(json.dumps(values) if options.json else "\n".join(f"{name}: {value}" for name, value in values.items()))
