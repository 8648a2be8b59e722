"""How well the answers of a weak model are judged, and what a cascade that rests on it keeps and costs.

python -m benchmarks.routing_cascade --data DIR [--quick] [--json]
"""

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import options, p50_us, report
from benchmarks.routing_data import Row, pair_rows
from llmcost_plugins.routing.answers import fit_answers
from llmcost_plugins.routing.economics import urgency
from llmcost_plugins.routing.thresholds import choose_threshold
from llmcost_plugins.routing.validators import shortcoming
from llmcost_plugins.types import Reply, Request

Floats = NDArray[np.float64]

GEMINI, LLAMA = "mmlu_pro_gemini_flash_pro", "mmlu_pro_llama_8b_70b"
PRICE_RATIO = {GEMINI: 16.7, LLAMA: 8.0}
QUALITY, GUARD_TARGETS = 0.98, (0.95, 0.98, 1.0)
_HEDGES = re.compile(r"\b(?:approximately|closest|assum\w+|might|may|maybe|perhaps|probably|unclear|however)\b", re.I)


@dataclass(frozen=True)
class Pair:
    """The rows of a pair of models, and what their drafts score where their category was not learned from."""

    rows: Sequence[Row]
    wrong: Floats  # P(the draft is wrong)
    agreeing: Floats  # the same with the answer of another cheap model at hand
    urgency: Floats  # the same against what escalating will cost

    @property
    def weak(self) -> Floats:
        return np.array([row.record.weak for row in self.rows])

    @property
    def strong(self) -> Floats:
        return np.array([row.record.strong for row in self.rows])

    @property
    def weak_cost(self) -> Floats:
        return np.array([row.weak_cost for row in self.rows])

    @property
    def strong_cost(self) -> Floats:
        return np.array([row.strong_cost for row in self.rows])

    def part(self, chosen: NDArray[np.bool_], scores: Floats) -> tuple[Floats, ...]:
        """Return scores, grades and costs of some rows, as `choose_threshold` takes them."""
        return tuple(each[chosen] for each in (scores, self.weak, self.strong, self.weak_cost, self.strong_cost))


@dataclass(frozen=True)
class Outcome:
    """What a threshold that was chosen on one half did on the other; shares of always-strong."""

    kept: float
    cost: float
    escalated: float


# ------------------------------------------------------------------------------------------------------------- scoring


def scored(rows: Sequence[Row], name: str, seconds: Mapping[str, str]) -> Pair:
    """Score each category by a scorer that has seen neither it nor its questions elsewhere.

    `seconds` are the answers of another cheap model, by prompt.
    """
    wrong, agreeing, urgent = (np.zeros(len(rows)) for _ in range(3))
    for category in sorted({row.category for row in rows}):
        held = [n for n, row in enumerate(rows) if row.category == category]
        asked = {rows[n].record.group for n in held}
        learned = [row for row in rows if row.category != category and row.record.group not in asked]
        fit = fit_answers([row.record for row in learned])
        print(f"  {name} without {category}: {fit}")
        usual = float(np.mean([row.weak_cost for row in learned or rows]))
        for n in held:
            request, reply = rows[n].record.request, Reply(None, rows[n].record.weak_answer or "")
            wrong[n] = agreeing[n] = 0.5
            if fit.scorer is not None:
                wrong[n] = fit.scorer(request, reply)
                agreeing[n] = fit.scorer(request, reply, second=seconds.get(prompt_of(rows[n])))
            fault = shortcoming(request, reply) is not None
            urgent[n] = 1.0 if fault else urgency(wrong[n], rows[n].weak_cost, usual)
    return Pair(rows, wrong, agreeing, urgent)


def prompt_of(row: Row) -> str:
    return str(row.record.messages[-1]["content"])


def pairs_of(data: Path) -> dict[str, Pair]:
    """Return the pairs of models that are at hand, each with the other's weak model for a second opinion."""
    found = {name: pair_rows(data, name, ratio) for name, ratio in PRICE_RATIO.items()}
    answers = {name: {prompt_of(row): row.record.weak_answer or "" for row in rows} for name, rows in found.items()}
    others = {GEMINI: LLAMA, LLAMA: GEMINI}
    return {name: scored(rows, name, answers[others[name]]) for name, rows in found.items() if rows}


def apgr(scores: Floats, pair: Pair) -> float:
    """Return the area under the share of the gap that is recovered, over the share of calls that are escalated."""
    order = np.argsort(-scores, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((pair.strong - pair.weak)[order])])
    return float(np.trapezoid(gained / (pair.strong - pair.weak).sum(), dx=1 / len(scores)))


def rivals(pair: Pair) -> dict[str, Floats]:
    """Return other ways to score drafts, the higher the sooner escalated."""
    answers = [row.record.weak_answer or "" for row in pair.rows]
    return {
        "random cascade": np.random.default_rng(0).random(len(answers)),
        "answer length": np.array([float(len(answer.split())) for answer in answers]),
        "hedge count": np.array([float(len(_HEDGES.findall(answer))) for answer in answers]),
        "ours, P(wrong)": pair.wrong,
        "ours, 2nd opinion": pair.agreeing,
        "ours, per cost": pair.urgency,
        "oracle": pair.strong - pair.weak,
    }


# ------------------------------------------------------------------------------------------------------------ cascades


