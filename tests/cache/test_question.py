"""The question within a request, and what around it must be the same."""

from typing import Any

import pytest

from llmcost_plugins.cache import Cache
from llmcost_plugins.cache.fingerprint import fingerprint
from llmcost_plugins.cache.question import Template, asked_in, leans_on_context
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import drive
from llmcost_plugins.types import Reply, Request, Usage

RAG = "Use the passages.\n\n{context}\n\nQuestion: {question}\nAnswer:"
REPLY = Reply({}, "yes", Usage(1, 1))


def user(content: Any, **fields: Any) -> Request:
    return Request(({"role": "user", "content": content},), **fields)


def prompt(question: str, context: str = "Passwords are reset in the settings.") -> str:
    return RAG.format(question=question, context=context)


def tier(cache: Cache, request: Request) -> str | None:
    found = drive(cache.find(request, turn=False))
    return None if found.reply is None or found.reply.hit is None else found.reply.hit.tier


@pytest.mark.parametrize("by", ["template", "request"])
def test_passages_join_the_partition(by: str) -> None:
    cache = Cache(templates=RAG if by == "template" else ())

    def asked(question: str, context: str = "One passage.") -> Request:
        return user(prompt(question, context), question=question if by == "request" else None)

    drive(cache.store(asked("How do I reset my password?"), REPLY))
    assert tier(cache, asked("How can I reset my password?")) == "semantic"
    assert tier(cache, asked("how do I reset my password")) == "normalised"
    assert tier(cache, asked("How do I reset my password?", "Another passage.")) is None


def test_with_a_version_passages_may_differ() -> None:
    cache = Cache(templates=[RAG], context="version", version="index-1")
    drive(cache.store(user(prompt("How do I reset my password?", "One.")), REPLY))
    assert tier(cache, user(prompt("How can I reset my password?", "Two."))) == "semantic"
    with pytest.raises(ConfigurationError, match="`version`"):
        Cache(context="version")


def test_a_quoted_separator_leaves_the_question_open() -> None:
    template = Template("{question}\n\nContext: {context}")
    assert template.question("Why?\n\nContext: rain") == "Why?"
    assert template.question("Why?\n\nContext: mine\n\nContext: rain") == ""
    assert template.question("Why?") is None
    one, other = (f"Is it so?\n\nContext: {mine}\n\nContext: rain" for mine in ("yes", "no"))
    cache = Cache(templates="{question}\n\nContext: {context}", context="version", version="1")
    drive(cache.store(user(one), REPLY))
    assert (tier(cache, user(other)), tier(cache, user(one))) == (None, "exact")


@pytest.mark.parametrize("text", ["{context}", "{question}{context}", "{question} {question}", "{a} {a} {question}"])
def test_templates_that_cannot_be_taken_apart(text: str) -> None:
    with pytest.raises(ConfigurationError, match="template"):
        Template(text)


def test_a_long_prompt_does_not_hold_up_the_process() -> None:
    template = Template("{a}\n\n{b}\n--\n{question}!")
    assert template.question("\n\n" * 500_000 + "\n--\n" * 200_000) is None
    assert template.question("\n\n" * 500_000 + "!") == ""


def test_what_is_around_a_question_cannot_be_said_by_a_message() -> None:
    """Earlier turns must not look like the text around a question."""
    around = asked_in(user("before Q after", question="Q"))
    for content in ("\0before \0 after", ["before ", " after"]):
        posed = Request(({"role": "user", "content": content}, {"role": "user", "content": "Q"}))
        assert asked_in(posed).frame != around.frame
        prints = [fingerprint(r, namespace="", version="") for r in (posed, user("before Q after", question="Q"))]
        assert prints[0].partition != prints[1].partition


@pytest.mark.parametrize("content", [5, 1.5, True, object(), {"type": "text"}, [5], [None]])
def test_content_of_no_known_form_is_no_question(content: Any) -> None:
    assert asked_in(user(content)).question is None
    cache = Cache()
    found = drive(cache.find(user(content)))
    drive(cache.keep(found, REPLY))
    assert cache.turns_held == 0


def test_text_parts_that_say_more_than_their_text_are_compared_to_the_letter() -> None:
    assert asked_in(user([{"type": "text", "text": "a", "cache_control": {}}])).question == "a"
    assert asked_in(user([{"type": "text", "text": "a", "citations": {"x": 1}}])).question is None


@pytest.mark.parametrize(
    ("question", "first", "leans"),
    [
        ("and for two?", True, True),
        ("And what does the premium plan cost per month?", True, False),
        ("And what does the premium plan cost per month?", False, True),
        ("How much is it for a family of four?", False, True),
        ("How much is it for a family of four?", True, False),
        ("What is tea?", False, True),
        ("What is tea?", True, False),
        ("How do I reset my password?", False, False),
    ],
)
def test_follow_ups(question: str, first: bool, leans: bool) -> None:
    assert leans_on_context(question, first=first) is leans


def test_an_image_beside_a_personal_question_does_not_make_it_a_general_one() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    parts = [{"type": "text", "text": "Where is my order?"}, image]
    assert drive(Cache().find(user(parts))).reason == "personal"
    cache = Cache()
    general = user([{"type": "text", "text": "What is shown here?"}, image])
    drive(cache.store(general, REPLY))
    assert tier(cache, general) == "exact"
    assert tier(cache, user([{"type": "text", "text": "what is shown here"}, image])) is None
