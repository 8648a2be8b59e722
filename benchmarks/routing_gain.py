"""How well requests are ranked by what they gain from a strong model, before any model is asked.

python -m benchmarks.routing_gain --data DIR [--quick] [--json]
"""

import gzip
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import interleaved, options, report
from benchmarks.routing_data import question_of
from llmcost_plugins.routing import evaluation
from llmcost_plugins.routing.evaluation import Curve, Floats
from llmcost_plugins.routing.gain import GainScorer
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.training import fit, held_out_scores, train
from llmcost_plugins.types import Request

SEEDS, QUICK_SEEDS = 5, 2
ABSTAINED = 0.5
SETS = {
    "mmlu": "routellm_mmlu",
    "gsm8k": "routellm_gsm8k",
    "mt_bench": "mt_bench",
    "mmlu_pro_gemini": "mmlu_pro_gemini_flash_pro",
    "mmlu_pro_llama": "mmlu_pro_llama_8b_70b",
}
ROUTELLM = {  # published best of its routers, arXiv 2406.18665 v4, tables 1 to 3: CPT50, CPT80, APGR
    "mmlu": ("RouteLLM SW + augmentation (published, whole set)", 0.354, 0.716, 0.603),
    "gsm8k": ("RouteLLM causal LLM + augmentation (published, whole set)", 0.336, 0.633, 0.622),
    "mt_bench": ("RouteLLM MF + judge (published)", 0.134, 0.313, 0.802),
}
Scores = Callable[[Request], float]


@dataclass(frozen=True)
class Question:
    """One row of a file; records are grouped by question or by subject as the figure asks."""

    record: Record
    subject: str

    @property
    def request(self) -> Request:
        return self.record.request


def questions(data: Path, name: str) -> list[Question]:
    """Read a file of `routing/` without the rows that are near RouteLLM's training data."""
    path = data / "routing" / f"{name}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [_question(row) for row in rows if not row.get("contaminated")]


def _question(row: Mapping[str, Any]) -> Question:
    turns = [*(row.get("earlier_turns") or ()), row["prompt"]]
    messages = tuple({"role": "user", "content": turn} for turn in turns)
    weak, strong = (_quality(row, model) for model in ("weak", "strong"))
    return Question(Record(messages=messages, weak=weak, strong=strong, group=question_of(turns[0])), row["subject"])


def _quality(row: Mapping[str, Any], model: str) -> float:
    correct = row[f"{model}_correct"]
    return (row[f"{model}_score"] - 1) / 9 if correct is None else float(correct)


def by_question(rows: Sequence[Question]) -> list[Record]:
    return [row.record for row in rows]


def by_subject(rows: Sequence[Question]) -> list[Record]:
    return [replace(row.record, group=row.subject) for row in rows]


def qualities(rows: Sequence[Question]) -> tuple[Floats, Floats]:
    return np.array([row.record.weak for row in rows]), np.array([row.record.strong for row in rows])


def judged(scorer: GainScorer, rows: Sequence[Question]) -> Floats:
    """Return the difficulties, those that the scorer abstains from in the middle."""
    choices = [scorer(row.request) for row in rows]
    return np.array([ABSTAINED if choice is None else choice.difficulty for choice in choices])


def scored(score: Scores, rows: Sequence[Question]) -> Floats:
    return np.array([score(row.request) for row in rows])


def random_deviation(rows: Sequence[Question], draws: int = 200) -> float:
    """Return the standard deviation of the APGR of a random order."""
    weak, strong = qualities(rows)
    orders = np.random.default_rng(0).random((draws, len(rows)))
    return float(np.std([evaluation.apgr(order, weak, strong) for order in orders]))


