"""What survives when words are dropped, and where words and tokens stand: no model needed."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.compression.integrity import joined, mended, must_stay, without
from llmcost_plugins.compression.llmlingua_alignment import dropped_spans, kept_spans
from llmcost_plugins.compression.shortening import Parts


def kept(text: str, *spans: tuple[int, int]) -> str:
    return " ".join(text[start:end] for start, end in mended(text, spans)[0])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Sweden had 7,731,004 people in 1962.", ["Sweden", "7,731,004", "1962"]),
        ("It paid 150,782 SEK, or $19.99 million, to her.", ["150,782 SEK", "$19.99 million"]),
        ("The prize went to Wilhelm Conrad Röntgen of Würzburg.", ["Wilhelm Conrad Röntgen of Würzburg"]),
        (
            "see https://example.com/a?b=c#d and ![plan](img/plan.png)",
            ["https://example.com/a?b=c#d", "![plan](img/plan.png)"],
        ),
        ("it was not refunded and didn't arrive", ["not", "didn't"]),
        ("call `drop(table)` with user_id or write to me@example.org", ["`drop(table)`", "user_id", "me@example.org"]),
        ('the body {"a": [1, 2]} is sent', ['{"a": [1, 2]}']),
        ("keep .5 mg, not -40 °C or 3-4%", [".5 mg", "not", "-40 °C", "3-4%"]),
        ("open src/app/main.py at once", ["src/app/main.py"]),
        ("人口は7731004人です", ["7731004"]),
    ],
)
def test_what_must_stay_is_found_whole(text: str, parts: list[str]) -> None:
    shown = kept(text)
    for part in parts:
        assert part in shown


def test_what_was_damaged_is_given_back_and_counted() -> None:
    text = "Sweden had 7,731,004 people"
    spans, restored = mended(text, [(0, 6), (11, 16), (19, 20)])  # Sweden, 7,731 and the last but one digit
    assert [text[start:end] for start, end in spans] == ["Sweden", "7,731,004"]
    assert restored == 1
    assert mended(text, [(0, len(text))]) == (((0, len(text)),), 0)


def test_a_word_stays_whole_or_goes_whole() -> None:
    text = "a well-known and state-of-the-art uedilution"
    assert kept(text, (7, 12), (40, 43)) == "well-known uedilution"


def test_a_function_word_that_opens_a_sentence_is_no_name() -> None:
    assert kept("The winners were paid") == ""
    assert kept("Winners were paid") == "Winners"


def test_spans_are_joined_over_blanks_and_cut_out() -> None:
    assert joined("ab  cd ef ", [(4, 6), (0, 3), (8, 10)]) == ((0, 6), (8, 9))
    assert list(without((0, 10), [(2, 4), (4, 6), (9, 12)])) == [(0, 2), (6, 9)]


@given(
    st.text(alphabet="ab C.,-7\u2019'\n é漢", max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)))
)
def test_every_number_and_name_survives_any_damage(text: str, cuts: list[tuple[int, int]]) -> None:
    spans = [(min(cut), min(max(cut), len(text))) for cut in cuts if min(cut) < min(max(cut), len(text))]
    left, _ = mended(text, joined(text, spans))
    covered = {place for start, end in left for place in range(start, end)}
    assert all(place in covered for start, end in must_stay(text) for place in range(start, end) if text[place].strip())
    assert all(place in covered for match in re.finditer(r"\d", text) for place in range(*match.span()))
    assert all(left[n][1] < left[n + 1][0] for n in range(len(left) - 1))


@pytest.mark.parametrize(
    "junk", ["a", "-", ".", "`", "{", "[", "<", "a.", "A", "1", "(", "_", "/", "~/", "x@", "漢", "\u2019"]
)
def test_long_junk_takes_no_time(junk: str) -> None:
    started = time.perf_counter()
    mended(junk * 20_000, [(5, 7)])
    assert time.perf_counter() - started < 2


def test_words_are_found_whatever_the_tokenizer_made_of_them() -> None:
    text = "\uff26oo résumé ☃ the CAFÉ"
    words = [("foo", False), ("resume", True), ("the", False), ("café", True)]
    assert [text[start:end] for start, end in dropped_spans(text, words)] == ["\uff26oo", "the"]


def test_a_word_that_is_not_there_is_passed_over() -> None:
    text = "one two three"
    assert dropped_spans(text, [("one", True), ("gone", False), ("", False), ("three", False)]) == ((8, 13),)
    far = "x " * 200 + "target"
    assert dropped_spans(far, [("target", False)]) == ()


def test_kept_tokens_are_found_in_their_order() -> None:
    read = [(5, (0, 3)), (7, (3, 4)), (5, (4, 7)), (9, (7, 9))]
    assert kept_spans(read, [5, 5]) == ((0, 3), (4, 7))
    assert kept_spans(read, [7, 9, 11]) == ((3, 4), (7, 9))


def test_blocks_stay_whole_and_gaps_keep_their_line_breaks() -> None:
    text = "the first long sentence here.\n\n```\ncode\n```\n\nthe second one."
    parts = Parts.of(text, None, None)
    assert parts.prose == "the first long sentence here. the second one."
    shortened = parts.shortened([(4, 9), (10, 14), (34, 40)])
    assert shortened.text == "the sentence here.\n\n```\ncode\n```\n\nthe one."
    assert [text[start:end] for start, end in shortened.spans] == [
        "the",
        "sentence here.\n\n```\ncode\n```\n\nthe",
        "one.",
    ]
