"""What was spent, what was saved, and for whom."""

from llmcost_plugins.ledger.ledger import Ledger
from llmcost_plugins.ledger.summary import Summary
from llmcost_plugins.ledger.totals import Totals
from llmcost_plugins.ledger.tracking import process_ledger, track, watch_with

__all__ = ["Ledger", "Summary", "Totals", "process_ledger", "track", "watch_with"]
