"""Tools for tests and demos."""

from llmcost_plugins.testing.errors import PortInUse
from llmcost_plugins.testing.fake_provider import FakeProvider
from llmcost_plugins.testing.records import Failure, Latency, Limits, Served, Totals
from llmcost_plugins.testing.stores import check_entries

__all__ = ["Failure", "FakeProvider", "Latency", "Limits", "PortInUse", "Served", "Totals", "check_entries"]
