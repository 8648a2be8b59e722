"""Passages as units: nothing lost, nothing changed, no block cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

# ruff: noqa: RUF001 - scripts other than Latin
from llmcost_plugins.compression.segments import minified, segment
from llmcost_plugins.compression.sentences import sentences

CODE = "```python\ndef area(r):\n    return 3.14 * r\n\nprint(area(2.0))\n```"
TABLE = "| city | people |\n|---|---|\n| Bern | 134,591 |"
YAML = "name: app\nversion: 1.20\nservices:\n  - web\n  - db"
LIST = "- boil 1.5 l of water\n- add salt\n  and stir\n- wait"
MARKS = "# *-|`{}[]():,.!?\n\t \r\"'12aZé。ก؟<>~=_"


def said(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text, 0, len(text))]


@given(st.one_of(st.text(), st.text(alphabet=MARKS, max_size=300)))
def test_units_and_blanks_are_the_whole_text(text: str) -> None:
    units = segment(text)
    place = 0
    for unit in units:
        assert not text[place : unit.start].strip()
        assert place <= unit.start < unit.end <= len(text)
        assert unit.text == text[unit.start : unit.end]
        assert -1 <= unit.parent < units.index(unit)
        place = unit.end
    assert not text[place:].strip()


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith met J. R. R. Tolkien at 3.5 p.m. in the U.S.", "He paid $4.50."],
        ['"Is it so?" she asked.', "Yes!", "No. 5 is alive... and kicking."],
        ["It opened on Jan. 5 at No. 10, St. Mark St.", "The rent was 1,200.50 a month."],
        ["Prices rose by 3.5% vs. 2019 (cf. Fig. 2).", "Nobody knew why."],
        ["Das kostet ca. 5 Euro, d.h. z.B. zwei Kaffee.", "Wer zahlt?"],
        ["¿Dónde está?", "Aquí.", "¡Vamos!"],
        ["See https://example.org/a.b?c=1.2 for it.", "Mail a.b@example.org."],
        ["Это первое предложение.", "А это второе!"],
        ["هل هذا صحيح؟", "نعم، هذا صحيح."],
        ["यह पहला वाक्य है।", "यह दूसरा है।"],
    ],
)
def test_sentences(expected: list[str]) -> None:
    assert said(" ".join(expected)) == expected


def test_scripts_without_blanks() -> None:
    assert said("今天天气很好。我们去公园吧！「好的。」他说。") == [
        "今天天气很好。",
        "我们去公园吧！",
        "「好的。」",
        "他说。",
    ]
    assert said("猫が好きです。Version 2.0 is out. 犬も？") == ["猫が好きです。", "Version 2.0 is out.", "犬も？"]


def test_thai_is_cut_at_blanks_only() -> None:
    first, second = "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย", "มีประชากรมากกว่าสิบล้านคน"
    assert said(f"{first} {second}") == [first, second]


def test_lines_that_are_wrapped_belong_together() -> None:
    wrapped = "This sentence was wrapped by an editor at about seventy columns and\ngoes on in the next line."
    assert said(wrapped) == [wrapped]
    assert said("First line\nSecond line") == ["First line", "Second line"]


def test_one_giant_sentence_is_cut_between_clauses() -> None:
    text = ", ".join(f"item {n:,} costs {n}.50 dollars" for n in range(1_000, 1_200))
    parts = said(text)
    assert len(parts) > 5
    assert max(map(len, parts)) <= 1_000
    assert " ".join(parts) == text


def test_a_run_without_any_boundary_stays_whole() -> None:
    assert said("x" * 5_000) == ["x" * 5_000]
    digits = " ".join(["123 456"] * 400)
    assert said(digits) == [digits]


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        (CODE, "code"),
        ("    for n in range(3):\n        print(n)", "code"),
        ("def area(r):\n    return 3.14 * r\n\nclass Square:\n    side = 1.0", "code"),
        ("<table>\n<tr><td>1.5</td></tr>\n</table>", "code"),
        (TABLE, "table"),
        (YAML, "yaml"),
        (LIST, "list"),
        ("1. Open it. Then wait.\n2. Close it.", "list"),
        ('{"a": 1.0,\n "b": [1, 2]}', "json"),
        ('[\n {"id": 12345678901234567890}\n]', "json"),
        ("## Opening hours", "heading"),
    ],
)
def test_blocks_are_units(block: str, kind: str) -> None:
    units = segment(f"Some words. More words.\n\n{block}\n\nThe end. Really.")
    assert [unit.kind for unit in units if unit.kind != "sentence"] == [kind]
    assert next(unit for unit in units if unit.kind == kind).text == block


def test_a_fence_without_end_goes_on_to_the_end() -> None:
    assert [unit.kind for unit in segment("Text.\n\n```\na. B\n\nc. D")] == ["sentence", "code"]


def test_headings_and_leading_words_are_parents() -> None:
    units = segment(f"# Top\n\nWords.\n\n## Part\n\nDo this:\n\n{LIST}\n\n## Other\n\nMore.")
    by_text = {unit.text: n for n, unit in enumerate(units)}
    parents = {unit.text: unit.parent for unit in units}
    assert parents["Words."] == parents["## Part"] == parents["## Other"] == by_text["# Top"]
    assert parents["Do this:"] == by_text["## Part"]
    assert parents[LIST] == by_text["Do this:"]
    assert parents["More."] == by_text["## Other"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from([None, 0, 2, "\t"]))
def test_minified_json_is_the_same_value(value: object, indent: int | str | None) -> None:
    text = json.dumps(value, indent=indent)
    shorter = minified(text)
    assert len(shorter) <= len(text)
    assert json.dumps(json.loads(shorter)) == json.dumps(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1.0, "b": 1}', '{"a":1.0,"b":1}'),
        ('{"n": 123456789012345678901234567890, "e": 1.50e+10}', '{"n":123456789012345678901234567890,"e":1.50e+10}'),
        ('{"a": 1, "a": 2}', '{"a":1,"a":2}'),
        ('{"t": "two  blanks \\" and a quote"}', '{"t":"two  blanks \\" and a quote"}'),
        ('{"a": 1 2}', '{"a": 1 2}'),
        ("not json", "not json"),
        ("[1, 2", "[1, 2"),
    ],
)
def test_numbers_keep_their_digits(text: str, expected: str) -> None:
    assert minified(text) == expected
