"""Recorded traffic, sent again to measure what the layers save and what they cost in quality."""

from llmcost_plugins.replay.demo import Demo, Endpoint, Outcome, Run, run_demo
from llmcost_plugins.replay.report import html_report, table_rows
from llmcost_plugins.replay.traffic import Row, Traffic, load_traffic, support_traffic

__all__ = [
    "Demo",
    "Endpoint",
    "Outcome",
    "Row",
    "Run",
    "Traffic",
    "html_report",
    "load_traffic",
    "run_demo",
    "support_traffic",
    "table_rows",
]
