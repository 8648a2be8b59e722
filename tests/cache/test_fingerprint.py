"""What makes two requests the same: form alone, and only where form cannot matter."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmcost_plugins.cache.fingerprint import Fingerprint, cacheable_identity, fingerprint, normalised
from llmcost_plugins.cache.question import asked_in
from llmcost_plugins.types import Message, Request, Scope

QUESTION = "How do I reset it?"
REQUEST = Request(
    (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": QUESTION},
    ),
    model="gpt-5.4",
    params={"temperature": 0, "tools": [{"name": "f"}]},
    dialect="langchain",
    scope=Scope("acme"),
)


def print_of(request: Request, *, namespace: str = "", version: str = "", secret: bytes | None = None) -> Fingerprint:
    return fingerprint(request, namespace=namespace, version=version, secret=secret)


def last(content: Any, **others: Any) -> Request:
    return replace(REQUEST, messages=(*REQUEST.messages[:-1], {"role": "user", "content": content, **others}))


# --- Form

SAME = [
    ("How do I reset my password?", "how do i reset my password"),
    ("How do I reset my password?", "  How do   I reset\tmy password ?!"),
    ("How do I reset my password?", "HOW DO I RESET MY PASSWORD"),
    ("Where is Paris", "where is paris…"),
    ("Öffnungszeiten am Sonntag?", "öffnungszeiten am sonntag"),
    ("What is tea?\n", "what is tea"),
    ("What does IT do?", "what does IT do"),
    ("It's fine.", "it's fine"),
]
DIFFERENT = [
    ("What does IT do?", "What does it do?"),
    ("Who leads WHO?", "WHO leads who?"),
    ("Does it have IT support?", "Does IT have IT support?"),
    ("Can I return it in 14 days?", "Can I return it in 30 days?"),
    ("Is it open?", "Is it not open?"),
    (".5 kg in pounds?", "5 kg in pounds?"),
    ("What is 5!?", "What is 5?"),
    ("What is -5 plus 3?", "What is 5 plus 3?"),
    ("10 M in feet", "10 m in feet"),
    ("Is A1b2 valid?", "Is a1B2 valid?"),
    ("Which size is M?", "Which size is m?"),
    ("3.5 percent", "35 percent"),
    ("a b", "ab"),
    ("Is C++ old?", "Is C old?"),
    ("1,5", "15"),
    ("tea, not coffee", "tea not coffee"),
    ("What is a US?", "What is a us?"),
]
FORM_MATTERS = [
    'Translate "Polish" to German',
    "Translate “Polish” to German",
    "Say 'Hi' twice",
    "Fix `foo()`",
    "What does print(x) do",
    "x = 1",
    "see https://example.org",
    "mail me at a@b.c",
    "run ls -l",
    "what does --force do",
    "a_b",
    "{}",
    "$5",
    "#tag",
    "x^2",
    "a|b",
    "~/x",
    "[1]",
    "a\\b",
    "<b>",
    "if x:\n    return y",
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_differences_that_never_matter(one: str, other: str) -> None:
    assert normalised(one) == normalised(other) is not None


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_differences_that_may_matter(one: str, other: str) -> None:
    assert normalised(one) is None or normalised(one) != normalised(other)


@pytest.mark.parametrize("text", FORM_MATTERS)
def test_text_whose_form_matters_has_no_other(text: str) -> None:
    assert normalised(text) is None


@pytest.mark.parametrize("text", ["", " ", "?", "...", "\n\t!?"])
def test_nothing_but_marks_has_no_form(text: str) -> None:
    assert normalised(text) is None


WORDS = ["How", "I", "it", "IT?", "what", "is", "pH", "10", "3.5", "5!", "ß", "İ", "don't", "e.g.", "...", "?!", "M"]
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8)
spaces = st.sampled_from([" ", "  ", "\n", "\t", "\u00a0", " \n "])
texts = words.map(" ".join) | st.text(max_size=30)


@given(texts)
def test_the_form_of_a_form_is_itself(text: str) -> None:
    form = normalised(text)
    assume(form is not None)
    assert form is not None
    assert normalised(form) in (form, None)


@given(words, st.data())
def test_spacing_and_end_marks_make_no_difference(text: list[str], data: st.DataObject) -> None:
    spaced = "".join(word + data.draw(spaces) for word in text)
    ended = spaced.strip() + data.draw(st.sampled_from(["", " ", "?", ".", "…", " ?\n"]))
    plain = " ".join(" ".join(text).split())
    form = normalised(ended)
    assume(form is not None)
    assert form == normalised(plain)


def letters(text: str) -> str:
    return "".join(text.casefold().split()).rstrip(".?!…")


@given(texts, texts)
def test_only_case_spacing_and_end_marks_are_ever_ignored(one: str, other: str) -> None:
    form = normalised(one)
    if form is not None and form == normalised(other):
        assert letters(one) == letters(other)


LONG = {"dots": "." * 40_000 + "x", "marks": "?! " * 30_000 + "x", "words": "a " * 60_000, "quotes": "it's " * 40_000}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_text_does_not_hold_up_the_process(text: str) -> None:
    code = "import sys; from llmcost_plugins.cache.fingerprint import normalised; normalised(sys.stdin.read())"
    subprocess.run([sys.executable, "-c", code], input=text, text=True, check=True, timeout=5)


# --- Questions


@pytest.mark.parametrize(
    ("message", "question"),
    [
        ({"role": "user", "content": "hi"}, "hi"),
        ({"role": "user", "content": ""}, ""),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}, None),
        ({"role": "user", "content": []}, None),
        ({"role": "user", "content": None}, None),
        ({"role": "user", "content": ["a"]}, None),
        ({"role": "user", "content": "hi", "extras": {"x": 1}}, None),
        ({"role": "user", "content": "hi", "name": "bob"}, None),
        ({"role": "assistant", "content": "hi"}, None),
        ({"role": "tool", "content": "hi", "tool_call_id": "1"}, None),
    ],
)
def test_the_question_is_the_users_last_text(message: Message, question: str | None) -> None:
    assert asked_in(Request((message,))).question == question


def test_no_messages_have_no_question() -> None:
    assert asked_in(Request(())).question is None


# --- Identity


def test_form_changes_the_exact_print_alone() -> None:
    one, other = print_of(last("What is tea?")), print_of(last("what is tea"))
    assert one.key == other.key
    assert one.exact != other.exact
    assert (one.question, other.question) == ("What is tea?", "what is tea")


def test_a_question_without_form_is_found_by_its_letters() -> None:
    one = print_of(last("Fix `foo`"))
    assert one.key == one.exact
    assert one.key != print_of(last("fix `foo`")).key


Change = Callable[[Request], Request]


def with_first(message: Message) -> Change:
    return lambda request: replace(request, messages=(message, *request.messages[1:]))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: replace(r, model="gpt-5.4-mini"),
        lambda r: replace(r, dialect="llamaindex"),
        lambda r: replace(r, scope=Scope("globex")),
        lambda r: replace(r, scope=Scope()),
        lambda r: replace(r, params={**r.params, "temperature": 1}),
        lambda r: replace(r, params={**r.params, "stop": ["\n"]}),
        lambda r: replace(r, params={"temperature": 0, "tools": [{"name": "g"}]}),
        lambda r: replace(r, params={}),
        lambda r: replace(r, messages=r.messages[1:]),
        lambda r: replace(r, messages=(r.messages[0], *r.messages[3:])),
        with_first({"role": "system", "content": "be brief."}),
        with_first({"role": "system", "content": "Be brief"}),
        with_first({"role": "user", "content": "Be brief."}),
        with_first({"role": "system", "content": "Be brief.", "name": "x"}),
        lambda r: replace(r, messages=(*r.messages[:-1], {**r.messages[-1], "name": "bob"})),
        lambda r: replace(r, messages=(*r.messages, {"role": "assistant", "content": ""})),
    ],
)
def test_any_other_difference_separates(change: Change) -> None:
    one, other = print_of(REQUEST), print_of(change(REQUEST))
    assert one.key != other.key
    assert one.exact != other.exact


def test_namespace_version_and_secret_separate() -> None:
    prints = [
        print_of(REQUEST),
        print_of(REQUEST, namespace="a"),
        print_of(REQUEST, version="a"),
        print_of(REQUEST, secret=b"a"),
        print_of(REQUEST, secret=b"b"),
    ]
    assert len({print_.key for print_ in prints}) == len({print_.exact for print_ in prints}) == 5


def test_parts_do_not_run_into_one_another() -> None:
    one = print_of(replace(REQUEST, model="b"), namespace="a", version="")
    other = print_of(replace(REQUEST, model="b"), namespace="", version="a")
    tenants = [print_of(replace(REQUEST, scope=Scope(tenant))) for tenant in (None, "", "null")]
    assert one.key != other.key
    assert len({print_.key for print_ in tenants}) == 3


def test_user_feature_and_order_of_settings_make_no_difference() -> None:
    turned = replace(REQUEST, scope=Scope("acme", "u9", "f"), params=dict(reversed(REQUEST.params.items())))
    assert print_of(turned) == print_of(REQUEST)


def test_a_print_is_the_same_in_every_process() -> None:
    code = """
