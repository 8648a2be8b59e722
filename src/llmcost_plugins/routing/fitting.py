"""Learning a whole policy from recorded answers: route before, judge after, or neither, whichever is shown to pay."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.pricing import PriceBook
from llmcost_plugins.routing.answers import AnswerFit, LearnedAnswerScorer, fit_answers
from llmcost_plugins.routing.economics import UrgencyScorer
from llmcost_plugins.routing.policy import RoutingPolicy
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.rules import Choice
from llmcost_plugins.routing.thresholds import Chosen, Floats, choose_threshold
from llmcost_plugins.routing.training import Fitted, fit
from llmcost_plugins.routing.validators import shortcoming
from llmcost_plugins.tokens import count_messages, count_text
from llmcost_plugins.types import Reply, Request, Tier, Usage

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Always:
    """Finds every request equally hard: 0 sends all to the cheapest tier first, 1 to the strongest."""

    quick: ClassVar[bool] = True

    difficulty: float

    @property
    def id(self) -> str:
        """Names what it decides by, for cached answers to be found again."""
        return f"always-{self.difficulty:g}"

    def __call__(self, request: Request) -> Choice:
        """Return the one difficulty."""
        return Choice(self.difficulty, "drafts are judged" if self.difficulty < 1 else "nothing else was shown to pay")


@dataclass(frozen=True, slots=True)
class LearnedPolicy:
    """A policy, and the evidence that it rests on.

    `requests` is what was learned of requests before they are answered, `answers` of the weak model's answers; None
    where the records do not hold those. `cascade` is what judging answers comes to. `cost` is what the adopted `way` is
    expected to cost, as a share of always asking the strong tier.
    """

    policy: RoutingPolicy
    requests: Fitted
    answers: AnswerFit | None
    cascade: Chosen | None
    way: str
    cost: float

    def __str__(self) -> str:
        lines = [f"adopted: {self.way}, at {self.cost:.3f} of always asking the strong tier"]
        lines += [f"requests: {self.requests.report}"]
        lines += [f"answers: {self.answers}"] if self.answers is not None else ["answers: the records hold none"]
        lines += [f"cascade: {self.cascade}"] if self.cascade is not None else []
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write the policy to a file of JSON; `load_policy` reads it."""
        Path(path).write_text(json.dumps(_dumped(self.policy), indent=1) + "\n", encoding="utf-8")


def learn_policy(
    records: Sequence[Record],
    weak: Tier,
    strong: Tier,
    prices: PriceBook,
    *,
    at: float,
    quality: float | None = None,
    budget: float | None = None,
    confidence: float = 0.95,
) -> LearnedPolicy:
    """Learn how to divide requests between two tiers, from requests that both have answered.

    Choosing beforehand and judging the weak answer are each learned, and held against what needs no learning: always
    the weak tier, always the strong one. Of the ways that reach the target by a lower confidence bound the cheapest is
    adopted; within a budget the best.

    Args:
        records: Graded requests; with the answers' texts a cascade is learned too.
        weak: The cheaper tier; only its provider and model name are used.
        strong: The stronger one.
        prices: What calls cost.
        at: The moment whose prices hold, in seconds since the epoch.
        quality: The share of the strong tier's quality to keep; 0.98 unless a budget is given.
        budget: The share of its cost that may be spent instead.
        confidence: Of the bounds.

    Raises:
        ConfigurationError: Too few records, no gap between the models, or a model without a price.
    """
    for name, share in (("quality", quality), ("budget", budget)):
        if share is not None and not 0 < share <= 1:
            raise ConfigurationError(f"`{name}` is {share!r}; expected a share of the strong tier's, such as 0.98")
    costs = np.array([_costs(record, weak, strong, prices, at) for record in records], dtype=float)
    target: dict[str, Any] = {"quality": quality, "budget": budget, "confidence": confidence}
    keep = 0.98 if quality is None else quality
    requests = fit(records, keep=keep, strong_share=_strong_share(costs, budget), confidence=confidence)
    answers, scorer, cascade = _judged(records, costs, target)
    ways = [_always_strong(), *_always_weak(records, costs, target), *_beforehand(requests, costs, budget)]
    if scorer is not None and cascade is not None and cascade.cascade:
        ways.append(_afterwards(scorer, cascade))
    within = [way for way in ways if budget is not None and way.cost <= budget]
    adopted = max(within, key=lambda way: (way.kept, -way.cost)) if within else min(ways, key=lambda way: way.cost)
    return LearnedPolicy(adopted.policy, requests, answers, cascade, adopted.name, adopted.cost)


