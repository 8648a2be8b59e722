"""The rules that judge requests."""

import subprocess
import sys
from typing import Any

import pytest

from llmcost_plugins.routing import Choice, difficulty
from llmcost_plugins.types import Message, Request

HARD = 0.5


def ask(text: Any, *before: Message, question: str | None = None) -> Request:
    return Request((*before, {"role": "user", "content": text}), question=question)


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple({"role": "assistant" if n % 2 else "user", "content": content} for n, content in enumerate(contents))


EASY = [
    "What is tea?",
    "How do I reset my password?",
    "What are your opening hours on Sunday?",
    "Who was Marie Curie?",
    "Translate good morning into Spanish.",
    "Thanks!",
    "",
]


@pytest.mark.parametrize("text", EASY)
def test_nothing_hard_about_it(text: str) -> None:
    assert difficulty(ask(text)) == Choice(0.0, "nothing hard about it")


SIGNS = [
    ("Compare tea and coffee.", "a task"),
    ("Add 3 and 4 and 5.", "several numbers"),
    ("What is tea? Where is it grown? Who drinks it?", "several parts"),
    ("Which teas are not black?", "a negation"),
    ("What does this do: ```x```", "code"),
    ("What is tea " * 10, "length"),
    ("There is smoke from the lamp", "safety or law"),
    ("My lawyer will write to you", "safety or law"),
]


@pytest.mark.parametrize(("text", "reason"), SIGNS)
def test_each_sign_is_named(text: str, reason: str) -> None:
    choice = difficulty(ask(text))
    assert reason in choice.reason.split(", ")
    assert choice.difficulty > 0


@pytest.mark.parametrize(
    "text",
    [
        "Compare the two plans and calculate which is not dearer.",
        "1. Explain tea\n2. Compare coffee\n3. Draft a letter",
        "I was injured by the lamp",
        "Explain why 3, 4 and 5 make a right angle",
        "word " * 120,
    ],
)
def test_hard_requests(text: str) -> None:
    assert difficulty(ask(text)).difficulty >= HARD


def test_difficulty_stays_within_its_bounds() -> None:
    everything = "Compare 1, 2, 3? Not this? That? ```x``` fire lawsuit " * 40
    choice = difficulty(ask(everything, *turns("a", "b")))
    assert choice.difficulty == 1
    assert choice.reason.count(",") >= 5


def test_a_short_follow_up_is_hard_and_the_same_words_alone_are_not() -> None:
    before = turns("Which of the two laptops is lighter?", "The first one.")
    assert difficulty(ask("And the other?", *before)).difficulty >= HARD
    assert "a short follow-up" in difficulty(ask("And the other?", *before)).reason
    assert difficulty(ask("And the other?")).difficulty < HARD


def test_a_long_question_in_a_conversation_stands_for_itself() -> None:
    text = "What is the usual time that green tea has to be left in the pot?"
    assert difficulty(ask(text, *turns("Hello", "Hi"))) == difficulty(ask(text))


def test_a_system_prompt_is_neither_conversation_nor_task() -> None:
    system = {"role": "system", "content": "Compare, calculate, prove. Never guess. " * 50}
    assert difficulty(ask("What is tea?", system)) == difficulty(ask("What is tea?"))


def test_retrieved_passages_are_not_the_task() -> None:
    passages = "Compare 1, 2, 3. Do not touch fire. " * 100
    plain = difficulty(ask("What is tea?"))
    assert difficulty(ask(f"Context:\n{passages}\n\nQuestion: What is tea?")) == plain
    assert difficulty(ask(f"{passages} What is tea?", question="What is tea?")) == plain
    assert difficulty(ask(f"{passages} What is tea?")).difficulty >= HARD


def test_text_parts_are_read() -> None:
    parts = [{"type": "text", "text": "Compare the plans"}, {"type": "text", "text": "and calculate 1, 2, 3"}]
    assert difficulty(ask(parts)).difficulty >= HARD


def test_the_users_last_turn_counts_even_where_tools_answered_after_it() -> None:
    tool = {"role": "tool", "content": "Compare 1 2 3", "tool_call_id": "1"}
    call = {"role": "assistant", "content": "", "tool_calls": []}
    request = Request(
        ({"role": "user", "content": "What does the oldest tea house in town have on its menu?"}, call, tool)
    )
    assert difficulty(request).difficulty == 0


def test_a_request_without_messages_is_easy() -> None:
    assert difficulty(Request(())).difficulty == 0


@pytest.mark.parametrize(
    "text", ["\n" * 60_000 + "x", "not " * 60_000, "a(1)" * 30_000], ids=["lines", "words", "marks"]
)
def test_a_long_text_does_not_hold_up_the_process(text: str) -> None:
    code = """
import sys
from llmcost_plugins.routing import difficulty
from llmcost_plugins.types import Request
difficulty(Request(({"role": "user", "content": sys.stdin.read()},)))
"""
    subprocess.run([sys.executable, "-c", code], input=text, text=True, check=True, timeout=5)
