"""Make the scorer that comes with the package, out of the questions of two public benchmarks.

    .venv/bin/python -m scripts.train_router --data ../shared/data

Reads the MMLU and GSM8K rows of RouteLLM's evaluation (lm-sys/RouteLLM, Apache-2.0; MMLU and GSM8K MIT). Only means,
deviations and quantiles of counts are kept: which model was right is not learned from, for words and coefficients of
exam questions do not carry over to other traffic, and the workload with equal weights does.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.routing_gain import SETS, questions
from llmcost_plugins.routing.features import CLOSED, read
from llmcost_plugins.routing.gain import GainScorer, Workload

OUT = Path(__file__).parents[1] / "src/llmcost_plugins/routing/data/lexical.json"
ABOUT = (
    "Made by scripts/train_router.py from the MMLU and GSM8K prompts in lm-sys/RouteLLM @ 0b64fda (Apache-2.0; MMLU "
    "and GSM8K MIT), those that RouteLLM lists as contaminated left out."
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the scorer that comes with the package.")
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    data = parser.parse_args().data
    rows = [row for name in ("mmlu", "gsm8k") for row in questions(data, SETS[name])]
    workload = Workload.of(np.array([read(row.request).values for row in rows]))
    scorer = GainScorer(CLOSED, workload, about=ABOUT)
    OUT.write_text(json.dumps(scorer.to_dict(), indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} prompts, {OUT}")


if __name__ == "__main__":
    main()
