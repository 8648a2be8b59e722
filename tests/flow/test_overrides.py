"""What one request may ask of the router, and what is no wish."""

from typing import Any

import pytest

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.flow import overrides_in
from llmcost_plugins.types import Overrides


def test_wishes_are_read_and_all_else_is_left() -> None:
    wishes = {"threshold": 0.3, "tier": "small", "force_model": "gpt-5.4", "budget": "0.05", "thread_id": "t"}
    assert overrides_in(wishes) == Overrides(0.3, "small", "gpt-5.4", 50_000_000_000)
    assert overrides_in({"thread_id": "t"}) == overrides_in({}) == Overrides()
    assert overrides_in({"threshold": None, "tier": None, "budget": None}) == Overrides()


@pytest.mark.parametrize("budget", ["0.05", 0.05, "5e-2"])
def test_budgets_are_us_dollars(budget: Any) -> None:
    assert overrides_in({"budget": budget}).budget == 50_000_000_000


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("threshold", 1.1, "0 to 1"),
        ("threshold", -0.1, "0 to 1"),
        ("threshold", "0.5", "0 to 1"),
        ("threshold", float("nan"), "0 to 1"),
        ("budget", "much", "such as '0.05'"),
        ("budget", -1, "such as '0.05'"),
        ("budget", float("nan"), "such as '0.05'"),
        ("budget", float("inf"), "such as '0.05'"),
        ("budget", [1], "such as '0.05'"),
        ("tier", 1, "the name of a tier"),
        ("force_model", ["x"], "the name of a tier"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(name: str, value: Any, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        overrides_in({name: value})
