"""Routing: scores before an answer, cascades after it, and the router at work.

`python -m benchmarks.routing --data DIR [--quick] [--json]`; `benchmarks/README.md` explains the metrics.
"""

from benchmarks import routing_cascade, routing_gain, routing_live
from benchmarks.harness import options, report


def main() -> None:
    given = options("Measure routing on recorded answers, and the router at work.", needs_data=True)
    assert given.data is not None
    rows = [
        *routing_gain.metrics(given.data, given.quick),
        *routing_cascade.metrics(given.data, given.quick),
        *routing_live.metrics(given.quick),
    ]
    report("routing", rows, given)


if __name__ == "__main__":
    main()
