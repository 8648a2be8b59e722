"""Which model answers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmcost_plugins.routing.decision import Decision
from llmcost_plugins.routing.health import places_of
from llmcost_plugins.routing.policy import RoutingPolicy
from llmcost_plugins.routing.router import Router
from llmcost_plugins.routing.rules import Choice, difficulty
from llmcost_plugins.routing.scoring import AnswerScorer, Scorer
from llmcost_plugins.routing.shadow import Shadow
from llmcost_plugins.routing.validators import shortcoming

if TYPE_CHECKING:
    from llmcost_plugins.routing.answers import by_surprise, fit_answers
    from llmcost_plugins.routing.fitting import learn_policy, load_policy
    from llmcost_plugins.routing.gain import GainScorer
    from llmcost_plugins.routing.records import Record, read_records, write_records
    from llmcost_plugins.routing.thresholds import choose_threshold
    from llmcost_plugins.routing.training import fit

_LEARNING = {
    "GainScorer": "gain",
    "Record": "records",
    "by_surprise": "answers",
    "choose_threshold": "thresholds",
    "fit": "training",
    "fit_answers": "answers",
    "learn_policy": "fitting",
    "load_policy": "fitting",
    "read_records": "records",
    "write_records": "records",
}

__all__ = [
    "AnswerScorer",
    "Choice",
    "Decision",
    "GainScorer",
    "Record",
    "Router",
    "RoutingPolicy",
    "Scorer",
    "Shadow",
    "by_surprise",
    "choose_threshold",
    "difficulty",
    "fit",
    "fit_answers",
    "learn_policy",
    "load_policy",
    "places_of",
    "read_records",
    "shortcoming",
    "write_records",
]


def __getattr__(name: str) -> Any:
    """Import what learns when it is first asked for."""
    if name not in _LEARNING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LEARNING[name]}"), name)
