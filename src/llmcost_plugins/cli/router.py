"""`llmcost router`."""

import json
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcost_plugins.cli.cache import Commands
from llmcost_plugins.errors import ConfigurationError

if TYPE_CHECKING:
    from llmcost_plugins.routing import Record, RoutingPolicy, Scorer
    from llmcost_plugins.types import Tier


def add_router(commands: Commands) -> None:
    """Add `llmcost router ...`."""
    router = commands.add_parser("router", help="learn which model answers what, and see why")
    actions = router.add_subparsers(required=True, metavar="action")
    fit = actions.add_parser(
        "fit",
        help="learn a policy from graded answers of two models",
        description='Reads lines of {"prompt" or "messages", "weak_quality": 0 to 1, "strong_quality": 0 to 1} and, '
        'for a cascade, "weak_answer" and "strong_answer". Whatever does not beat prompt length, answer length and '
        "chance on held-out groups is not adopted, and the report says so.",
    )
    fit.add_argument("records", type=Path, help="a .jsonl file, .gz too")
    _add_models(fit)
    target = fit.add_mutually_exclusive_group()
    target.add_argument("--quality", type=float, help="share of the strong model's quality to keep (default: 0.98)")
    target.add_argument("--budget", type=float, help="share of the strong model's cost that may be spent, instead")
    fit.add_argument("--out", type=Path, default=Path("router.json"), help="where it goes (default: %(default)s)")
    fit.add_argument("--json", action="store_true", help="print JSON in place of text")
    fit.set_defaults(run=_fit)
    evaluate = actions.add_parser("eval", help="how well scores rank requests by what they gain from the strong model")
    evaluate.add_argument("records", type=Path, help="a .jsonl file, .gz too, that the policy has not learned from")
    evaluate.add_argument("--policy", type=Path, help="a file that `fit` wrote")
    evaluate.add_argument("--json", action="store_true", help="print JSON in place of a table")
    evaluate.set_defaults(run=_evaluate)
    explain = actions.add_parser("explain", help="which of two models a request would go to, and why")
    explain.add_argument("question")
    explain.add_argument("--policy", type=Path, help="a file that `fit` wrote")
    _add_models(explain)
    explain.add_argument("--json", action="store_true", help="print JSON in place of text")
    explain.set_defaults(run=_explain)


def _add_models(parser: ArgumentParser) -> None:
    parser.add_argument("--weak", default="gpt-5.4-mini", help="the cheaper model (default: %(default)s)")
    parser.add_argument("--strong", default="gpt-5.4", help="the stronger model (default: %(default)s)")
    parser.add_argument("--provider", default="openai", help="whose prices hold (default: %(default)s)")


def _fit(options: Namespace) -> int:
    from llmcost_plugins.pricing import default_prices
    from llmcost_plugins.routing import learn_policy

    if not options.out.parent.is_dir():
        raise ConfigurationError(f"the folder {options.out.parent} of --out does not exist; create it first")
    weak, strong = _tiers(options)
    target = {"quality": options.quality, "budget": options.budget}
    learned = learn_policy(_records(options.records), weak, strong, default_prices(), at=time.time(), **target)
    learned.save(options.out)
    if options.json:
        print(json.dumps({"adopted": learned.way, "report": str(learned), "file": str(options.out)}))
    else:
        print(learned)
        print(f"use it with: Router(tiers, policy=load_policy({str(options.out)!r}))")
    return 0


def _evaluate(options: Namespace) -> int:
    from llmcost_plugins.routing import GainScorer, difficulty
    from llmcost_plugins.routing.evaluation import keyword_count, word_count

    records = _records(options.records)
    scorers: dict[str, Any] = {"prompt length": word_count, "keywords": keyword_count}
    scorers |= {"rules": _difficulty(difficulty), "shipped": _difficulty(GainScorer.shipped())}
    if options.policy is not None:
        scorers[options.policy.name] = _difficulty(_policy(options.policy).scorer)
    found = {name: _apgr([scorer(record.request) for record in records], records) for name, scorer in scorers.items()}
    if options.json:
        print(json.dumps({"records": len(records), "random": 0.5, **found}))
    else:
        print(
            f"APGR over {len(records):,} records: the quality gap recovered, averaged over all shares of strong calls"
        )
        for name, value in {"random": 0.5, **found}.items():
            print(f"  {name:<20} {value:.3f}")
    return 0


def _explain(options: Namespace) -> int:
    from llmcost_plugins.plan import drive
    from llmcost_plugins.routing import Router
    from llmcost_plugins.types import Request

    policy = None if options.policy is None else _policy(options.policy)
    router = Router(_tiers(options), policy=policy)
    decision = drive(router.decide(Request(({"role": "user", "content": options.question},))))
    if options.json:
        said = {"tier": decision.tiers[decision.first].model_name, "reason": decision.reason}
        print(json.dumps({**said, "difficulty": decision.difficulty, "threshold": decision.threshold}))
    else:
        print(decision)
    return 0


def _tiers(options: Namespace) -> "tuple[Tier, Tier]":
    from llmcost_plugins.types import Tier

    if options.weak == options.strong:
        raise ConfigurationError(f"--weak and --strong are both {options.weak!r}; there is nothing to choose")
    weak, strong = (Tier(name, None, options.provider, name) for name in (options.weak, options.strong))
    return weak, strong


def _records(path: Path) -> "list[Record]":
    from llmcost_plugins.routing import read_records

    try:
        records = read_records(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not records:
        raise ConfigurationError(f"{path} holds no records; expected lines of JSON")
    return records


def _policy(path: Path) -> "RoutingPolicy":
    from llmcost_plugins.routing import load_policy

    return load_policy(path)


def _difficulty(scorer: "Scorer") -> Any:
    """Return a function that scores requests; where the scorer has no opinion all are equally hard."""

    def score(request: Any) -> float:
        said: Any = scorer(request)
        return 0.5 if said is None else float(said.difficulty)

    return score


def _apgr(scores: list[float], records: "list[Record]") -> float:
    from llmcost_plugins.routing.evaluation import apgr

    return apgr(scores, [record.weak for record in records], [record.strong for record in records])
