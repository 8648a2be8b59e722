"""What is read in a request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.routing.features import FEATURES, read
from llmcost_plugins.types import Message, Request

CHOICE = "Which of these is NOT a prime?\nA. 2\nB. 3\nC. 4\nD. 5\nAnswer:"
QUANTITY = "Ann has 3 boxes of 12 eggs and breaks 5 eggs. How many eggs are left?"


def ask(content: Any, *before: Message, **params: Any) -> Request:
    return Request((*before, {"role": "user", "content": content}), params=params)


def counted(request: Request) -> dict[str, float]:
    return dict(zip(FEATURES, read(request).values, strict=True))


CONTENT = st.none() | st.text() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}))
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": CONTENT})
)


@given(MESSAGES)
def test_any_request_can_be_read(messages: list[Message]) -> None:
    reading = read(Request(tuple(messages)))
    assert len(reading.values) == len(FEATURES)
    assert all(0 <= value < 100 for value in reading.values)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (ask(CHOICE), "choice"),
        (ask(QUANTITY), "quantity"),
        (ask("Write a story about 3 pigs, 2 wolves and how they spent 40 days."), "open"),
        (ask("What is tea?"), "open"),
        (ask(""), "open"),
        (ask(None), "open"),
        (ask("\U0001f600" * 50), "open"),
        (ask(QUANTITY, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}), "conversation"),
        (ask("And now?", {"role": "user", "content": QUANTITY}), "conversation"),
        (ask(QUANTITY, tools=[{"name": "search"}]), "agent"),
        (ask("Go on", {"role": "tool", "content": "done"}), "agent"),
    ],
)
def test_kinds(request_: Request, kind: str) -> None:
    assert read(request_).kind == kind


def test_blocks_read_like_their_text() -> None:
    assert (
        read(ask([{"type": "text", "text": CHOICE}, {"type": "image_url"}])).values[:3] == read(ask(CHOICE)).values[:3]
    )


def test_a_follow_up_is_as_heavy_as_what_it_follows() -> None:
    before: tuple[Message, ...] = ({"role": "user", "content": CHOICE}, {"role": "assistant", "content": "C, I think"})
    alone, followed = counted(ask(CHOICE)), counted(ask("yes", *before))
    assert all(followed[name] >= alone[name] for name in FEATURES)
    assert followed["earlier turns"] > alone["earlier turns"]


def test_trouble_in_a_conversation_counts() -> None:
    calm: tuple[Message, ...] = (
        {"role": "user", "content": "Book it"},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "booked"},
    )
    trouble: tuple[Message, ...] = (*calm[:2], {"role": "tool", "content": "TimeoutError: no answer"})
    assert counted(ask("Thanks", *calm))["tool errors"] == 0
    assert counted(ask("Thanks", *trouble))["tool errors"] > 0
    assert counted(ask("Thanks", *calm))["re-asks"] == 0
    assert counted(ask("That's wrong, try again", *calm))["re-asks"] > 0


def test_passages_around_a_question_do_not_count() -> None:
    around = Request(({"role": "user", "content": f"{CHOICE * 50}\nQuestion: What is tea?"},), question="What is tea?")
    assert read(around) == read(ask("What is tea?"))


def test_a_long_text_counts_as_long_though_little_of_it_is_read() -> None:
    long = read(ask("word " * 100_000))
    assert len(long.words) < 1_000
    assert long.values[0] > read(ask("word " * 2_000)).values[0]
