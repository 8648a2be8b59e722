"""The tree of errors, and what each says."""

import pickle
import shlex

import pytest

from llmcost_plugins.errors import (
    ConfigurationError,
    CorruptEntry,
    InvalidUsage,
    LLMCostError,
    MissingExtra,
    NoTierAnswered,
    TrafficError,
)

FAILED = [TimeoutError("slow"), ConnectionError("gone"), ValueError("odd")]


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (ConfigurationError, (ValueError,)),
        (MissingExtra, (ConfigurationError, ImportError)),
        (InvalidUsage, (ValueError,)),
        (TrafficError, (ValueError,)),
        (CorruptEntry, (ValueError,)),
        (NoTierAnswered, (ExceptionGroup,)),
    ],
)
def test_every_error_is_ours_and_of_a_builtin_kind(error: type[Exception], bases: tuple[type, ...]) -> None:
    assert issubclass(error, (LLMCostError, *bases))
    for base in (LLMCostError, *bases):
        assert issubclass(error, base)


def test_a_missing_extra_is_a_command_to_paste() -> None:
    text = str(MissingExtra("rich", "demo"))
    assert "rich" in text
    command = text[text.index("pip install") :]
    assert shlex.split(command) == ["pip", "install", "llmcost-plugins[demo]"]


def test_a_traffic_error_says_where() -> None:
    error = TrafficError("t.jsonl", 7, "expected a question")
    assert str(error) == "t.jsonl, line 7: expected a question"
    assert (error.path, error.line) == ("t.jsonl", 7)


def test_no_tier_answered_holds_every_error() -> None:
    group = NoTierAnswered("every tier failed", FAILED)
    assert list(group.exceptions) == FAILED
    assert group.message == "every tier failed"
    assert "every tier failed" in str(group)


def test_no_tier_answered_splits_into_its_own_kind() -> None:
    group = NoTierAnswered("every tier failed", FAILED)
    matched, rest = group.split(OSError)
    assert isinstance(matched, NoTierAnswered)
    assert isinstance(rest, NoTierAnswered)
    assert list(matched.exceptions) == FAILED[:2]
    assert list(rest.exceptions) == FAILED[2:]
    assert isinstance(group.subgroup(ValueError), NoTierAnswered)
    derived = group.derive(FAILED[:1])
    assert (type(derived), derived.message) == (NoTierAnswered, group.message)


def test_no_tier_answered_is_caught_in_parts() -> None:
    caught: list[Exception] = []
    try:
        raise NoTierAnswered("every tier failed", FAILED)
    except* OSError as some:
        caught += some.exceptions
    except* ValueError as some:
        caught += some.exceptions
    assert caught == FAILED


def test_no_tier_answered_is_caught_whole() -> None:
    with pytest.raises(LLMCostError):
        raise NoTierAnswered("every tier failed", FAILED)


def test_a_group_needs_members() -> None:
    with pytest.raises(ValueError):
        NoTierAnswered("nothing", [])


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("a"),
        MissingExtra("rich", "demo"),
        InvalidUsage("b"),
        TrafficError("t.csv", 3, "expected"),
        CorruptEntry("c"),
        NoTierAnswered("d", FAILED),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_between_processes(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert {k: v for k, v in vars(copy).items() if k in ("path", "line")} == {
        k: v for k, v in vars(error).items() if k in ("path", "line")
    }