def load_policy(path: str | Path) -> RoutingPolicy:
    """Read a policy that `LearnedPolicy.save` wrote.

    Raises:
        ConfigurationError: The file cannot be read, or is of another version.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            raise ConfigurationError(f"{path} is of another version; make it anew with `llmcost router fit`")
        return _restored(content)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{path} is no policy ({error!r}); make one with `llmcost router fit`") from error


def _costs(record: Record, weak: Tier, strong: Tier, prices: PriceBook, at: float) -> tuple[int, int]:
    return (
        _cost(record, record.weak_answer, weak, prices, at),
        _cost(record, record.strong_answer, strong, prices, at),
    )


def _cost(record: Record, answer: str | None, tier: Tier, prices: PriceBook, at: float) -> int:
    """Return what an answer cost, in pico-USD; one whose text is not known is taken to be as long as the prompt."""
    read = count_messages(record.messages, tier.model_name).tokens
    written = read if answer is None else count_text(answer, tier.model_name).tokens
    cost = prices.cost(tier.provider, tier.model_name, Usage(read, written), at=at)
    if cost is None:
        raise ConfigurationError(
            f"no price is known for {tier.model_name!r}; set one with PriceBook.set(model, input=..., output=...)"
        )
    return cost.total


def _strong_share(costs: Floats, budget: float | None) -> float | None:
    """Return the share of strong calls that a budget allows where each request pays for one call."""
    if budget is None:
        return None
    weak, strong = costs.sum(axis=0)
    return float(min(1.0, max(0.0, (budget * strong - weak) / (strong - weak)))) if strong > weak else 0.0


class _Way(NamedTuple):
    """One way to divide requests; `cost` and `kept` are shares of always asking the strong tier."""

    name: str
    policy: RoutingPolicy
    cost: float
    kept: float


def _always_strong() -> _Way:
    return _Way(
        "always the strong tier; nothing cheaper reaches the target", RoutingPolicy(Always(1.0), escalate=False), 1, 1
    )


def _always_weak(records: Sequence[Record], costs: Floats, target: Mapping[str, Any]) -> list[_Way]:
    """Return the way that escalates nothing but visible faults, if that will do."""
    chosen = _chosen([0.0] * len(records), records, costs, target)
    if not chosen.cascade or chosen.escalation_rate > 0:
        return []
    return [
        _Way(
            "always the weak tier, unless its answer has a visible fault",
            RoutingPolicy(Always(0.0)),
            chosen.cost,
            chosen.kept,
        )
    ]


def _beforehand(requests: Fitted, costs: Floats, budget: float | None) -> list[_Way]:
    if requests.scorer is None:
        return []
    weak, strong = costs.sum(axis=0)
    point = requests.report.point
    cost = float((point.strong_share * strong + (1 - point.strong_share) * weak) / strong)
    within = cost < 1 if budget is None else cost <= budget
    return [_Way("requests are judged beforehand", RoutingPolicy(requests), cost, point.kept)] if within else []


def _afterwards(scorer: UrgencyScorer, cascade: Chosen) -> _Way:
    policy = RoutingPolicy(Always(0.0), calibration=cascade)
    if cascade.threshold <= 1:
        policy = replace(policy, answer_scorer=scorer, answer_threshold=cascade.threshold)
    return _Way("weak answers are judged", policy, cascade.cost, cascade.kept)


def _judged(
    records: Sequence[Record], costs: Floats, target: Mapping[str, Any]
) -> tuple[AnswerFit | None, UrgencyScorer | None, Chosen | None]:
    """Learn to judge answers on one half of the groups, and choose from where they are escalated on the other."""
    if any(record.weak_answer is None for record in records):
        return None, None, None
    learning = np.array([_lot(record) < 0.5 for record in records])
    answers = fit_answers([record for record, learns in zip(records, learning, strict=True) if learns])
    if answers.scorer is None or learning.all():
        return answers, None, None
    rest = [record for record, learns in zip(records, learning, strict=True) if not learns]
    scorer = UrgencyScorer(answers.scorer, round(float(costs[~learning, 0].mean())))
    scores = [_urgency(scorer, record, int(cost)) for record, cost in zip(rest, costs[~learning, 0], strict=True)]
    return answers, scorer, _chosen(scores, rest, costs[~learning], target)


def _urgency(scorer: UrgencyScorer, record: Record, cost: int) -> float:
    reply = Reply(None, record.weak_answer or "", finish=record.weak_finish, cost=cost)  # type: ignore[arg-type]
    return 1.0 if shortcoming(record.request, reply) else scorer(record.request, reply)


def _chosen(scores: Sequence[float], records: Sequence[Record], costs: Floats, target: Mapping[str, Any]) -> Chosen:
    weak, strong = [record.weak for record in records], [record.strong for record in records]
    return choose_threshold(scores, weak, strong, costs[:, 0], costs[:, 1], **target)


def _lot(record: Record) -> float:
    """Return a number from 0 to 1 that all records of a group share."""
    name = record.group or json.dumps(record.messages, default=str)
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] / 256


def _dumped(policy: RoutingPolicy) -> dict[str, Any]:
    scorer, judge = policy.scorer, policy.answer_scorer
    return {
        "version": _VERSION,
        "scorer": scorer.to_dict() if isinstance(scorer, Fitted) else {"always": getattr(scorer, "difficulty", 0.0)},
        "threshold": list(policy.steps),
        "escalate": policy.escalate,
        "answer_scorer": _dumped_judge(judge) if isinstance(judge, UrgencyScorer) else None,
        "answer_threshold": policy.answer_threshold,
        "calibration": policy.calibration and asdict(policy.calibration),
    }


def _dumped_judge(judge: UrgencyScorer) -> dict[str, Any]:
    scorer: Any = judge.scorer
    return {"scorer": scorer.to_dict(), "usual_cost": judge.usual_cost}


def _restored(content: Mapping[str, Any]) -> RoutingPolicy:
    scorer, judge, calibration = content["scorer"], content["answer_scorer"], content["calibration"]
    return RoutingPolicy(
        scorer=Always(scorer["always"]) if "always" in scorer else Fitted.from_dict(scorer),
        threshold=content["threshold"],
        escalate=content["escalate"],
        answer_scorer=judge and UrgencyScorer(LearnedAnswerScorer.from_dict(judge["scorer"]), judge["usual_cost"]),
        answer_threshold=content["answer_threshold"],
        calibration=calibration and Chosen(**calibration),
    )
