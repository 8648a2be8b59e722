"""What is visibly wrong with an answer."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.routing.schemas import violation
from llmcost_plugins.routing.validators import repetition, shortcoming
from llmcost_plugins.types import Reply, Request


def ask(text: str, **params: Any) -> Request:
    return Request(({"role": "user", "content": text},), params=params)


PLAIN, JSON = ask("What is tea?"), ask("Give me the address as JSON.")
UNKNOWING = "the answer says that it does not know"
NO_JSON = "JSON was asked for and did not come"


# --- Texts


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Tea is a drink.", None),
        ("Tea", None),
        ("42", None),
        ("Tea is a drink made from the leaves of a shrub", "answer ends in mid-sentence"),
        ("Tea is a drink made from the leaves of a shrub!", None),
        ("Tea is:\n- a drink made from the leaves of a shrub", None),
        ("| a | b |\n|---|---|\n| one two three | four five six |", None),
        ("Options:\n1. the first one that you can choose", None),
        ("So the volume of all the water is 4 x 22.4 = 89.6 litres", None),
        ("```python\nprint('one two three four five six')\n```", None),
        ("Use **this one for all of your teas**", None),
        ("", "empty answer"),
        ("  \n\t ", "empty answer"),
        ("I don't know.", UNKNOWING),
        ("I'm not sure about that.", UNKNOWING),
        ("As an AI, I cannot drink tea.", UNKNOWING),
        ("As an AI, I don't drink. Tea is a drink made from leaves.", None),
        ("I'm sorry, but I can't help with that.", UNKNOWING),
        ("I am unable to determine the price.", UNKNOWING),
        ("There is not enough information.", UNKNOWING),
        ("Many leaves were weighed. " * 20 + "Therefore I cannot provide a definitive answer.", UNKNOWING),
        ("Leaves. " * 50 + "I'm not sure who found it first. " + "Leaves. " * 50, None),
        ('He replied, "I don\'t know", and drank his tea.', None),
    ],
)
def test_visible_faults(text: str, fault: str | None) -> None:
    assert shortcoming(PLAIN, Reply(None, text)) == fault


@pytest.mark.parametrize(
    "text",
    [
        "これはお茶です。",
        "चाय एक पेय है जो पत्तियों से बनता है।",
        "El té es una bebida «de las hojas de un arbusto»",
        "Der Tee heißt hier „Getränk aus den Blättern eines Strauches“",
    ],
    ids=["Japanese", "Hindi", "Spanish", "German"],
)
def test_whole_sentences_in_other_scripts(text: str) -> None:
    assert shortcoming(PLAIN, Reply(None, text)) is None


def test_an_answer_that_was_cut() -> None:
    assert shortcoming(PLAIN, Reply(None, "Tea is a drink.", finish="length")) == "answer cut at its token limit"


@pytest.mark.parametrize(
    "text",
    [
        "The species is the most general rank that is used to classify living organisms. " * 40,
        "Tea is a drink.\n" + "So the work is -7.6 kJ.\nTherefore the work is -7600 J.\n" * 60,
        "お茶は葉から作られる飲み物です。" * 200,
    ],
    ids=["a sentence", "two lines", "without spaces"],
)
def test_an_answer_in_a_loop(text: str) -> None:
    assert shortcoming(PLAIN, Reply(None, text)) == "answer repeats itself"


@pytest.mark.parametrize(
    "text",
    [
        "No. " * 100,
        "".join(f"{n} x 7 = {n * 7}\n" for n in range(300)),
        "| item | price | stock |\n"
        + "".join(f"| tea {n} | {n * 31 % 97}.{n * 17 % 100:02} | yes |\n" for n in range(90)),
    ],
    ids=["short", "multiplication", "table"],
)
def test_repeating_a_form_is_no_loop(text: str) -> None:
    assert shortcoming(PLAIN, Reply(None, text)) is None


def test_a_text_without_repetition_packs_little() -> None:
    assert repetition("") == 1.0
    assert repetition("Tea is made from leaves, and coffee from beans.") < 2 < 10 < repetition("tea and coffee, " * 400)


# --- JSON


@pytest.mark.parametrize(
    ("text", "falls_short"),
    [
        ('{"city": "Oslo"}', False),
        ("[1, 2]", False),
        ('```json\n{"city": "Oslo"}\n```', False),
        ('Here it is: {"city": "Oslo"}', False),
        ('Here it is [as asked]: {"city": "Oslo"}', False),
        ('{"city": "Os', True),
        ("{city: Oslo}", True),
        ("Oslo.", True),
    ],
)
def test_json_that_was_asked_for(text: str, falls_short: bool) -> None:
    assert bool(shortcoming(JSON, Reply(None, text))) is falls_short


@pytest.mark.parametrize("text", ["Reply with JSON only.", "Return valid JSON", "Put it into a JSON object"])
def test_ways_to_ask_for_json(text: str) -> None:
    assert shortcoming(ask(text), Reply(None, "Oslo.")) == NO_JSON


def test_talking_of_json_is_not_asking_for_it() -> None:
    assert shortcoming(ask("What is JSON?"), Reply(None, "A text format.")) is None


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}, "size": {"enum": ["big", "small"]}},
    "required": ["city"],
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "City", "schema": CITY}}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"city": "Oslo", "people": 700000, "size": "big"}', None),
        ('```json\n{"city": "Oslo"}\n```', None),
        ('{"city": "Oslo", "people": 7.0}', None),
        ("Oslo", NO_JSON),
        ('Here: {"city": "Oslo"}', NO_JSON),
        ('{"people": 1}', "JSON does not fit its schema: `city` is missing"),
        ('{"city": 1}', "JSON does not fit its schema: `city` is not of type string"),
        ('{"city": "Oslo", "people": "many"}', "JSON does not fit its schema: `people` is not of type integer"),
        ('{"city": "Oslo", "size": "huge"}', "JSON does not fit its schema: `size` is none of the allowed values"),
        ('["Oslo"]', "JSON does not fit its schema: the value is not of type object"),
    ],
)
def test_a_schema_is_checked(text: str, fault: str | None) -> None:
    assert shortcoming(ask("Where?", response_format=SCHEMA), Reply(None, text)) == fault
    assert shortcoming(ask("Where?", settings={"response_format": SCHEMA}), Reply(None, text)) == fault


def test_json_without_a_schema_is_an_object() -> None:
    wanted = ask("Where?", response_format={"type": "json_object"})
    assert shortcoming(wanted, Reply(None, '{"a": 1}')) is None
    assert shortcoming(wanted, Reply(None, "[1]")) == "JSON does not fit its schema: the value is not of type object"


@pytest.mark.parametrize("given_format", [{"type": "text"}, "json", None, {"type": "json_schema"}, {"json_schema": 3}])
def test_other_formats_are_not_checked(given_format: Any) -> None:
    assert shortcoming(ask("Where?", response_format=given_format), Reply(None, "Oslo.")) is None


NESTED = {
    "$defs": {"Item": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}},
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "kind": {"allOf": [{"const": "order"}]},
    },
}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"items": [{"n": 1}, {"n": 2.5}], "note": None, "kind": "order", "more": 1}, None),
        ({"items": [{"n": 1}, {}]}, "`items[1].n` is missing"),
        ({"items": [{"n": True}]}, "`items[0].n` is not of type number"),
        ({"note": 3}, "`note` is not of type string"),
        ({"kind": "offer"}, "`kind` is none of the allowed values"),
    ],
)
def test_schemas_inside_schemas(value: Any, fault: str | None) -> None:
    assert violation(value, NESTED) == fault


def test_a_schema_that_refers_to_itself_ends() -> None:
    assert violation({"a": {}}, {"$ref": "#"}) is None
    assert violation({"a": {}}, {"$ref": "#/nowhere"}) is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    JSON_VALUES, st.dictionaries(st.sampled_from(["type", "enum", "required", "items", "anyOf", "$ref"]), JSON_VALUES)
)
def test_no_schema_breaks_the_check(value: Any, schema: Any) -> None:
    assert violation(value, schema) is None or isinstance(violation(value, schema), str)


# --- Tools

SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["query"],
        },
    },
}


def calling(*calls: dict[str, Any], key: str = "tool_calls") -> Reply:
    return Reply({"content": "", key: list(calls)}, "", calls_tools=key != "invalid_tool_calls", finish="tool_calls")


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ({"name": "search", "args": {"query": "tea"}, "id": "1"}, None),
        ({"name": "search", "args": {"query": "tea", "limit": 3, "more": 1}}, None),
        ({"name": "find", "args": {"query": "tea"}}, "call of an unknown tool 'find'"),
        ({"name": "search", "args": {}}, "arguments of 'search' do not fit: `query` is missing"),
        ({"name": "search", "args": {"query": 7}}, "arguments of 'search' do not fit: `query` is not of type string"),
        ({"name": "search", "args": '{"query": "te'}, "arguments of 'search' are not JSON"),
    ],
)
def test_tool_calls_are_checked(call: dict[str, Any], fault: str | None) -> None:
    assert shortcoming(ask("Find tea.", tools=[SEARCH]), calling(call)) == fault
    openai = {"id": "1", "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
    assert shortcoming(ask("Find tea.", tools=[SEARCH]), calling(openai)) == fault
    llamaindex = {"tool_id": "1", "tool_name": call["name"], "tool_kwargs": call["args"]}
    assert shortcoming(ask("Find tea.", tools=[SEARCH]), calling(llamaindex, key="tools")) == fault


def test_tools_in_anthropics_form() -> None:
    tool = {"name": "search", "input_schema": SEARCH["function"]["parameters"]}  # type: ignore[index]
    fault = shortcoming(ask("Find tea.", tools=[tool]), calling({"name": "search", "args": {}}))
    assert fault == "arguments of 'search' do not fit: `query` is missing"


def test_a_call_that_could_not_be_read() -> None:
    call = {"name": "search", "args": '{"query": ', "id": "1", "error": "not JSON"}
    fault = shortcoming(ask("Find tea.", tools=[SEARCH]), calling(call, key="invalid_tool_calls"))
    assert fault == "arguments of 'search' are not JSON"


def test_the_second_call_is_checked_too() -> None:
    good, bad = {"name": "search", "args": {"query": "tea"}}, {"name": "search", "args": {}}
    assert shortcoming(ask("Find tea.", tools=[SEARCH]), calling(good, bad)) is not None


@pytest.mark.parametrize("tools", [None, [], "search", [{"type": "web_search"}], [SEARCH, {"type": "web_search"}], [3]])
def test_tools_that_only_the_provider_knows_are_let_pass(tools: Any) -> None:
    call = calling({"name": "web_search" if tools else "x", "args": {"q": 1}})
    expected = "call of an unknown tool 'x'" if tools == [] else None
    assert shortcoming(ask("Find tea.", tools=tools), call) == expected


def test_a_call_that_was_cut() -> None:
    cut = Reply({"tool_calls": []}, "", calls_tools=True, finish="length")
    assert shortcoming(PLAIN, cut) == "answer cut at its token limit"


def test_a_call_of_tools_is_an_answer() -> None:
    assert shortcoming(PLAIN, Reply(None, "", calls_tools=True, finish="tool_calls")) is None


# --- Any text


@given(st.text(max_size=300), st.text(max_size=60))
def test_any_text_has_a_fault_or_none(text: str, asked: str) -> None:
    fault = shortcoming(ask(asked), Reply(None, text))
    assert fault is None or fault
    assert bool(text.strip()) or fault == "empty answer"


@pytest.mark.parametrize(
    "text",
    ["\n" * 60_000 + "x", "not " * 60_000, '"“' * 60_000, "```" + "\n" * 60_000, "[{" * 60_000, "I am " * 50_000],
    ids=["lines", "words", "quotes", "fence", "brackets", "I"],
)
def test_a_long_text_does_not_hold_up_the_process(text: str) -> None:
    code = """
import sys
from llmcost_plugins.routing.signs import signs
from llmcost_plugins.routing.validators import shortcoming
from llmcost_plugins.types import Reply, Request
text = sys.stdin.read()
for params in ({}, {"response_format": {"type": "json_object"}}):
    request = Request(({"role": "user", "content": text + " as JSON"},), params=params)
    shortcoming(request, Reply(None, text)), signs(request, Reply(None, text))
"""
    subprocess.run([sys.executable, "-c", code], input=text, text=True, check=True, timeout=20)