def litellm_score() -> Scores | None:
    """Return the score of LiteLLM's complexity router, None where LiteLLM is not installed."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or importing it looks for prices on the network
    try:
        from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter
    except ImportError:
        return None
    router = ComplexityRouter(model_name="bench", litellm_router_instance=None)
    return lambda request: router.classify("\n".join(str(m["content"]) for m in request.messages))[1]


class Set:
    """The rows of one file, and what a scorer that never saw the question, or the subject, says of each."""

    def __init__(self, rows: Sequence[Question], seeds: int) -> None:
        self.rows = rows
        self.weak, self.strong = qualities(rows)
        self.length = scored(evaluation.word_count, rows)
        self.subjects = [row.subject for row in rows]
        self.questions = [row.record.group for row in rows]
        self.new_questions = [held_out_scores(by_question(rows), seed=seed) for seed in range(seeds)]
        several = len(set(self.subjects)) > 1
        self.new_subjects = [held_out_scores(by_subject(rows), seed=seed) for seed in range(seeds) if several]

    def curve(self, scores: Floats) -> Curve:
        return evaluation.curve(scores, self.weak, self.strong)

    def apgr(self, runs: Sequence[Floats]) -> float:
        """Return the mean over seeds."""
        return statistics.mean(self.curve(run).apgr for run in runs)

    @property
    def verdict(self) -> str:
        """What `fit` makes of the scores on new subjects; where it refuses, the router's rules decide."""
        return "refused by fit" if fit(by_subject(self.rows)).scorer is None else "adopted by fit"

    def over_length(self, runs: Sequence[Floats], groups: Sequence[str]) -> float:
        """Return the lower bound of what ours exceeds prompt length by, the mean over seeds."""
        bounds = partial(evaluation.interval, weak=self.weak, strong=self.strong, groups=groups, against=self.length)
        return statistics.mean(bounds(run, seed=seed).low for seed, run in enumerate(runs))


def figures_table(title: str, rows: Sequence[Question], ours: Mapping[str, Sequence[Floats]]) -> None:
    """Print ours beside what others do and the bounds."""
    weak, strong = qualities(rows)
    print(f"{title}: {len(rows)} rows, always weak {weak.mean():.3f}, always strong {strong.mean():.3f}")
    print(f"  {'':52}  CPT50  CPT80   APGR (95 % interval)")
    groups = [row.record.group for row in rows]
    for name, runs in {**ours, **rivals(rows)}.items():
        if not runs:
            print(f"  {name:52}  not installed: make bench-setup")
            continue
        curves = [evaluation.curve(run, weak, strong) for run in runs]
        cpt50, cpt80, apgr = (statistics.mean(each) for each in zip(*map(_figures, curves), strict=True))
        spread = evaluation.interval(runs[0], weak, strong, groups)
        print(f"  {name:52}  {cpt50:5.1%}  {cpt80:5.1%}  {apgr:.3f} ({spread.low:.3f} to {spread.high:.3f})")
    print(f"  {'random':52}  50.0%  80.0%  0.500 (deviation {random_deviation(rows):.3f})")
    if title in ROUTELLM:
        name, cpt50, cpt80, apgr = ROUTELLM[title]
        print(f"  {name:52}  {cpt50:5.1%}  {cpt80:5.1%}  {apgr:.3f}")


def rivals(rows: Sequence[Question]) -> dict[str, list[Floats]]:
    litellm = litellm_score()
    weak, strong = qualities(rows)
    return {
        "shipped scorer": [judged(GainScorer.shipped(), rows)],
        "prompt length": [scored(evaluation.word_count, rows)],
        "keyword rules": [scored(evaluation.keyword_count, rows)],
        "LiteLLM complexity_router": [scored(litellm, rows)] if litellm else [],
        "oracle": [strong - weak],
    }


def _figures(curve: Curve) -> tuple[float, float, float]:
    return curve.cpt(0.5), curve.cpt(0.8), curve.apgr


def decision_times(rows: Sequence[Question], repeats: int) -> tuple[float, float]:
    """Return p50 and p95 microseconds of the shipped scorer over different prompts."""
    scorer = GainScorer.shipped()
    requests = [row.request for row in rows]
    times = []
    for _ in range(repeats):
        for request in requests:
            started = time.perf_counter_ns()
            scorer(request)
            times.append((time.perf_counter_ns() - started) / 1e3)
    return statistics.median(times), float(np.percentile(times, 95))