from llmcost_plugins.cache.fingerprint import fingerprint
from llmcost_plugins.types import Request
print(fingerprint(Request(({"role": "user", "content": "caf\u00e9?"},), model="m"), namespace="n", version="v").key)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    request = Request(({"role": "user", "content": "caf\u00e9?"},), model="m")
    assert done.stdout.strip() == fingerprint(request, namespace="n", version="v").key


def test_half_a_surrogate_pair_has_a_print() -> None:
    assert print_of(last("a\ud800b")).key != print_of(last("a\ud801b")).key


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x"])
def test_what_has_no_lasting_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="lasting form"):
        print_of(replace(REQUEST, params={"x": value}))


def agent(first: str, second: str, *, args: str = "1", answers: tuple[str, str] | None = None) -> Request:
    one, two = answers or (first, second)
    calls = [{"name": "f", "args": args, "id": first}, {"name": "f", "args": "2", "id": second}]
    return Request(
        (
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "content": "one", "tool_call_id": one},
            {"role": "tool", "content": "two", "tool_call_id": two},
        )
    )


def test_ids_of_tool_calls_are_drawn_anew_and_make_no_difference() -> None:
    assert print_of(agent("call_a", "call_b")).key == print_of(agent("toolu_1", "toolu_2")).key


def test_which_call_a_tool_answers_makes_a_difference() -> None:
    one = print_of(agent("a", "b"))
    assert one.key != print_of(agent("a", "b", answers=("b", "a"))).key
    assert one.key != print_of(agent("a", "b", args="9")).key
    assert one.question == ""


@pytest.mark.parametrize(
    ("identity", "lasting"),
    [
        ("", True),
        ("gpt-5.4", True),
        ('{"tiers": ["a", "b"]}', True),
        ("look at this 0x10", True),
        ("<app.Model object at 0x7f3e>", False),
        ("<function f at 0x7f3e>", False),
        ("<class 'app.Schema'>", False),
    ],
)
def test_descriptions_that_last(identity: str, lasting: bool) -> None:
    assert cacheable_identity(identity) is lasting