def halves(pair: Pair, count: int) -> list[NDArray[np.bool_]]:
    """Return random halves of the rows; the wordings of one question stay together."""
    groups = sorted({row.record.group for row in pair.rows})
    splits = []
    for seed in range(count):
        dice = random.Random(seed)
        first = {group for group in groups if dice.random() < 0.5}
        splits.append(np.array([row.record.group in first for row in pair.rows]))
    return splits


def outcomes(pair: Pair, scores: Floats, quality: float, count: int) -> list[Outcome]:
    """Choose the threshold on a half and test it on the other, again and again."""
    return [tested(pair, scores, half, quality) for half in halves(pair, count)]


def tested(pair: Pair, scores: Floats, half: NDArray[np.bool_], quality: float) -> Outcome:
    chosen = choose_threshold(*pair.part(half, scores), quality=quality)
    if not chosen.cascade:
        return Outcome(1.0, 1.0, 1.0)
    score, weak, strong, weak_cost, strong_cost = pair.part(~half, scores)
    escalated = score >= chosen.threshold
    kept = np.where(escalated, strong, weak).sum() / strong.sum()
    cost = (weak_cost.sum() + strong_cost[escalated].sum()) / strong_cost.sum()
    return Outcome(float(kept), float(cost), float(escalated.mean()))


def mean(results: Sequence[Outcome], name: str) -> float:
    return float(np.mean([getattr(result, name) for result in results]))


def missed(results: Sequence[Outcome], quality: float) -> float:
    return float(np.mean([result.kept < quality for result in results]))


# ------------------------------------------------------------------------------------------------------------- figures


def side_by_side(title: str, pair: Pair, count: int) -> None:
    """Print what each way to score drafts does when 98 % are to be kept; a second opinion's own call is not paid."""
    kept = pair.weak.sum() / pair.strong.sum()
    share = pair.weak_cost.sum() / pair.strong_cost.sum()
    print(f"\n{title} (a second opinion's own call is not paid here)")
    print(f"  {len(pair.rows):,} questions, right {pair.weak.mean():.3f} and {pair.strong.mean():.3f}")
    print(f"  {'':<18}{'APGR':>7}{'kept':>8}{'cost':>8}{'escalated':>11}{'missed':>8}")
    print(f"  {'always weak':<18}{'':>7}{kept:>8.3f}{share:>8.3f}{0:>11.1%}")
    print(f"  {'always strong':<18}{'':>7}{1:>8.3f}{1:>8.3f}{1:>11.1%}")
    for name, scores in rivals(pair).items():
        results = outcomes(pair, scores, QUALITY, count)
        print(
            f"  {name:<18}{apgr(scores, pair):>7.3f}{mean(results, 'kept'):>8.3f}{mean(results, 'cost'):>8.3f}"
            f"{mean(results, 'escalated'):>11.1%}{missed(results, QUALITY):>8.1%}"
        )


def gemini_figures(pair: Pair, count: int) -> list[tuple[str, float, str]]:
    results = outcomes(pair, pair.urgency, QUALITY, count)
    return [
        ("cascade_kept", mean(results, "kept"), "at least 0.98"),
        ("cascade_cost", mean(results, "cost"), "at most 0.40"),
        ("cascade_target_missed", missed(results, QUALITY), "at most 0.05"),
        ("cascade_gemini_apgr", apgr(pair.wrong, pair), "at least 0.93"),
    ]


def llama_figures(pair: Pair, count: int) -> list[tuple[str, float, str]]:
    costs = [result.cost for target in GUARD_TARGETS for result in outcomes(pair, pair.urgency, target, count)]
    return [
        ("guard_worst_cost", max(costs), "never above 1.00"),
        ("cascade_llama_apgr", apgr(pair.wrong, pair), "random 0.50"),
        ("cascade_llama_agreement_apgr", apgr(pair.agreeing, pair), "at least 0.65"),
    ]


def false_alarms(pairs: Sequence[Pair]) -> float:
    """Return the share of right strong answers in which a visible fault is found."""
    right = [row.record for pair in pairs for row in pair.rows if row.record.strong == 1]
    found = [shortcoming(record.request, Reply(None, record.strong_answer or "")) for record in right]
    return float(np.mean([fault is not None for fault in found]))


def judging_us(pair: Pair) -> float:
    """Time the judging of an answer: visible faults and P(wrong)."""
    fit = fit_answers([row.record for row in pair.rows])
    if fit.scorer is None:
        return math.nan
    drafts = [(row.record.request, Reply(None, row.record.weak_answer or "")) for row in pair.rows[:500]]
    return float(np.median([p50_us(judged(fit.scorer, *draft), 3) for draft in drafts]))


def judged(scorer: Callable[[Request, Reply], float], request: Request, reply: Reply) -> Callable[[], Any]:
    return lambda: (shortcoming(request, reply), scorer(request, reply))


def metrics(data: Path, quick: bool) -> list[tuple[str, float, str]]:
    """Return the figures, and print the table that they stand in."""
    count = 40 if quick else 200
    pairs = pairs_of(data)
    figures: list[tuple[str, float, str]] = []
    for name, pair in pairs.items():
        side_by_side(name, pair, count)
        figures += gemini_figures(pair, count) if name == GEMINI else llama_figures(pair, count)
    if pairs:
        figures.append(("cascade_false_alarms", false_alarms([*pairs.values()]), "below 0.01"))
        figures.append(("cascade_judging_p50_us", judging_us(next(iter(pairs.values()))), "at most 300"))
    return figures


def main() -> None:
    given = options(__doc__ or "", needs_data=True)
    assert given.data is not None
    report("routing: cascades", metrics(given.data, given.quick), given)


if __name__ == "__main__":
    main()
