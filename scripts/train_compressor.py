"""Make the head that comes with the package, out of three public sets of questions.

    .venv/bin/python -m scripts.train_compressor --data ../shared/data

A unit counts as worth keeping if it stands in a gold passage and has an answer's words. Each set counts by the same
weight, Natural Questions eight times: most questions are plain ones, and must not pay for those that need two hops.
Only coefficients are kept, no text.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compression_data import Question, matrix_of, questions
from llmcost_plugins.compression.head import Head, train

OUT = Path(__file__).parents[1] / "src/llmcost_plugins/compression/data/head.json"
WEIGHTS = {"nq_pool20": 8.0, "hotpotqa": 1.0, "musique": 1.0}
ABOUT = (
    "Made by scripts/train_compressor.py from the development halves of Natural Questions (CC BY-SA 3.0), HotpotQA "
    "(CC BY-SA 4.0) and MuSiQue (CC BY 4.0), vectors of all-MiniLM-L6-v2 in int8."
)


def head_of(rows: Sequence[Question], about: str = "") -> Head:
    """Train a head on questions of the three sets."""
    counts = {name: sum(row.source == name for row in rows) for name in WEIGHTS}
    weights = [WEIGHTS[row.source] / counts[row.source] for row in rows]
    return train([matrix_of(row) for row in rows], [row.labels for row in rows], weights, about)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the head that comes with the package.")
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    rows = [row for name in WEIGHTS for row in questions(parser.parse_args().data, name)]
    head = head_of(rows, ABOUT)
    rounded = {name: [round(n, 6) for n in getattr(head, name)] for name in ("means", "deviations", "weights")}
    shipped = {**head.to_dict(), **rounded, "intercept": round(head.intercept, 6)}
    OUT.write_text(json.dumps(shipped, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} questions, {OUT}")


if __name__ == "__main__":
    main()
