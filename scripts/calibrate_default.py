"""Make the calibration that comes with the bundled embedder, out of two public sets of labelled questions.

    .venv/bin/python scripts/calibrate_default.py ../shared/data

Reads banking77's training part (PolyAI, CC BY 4.0) and hwu64 (X. Liu and others, CC BY 4.0), mixes them in a fixed
order and replays them as one stream into an empty cache. Questions with the same intent count as sharing an answer,
which is looser than most answers are: the default therefore allows 0.2 % wrong answers where `calibrate` allows 1 %.
"""

import random
import sys
from pathlib import Path

from benchmarks.pairs import banking77_train, hwu64_stream
from llmcost_plugins.cache import LabelledQuestion, calibrate

MAX_ERROR = 0.002
SEED = 11
OUT = Path(__file__).parents[1] / "src/llmcost_plugins/cache/data/calibration.json"


def main() -> None:
    data = Path(sys.argv[1])
    rows = [*banking77_train(data), *hwu64_stream(data)]
    random.Random(SEED).shuffle(rows)
    questions = [LabelledQuestion(text, label) for text, label in rows]
    calibration = calibrate(questions, MAX_ERROR, classify=lambda question: "faq")
    calibration.save(OUT)
    print(calibration)


if __name__ == "__main__":
    main()
