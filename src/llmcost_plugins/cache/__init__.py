"""Answers that may be given again."""

from llmcost_plugins.cache.cache import Cache, Found
from llmcost_plugins.cache.calibration import Calibration, LabelledPair, LabelledQuestion, calibrate
from llmcost_plugins.cache.policy import DEFAULT_POLICIES, Policy
from llmcost_plugins.cache.switch import KillSwitch
from llmcost_plugins.cache.vetoes import VETOES, Veto

__all__ = [
    "DEFAULT_POLICIES",
    "VETOES",
    "Cache",
    "Calibration",
    "Found",
    "KillSwitch",
    "LabelledPair",
    "LabelledQuestion",
    "Policy",
    "Veto",
    "calibrate",
]
