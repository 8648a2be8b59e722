"""Learning a whole policy from recorded answers: route before, judge after, or neither, whichever is shown to pay."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.pricing import PriceBook
from llmcost_plugins.routing.answers import AnswerFit, LearnedAnswerScorer, fit_answers
from llmcost_plugins.routing.economics import Chosen, UrgencyScorer, choose_threshold
from llmcost_plugins.routing.policy import RoutingPolicy
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.rules import Choice
from llmcost_plugins.routing.training import Fitted, fit
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
    where the records do not hold those. `cascade` is what judging answers comes to, `routing_cost` what choosing
    beforehand does, as a share of always asking the strong model; None where it was not adopted.
    """

    policy: RoutingPolicy
    requests: Fitted
    answers: AnswerFit | None
    cascade: Chosen | None
    routing_cost: float | None
    way: str

    def __str__(self) -> str:
        lines = [f"adopted: {self.way}", f"requests: {self.requests.report}"]
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

    Choosing beforehand and judging the weak answer are each learned, and each held against what needs no learning. Of
    those that reach the target by a lower confidence bound the cheaper is adopted, and none if none does: then every
    request goes to the strong tier.

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
    costs = np.array([_costs(record, weak, strong, prices, at) for record in records], dtype=float)
    keep = 0.98 if quality is None else quality
    requests = fit(records, keep=keep, strong_share=_strong_share(costs, budget), confidence=confidence)
    answers, scorer, cascade = _judged(records, costs, quality, budget, confidence)
    routing_cost = _routing_cost(requests, costs)
    judges = scorer is not None and cascade is not None and cascade.cascade
    if judges and cascade is not None and (routing_cost is None or cascade.cost <= routing_cost):
        threshold = min(1.0, cascade.threshold)
        judged = RoutingPolicy(Always(0.0), answer_scorer=scorer, answer_threshold=threshold, calibration=cascade)
        return LearnedPolicy(judged, requests, answers, cascade, routing_cost, "weak answers are judged")
    if routing_cost is not None and routing_cost < 1:
        chosen = RoutingPolicy(requests)
        return LearnedPolicy(chosen, requests, answers, cascade, routing_cost, "requests are judged beforehand")
    never = RoutingPolicy(Always(1.0), escalate=False)
    return LearnedPolicy(never, requests, answers, cascade, routing_cost, "always the strong tier; nothing else pays")


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


def _strong_share(costs: NDArray[np.float64], budget: float | None) -> float | None:
    """Return the share of strong calls that a budget allows where each request pays for one call."""
    if budget is None:
        return None
    weak, strong = costs.sum(axis=0)
    return float(min(1.0, max(0.0, (budget * strong - weak) / (strong - weak)))) if strong > weak else 0.0


def _routing_cost(requests: Fitted, costs: NDArray[np.float64]) -> float | None:
    if requests.scorer is None:
        return None
    weak, strong = costs.sum(axis=0)
    share = requests.report.point.strong_share
    return float((share * strong + (1 - share) * weak) / strong)


def _judged(
    records: Sequence[Record],
    costs: NDArray[np.float64],
    quality: float | None,
    budget: float | None,
    confidence: float,
) -> tuple[AnswerFit | None, UrgencyScorer | None, Chosen | None]:
    """Learn to judge answers on one half of the groups, and choose from where they are escalated on the other."""
    if any(record.weak_answer is None for record in records):
        return None, None, None
    learning = np.array([_lot(record) < 0.5 for record in records])
    answers = fit_answers([record for record, learns in zip(records, learning, strict=True) if learns])
    if answers.scorer is None or learning.all():
        return answers, None, None
    rest = [(record, cost) for record, cost, learns in zip(records, costs, learning, strict=True) if not learns]
    scorer = UrgencyScorer(answers.scorer, round(float(costs[~learning, 0].mean())))
    chosen = choose_threshold(
        [scorer(record.request, _reply(record, int(cost[0]))) for record, cost in rest],
        [record.weak for record, _ in rest],
        [record.strong for record, _ in rest],
        costs[~learning, 0],
        costs[~learning, 1],
        quality=quality,
        budget=budget,
        confidence=confidence,
    )
    return answers, scorer, chosen


def _lot(record: Record) -> float:
    """Return a number from 0 to 1 that all records of a group share."""
    name = record.group or json.dumps(record.messages, default=str)
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] / 256


def _reply(record: Record, cost: int) -> Reply:
    return Reply(None, record.weak_answer or "", finish=record.weak_finish, cost=cost)  # type: ignore[arg-type]


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
