"""`llmcost cache` and `llmcost calibrate`."""

import inspect
import json
import os
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llmcost_plugins.errors import ConfigurationError, TrafficError

if TYPE_CHECKING:
    from llmcost_plugins.cache import Cache, LabelledPair, LabelledQuestion

Commands: TypeAlias = "_SubParsersAction[ArgumentParser]"


def add_cache(commands: Commands) -> None:
    """Add `llmcost cache ...`."""
    cache = commands.add_parser("cache", help="look after the answers in a store")
    actions = cache.add_subparsers(required=True, metavar="action")
    _action(actions, "stats", _stats, "how many answers there are, of which age and worth, in which partitions")
    explain = _action(actions, "explain", _explain, "how a question would be answered, and why")
    explain.add_argument("question")
    explain.add_argument("--partition", help="of the store, or how its name begins; the largest by default")
    _action(actions, "export", _export, "write every answer to a file, in clear text").add_argument("file", type=Path)
    _action(actions, "import", _import, "keep the answers that `export` wrote").add_argument("file", type=Path)
    purge = _action(actions, "purge", _purge, "remove what has expired, or what an option names")
    what = purge.add_mutually_exclusive_group()
    what.add_argument("--tag", help="remove every answer with this tag")
    what.add_argument("--entry", help="remove the answer of this entry id")
    what.add_argument("--all", action="store_true", help="remove everything of the namespace")
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
    parser.add_argument("--confidence", type=float, default=0.99, help="of the bound (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("calibration.json"), help="where it goes")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.set_defaults(run=_calibrate)


def _action(actions: Commands, name: str, run: Callable[[Namespace], int], text: str) -> ArgumentParser:
    parser: ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("--store", required=True, help="the store's URL, such as sqlite:///cache.db")
    parser.add_argument("--namespace", default="", help="of the application, where it set one")
    parser.add_argument("--version", default="", help="of the answers, where the application set one")
    parser.add_argument(
        "--secret-env", metavar="NAME", help="the variable that holds the cache's secret, if it has one"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    parser.set_defaults(run=run)
    return parser


def _cache(options: Namespace, *, new: bool = False) -> "Cache":
    """Return the cache that the options describe; its store must be there, unless it may be `new`."""
    from llmcost_plugins.cache import Cache
    from llmcost_plugins.stores import SQLite, connect

    store = connect(options.store)
    if isinstance(store, SQLite) and not new and not store.path.exists():
        raise ConfigurationError(f"no store at {store.path}; is the path right, and the working folder?")
    secret = _secret(options.secret_env)
    return Cache(store, namespace=options.namespace, version=options.version, secret=secret)


def _secret(variable: str | None) -> bytes | None:
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigurationError(f"--secret-env {variable}: the variable is not set")
    return os.environ[variable].encode()


def _stats(options: Namespace) -> int:
    _print(options, _cache(options).contents())
    return 0


def _misses(options: Namespace) -> int:
    rows = [_missed(number, row, options.log) for number, row in _rows(options.log)]
    for reason, count in Counter(row["reason"] for row in rows).most_common():
        print(f"{count:>7,}  {reason}")
    near = sorted((row for row in rows if row["nearest"]), key=lambda row: -row["similarity"])
    for row in near[: options.limit]:
        print(f"  {row['similarity']:.3f} {row['question']!r} beside {row['nearest']!r}: {row['reason']}")
    return 0


def _missed(number: int, row: dict[str, Any], path: Path) -> dict[str, Any]:
    texts = all(isinstance(row.get(name), str) for name in ("reason", "question", "nearest"))
    if not texts or not isinstance(row.get("similarity"), int | float):
        raise TrafficError(str(path), number, "expected a line of a cache's `miss_log`")
    return row


def _warm(options: Namespace) -> int:
    path, door = options.answers, _door(options.door)
    pairs = [(_text(n, row, "question", path), _text(n, row, "answer", path)) for n, row in _rows(path)]
    _print(options, {"offered": len(pairs), "taken": door.warm(pairs)})
    return 0


def _door(name: str) -> Any:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")  # the application's own folder, as with other commands that take module:name
    try:
        door = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"no door at {name!r}: {error}; expected module:name") from error
    warm = getattr(door, "warm", None)
    if warm is None or list(inspect.signature(warm).parameters) != ["answers"]:
        kind = type(door).__name__
        raise ConfigurationError(f"{name!r} is a `{kind}`, which cannot be warmed; expected a CostAwareChatModel")
    return door


def _export(options: Namespace) -> int:
    cache = _cache(options)
    count, written = cache.count(), cache.export(options.file)
    _print(options, {"exported": written} | ({"not readable": count - written} if written < count else {}))
    return 0


def _import(options: Namespace) -> int:
    _print(options, {"imported": _cache(options, new=True).load(options.file)})
    return 0


def _purge(options: Namespace) -> int:
    cache = _cache(options)
    if options.all:
        gone = cache.count()
        cache.clear()
    elif options.tag is not None:
        gone = cache.invalidate(options.tag)
    else:
        gone = int(cache.report_bad(options.entry)) if options.entry is not None else cache.purge()
    _print(options, {"removed": gone})
    return 0


def _explain(options: Namespace) -> int:
    cache = _cache(options)
    explained = cache.explain(options.question, partition=_partition(cache, options.partition))
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


def _partition(cache: "Cache", named: str | None) -> str | None:
    """Return the partition of the store that is meant; None where the store is empty."""
    partitions: list[str] = list(cache.contents()["partitions"])
    if named is None:
        return partitions[0] if partitions else None
    meant = [partition for partition in partitions if partition.startswith(named)]
    if len(meant) != 1:
        says = "more than one begins like that" if meant else f"{len(partitions)} are in the store"
        raise ConfigurationError(f"no partition {named!r}: {says}; `llmcost cache stats` lists them")
    return meant[0]


def _calibrate(options: Namespace) -> int:
    from llmcost_plugins.cache import calibrate

    if not options.out.parent.is_dir():
        raise ConfigurationError(f"the folder {options.out.parent} of --out does not exist; create it first")
    examples: list[Any] = [_example(number, row, options.examples) for number, row in _rows(options.examples)]
    calibration = calibrate(examples, options.max_error, confidence=options.confidence)
    try:
        calibration.save(options.out)
    except OSError as error:
        raise ConfigurationError(f"{options.out} cannot be written: {error}") from error
    if options.json:
        print(json.dumps({"thresholds": dict(calibration.thresholds), "file": str(options.out)}))
    else:
        print(calibration)
        print(f"use it with: Cache(calibration={str(options.out)!r})")
    return 0


def _example(number: int, row: dict[str, Any], path: Path) -> "LabelledPair | LabelledQuestion":
    from llmcost_plugins.cache import LabelledPair, LabelledQuestion

    if "label" in row:
        return LabelledQuestion(_text(number, row, "text", path), str(row["label"]))
    if row.get("same") not in (True, False):
        raise TrafficError(str(path), number, "expected true or false in the field 'same', or a field 'label'")
    return LabelledPair(_text(number, row, "asked", path), _text(number, row, "stored", path), bool(row["same"]))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a .jsonl file, each with the number of its line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _object(number, line, path)


def _object(number: int, line: str, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrafficError(str(path), number, f"expected a JSON object: {error}") from error
    if not isinstance(row, dict):
        raise TrafficError(str(path), number, "expected a JSON object")
    return row


def _text(number: int, row: dict[str, Any], name: str, path: Path) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise TrafficError(str(path), number, f"expected a text in the field {name!r}")
    return value


def _print(options: Namespace, values: dict[str, Any]) -> None:
    print(json.dumps(values) if options.json else "\n".join(f"{name}: {value}" for name, value in values.items()))
