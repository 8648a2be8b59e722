"""Which model answers."""

from llmcost_plugins.routing.decision import Decision
from llmcost_plugins.routing.health import places_of
from llmcost_plugins.routing.policy import AnswerScorer, RoutingPolicy
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.router import Router
from llmcost_plugins.routing.rules import Choice, difficulty, shortcoming
from llmcost_plugins.routing.scoring import Scorer

__all__ = [
    "AnswerScorer",
    "Choice",
    "Decision",
    "Record",
    "Router",
    "RoutingPolicy",
    "Scorer",
    "difficulty",
    "places_of",
    "shortcoming",
]