def long_prompt() -> Request:
    return Request(
        ({"role": "user", "content": "A contract of 40 pages says, in part (7), that nobody pays. " * 2_000},)
    )


def reference() -> int:
    return sum(n * n for n in range(1_000))


def metrics(data: Path, quick: bool) -> list[tuple[str, float, str]]:
    """Print the tables and return what `report` takes."""
    seeds = QUICK_SEEDS if quick else SEEDS
    rows = {name: questions(data, file) for name, file in SETS.items()}
    sets = {name: Set(rows[name], seeds) for name in rows if not (name == "mt_bench" or (quick and "pro" in name))}
    mmlu, gsm8k = sets["mmlu"], sets["gsm8k"]
    moved = {
        "mmlu": judged(train(by_question(rows["gsm8k"])), rows["mmlu"]),
        "gsm8k": judged(train(by_subject(rows["mmlu"])), rows["gsm8k"]),
        "mt_bench": judged(train([*by_subject(rows["mmlu"]), *by_question(rows["gsm8k"])]), rows["mt_bench"]),
    }
    for name, each in sets.items():
        ours = {"ours, new questions": each.new_questions}
        ours |= {f"ours, new subjects ({each.verdict})": each.new_subjects} if each.new_subjects else {}
        ours |= {"ours, learned on the other set": [moved[name]]} if name in moved else {}
        figures_table(name, each.rows, ours)
    figures_table("mt_bench", rows["mt_bench"], {"ours, learned on mmlu and gsm8k": [moved["mt_bench"]]})
    shipped = judged(GainScorer.shipped(), rows["mt_bench"])
    p50, p95 = decision_times(rows["mmlu"][:500] + rows["gsm8k"][:500], 1 if quick else 5)
    long, shipped_scorer = long_prompt(), GainScorer.shipped()
    timed = interleaved({"long": lambda: shipped_scorer(long), "reference": reference}, 200)
    questions_low = mmlu.over_length(mmlu.new_questions, mmlu.questions)
    subjects_low = mmlu.over_length(mmlu.new_subjects, mmlu.questions)
    return [
        ("scorer_reference_us", timed["reference"], "a fixed loop of plain Python"),
        ("mmlu_apgr", mmlu.apgr(mmlu.new_questions), "at least 0.68"),
        ("mmlu_unseen_apgr", mmlu.apgr(mmlu.new_subjects), "at least 0.62"),
        ("gsm8k_apgr", gsm8k.apgr(gsm8k.new_questions), "at least 0.62"),
        ("mmlu_to_gsm8k_apgr", gsm8k.curve(moved["gsm8k"]).apgr, "at least 0.60"),
        ("gsm8k_to_mmlu_apgr", mmlu.curve(moved["mmlu"]).apgr, "at least 0.60"),
        ("gain_over_length_lower_bound", min(questions_low, subjects_low), "above 0"),
        ("gain_over_length_lower_bound_new_questions", questions_low, "above 0"),
        ("gain_over_length_lower_bound_new_subjects", subjects_low, "above 0"),
        ("gain_over_length_lower_bound_drawing_subjects", mmlu.over_length(mmlu.new_subjects, mmlu.subjects), ""),
        ("mt_bench_apgr", evaluation.apgr(shipped, *qualities(rows["mt_bench"])), "at least 0.5 less 2 deviations"),
        ("mt_bench_random_sd", random_deviation(rows["mt_bench"]), ""),
        ("scorer_p50_us", p50, "under 100"),
        ("scorer_p95_us", p95, "under 1000"),
        ("scorer_long_us", timed["long"], "under 1000"),
    ]


def main() -> None:
    given = options("Ranking requests by what they gain from a strong model", needs_data=True)
    assert given.data is not None
    report("routing before generation", metrics(given.data, given.quick), given)


if __name__ == "__main__":
    main()
