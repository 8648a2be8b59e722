"""What a user would suffer from: words cut or changed, budgets broken, hours spent, copies and threads that fail."""

import asyncio
import copy
import json
import multiprocessing
import pickle
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcost_plugins.compression import CompressionResult, Compressor, Passage
from llmcost_plugins.compression.segments import segment
from llmcost_plugins.embeddings import Embedded
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import Plan, adrive, do, drive
from llmcost_plugins.tokens import count_text
from tests.compression.test_compressor import ANSWER, NOISE, PASSAGES, QUERY, Words


def compress(
    passages: Sequence[Passage], query: str = QUERY, scorer: Any = "bm25", **changes: Any
) -> CompressionResult:
    compressor = Compressor(scorer, **{"min_tokens": 0, "clock": lambda: 1.0, **changes})
    return drive(compressor.compress(query, passages, sink=lambda event: None))


def units(text: str) -> list[str]:
    return [unit.text for unit in segment(text)]


# --- Words, spans and budgets, whatever comes

PIECES = (
    *(
        ANSWER,
        *NOISE,
        "好。今日は",
        "สวัสดี ครับ ",
        "।",
        "هل؟ نعم.",
        "\u200b",
        "\ufeff",
        "\r\n",
        "\r",
        "\n\n",
        "\t",
        "e\u0301",
    ),
    *(
        "\n# Bridge\n",
        "\n- one. Two.\n- three\n",
        "\n```py\nx = 1. \n```\n",
        "\n~~~\n```\na\n```\n~~~\n",
        "\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    ),
    *(
        '\n{"n": 1.50, "t": "a b", "n": [1, 2, {"x": -0.0}]}\n',
        "\n[\n  1e400,\n  7731004\n]\n",
        "\na: 1\nb:\n  - c\n",
        "{",
        "`",
        "...",
        "\ud800",
    ),
)
MIXTURES = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=12).map("".join)
LISTS = st.lists(
    st.builds(Passage, MIXTURES, title=st.sampled_from(["", "Port {0} Nevin", "}{"])), min_size=1, max_size=4
)


def read(text: str) -> Any:
    return json.loads(text, object_pairs_hook=list, parse_int=str, parse_float=str)


def said(text: str) -> str:
    """Return a text without blanks."""
    return re.sub(r"\s+", "", text)


@settings(max_examples=150, deadline=None)
@given(LISTS, st.integers(1, 80))
def test_what_is_kept_is_to_the_letter_and_within_the_budget(passages: list[Passage], tokens: int) -> None:
    result = compress(passages, tokens=tokens, header="[{number}] {title}")
    assert "failed" not in result.reason
    shown = [f"[{k.index + 1}] {passages[k.index].title}".strip() + f"\n{k.text}" for k in result.kept if k.text]
    if result.scorer != "none":
        assert count_text("\n\n".join(shown)).tokens == result.tokens_after <= tokens
    for kept in result.kept:
        text, place, parts = passages[kept.index].text, 0, ""
        for start, end in kept.spans:
            assert place <= start < end <= len(text)
            place, parts = end, parts + text[start:end]
        assert said(parts) == said(kept.text)
    assert compress(passages, tokens=tokens, header="[{number}] {title}") == result


@settings(max_examples=60, deadline=None)
@given(MIXTURES)
def test_blocks_are_never_cut(text: str) -> None:
    found = "\n\n".join((text.replace("`", "").replace("~", ""), "```\nA. B.\n\nC.\n```", "End."))
    assert "```\nA. B.\n\nC.\n```" in units(found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False) | st.text(max_size=8), min_size=1), st.integers(0, 4))
def test_json_keeps_its_value_and_its_digits(values: list[Any], indent: int) -> None:
    text = json.dumps({"a": values, "big": 7731004000000000000001, "exact": 1.50}, indent=indent)
    result = compress([Passage(text)], ratio=1.01)
    assert read(result.kept[0].text) == read(text)


@pytest.mark.parametrize(
    "sentence",
    [
        "See https://example.org/a.b/c.html?x=1.5&y=2. ",
        "Write to a.b@c-d.example.com. ",
        "It is e.g. Dr. Lee who paid $3.14 in the U.S. Senate. ",
        "Es gilt z. B. Paragraph 5 vom 3. Oktober 1990. ",
        "Read [What is it? The answer](https://a.b/c.d) twice. ",
        "Call `a. B. C()` once. ",
        'It returned {"a": "One. Two."} at once. ',
        "He waited ... and left. ",
        "“Is it?” he asked. ",
        "Version 1.2.3 costs 1.204,50 € or 1,204.50 $. ",
    ],
)
def test_a_sentence_is_not_cut(sentence: str) -> None:
    assert units(f"It was so. {sentence}The end came.") == ["It was so.", sentence.strip(), "The end came."]


@pytest.mark.parametrize(
    "text",
    ["今日は。明日も！本当？", "यह है। वह था।", "هل هذا؟ نعم۔ ", "他说：“好。”然后走了。"],  # noqa: RUF001
)
def test_other_scripts_end_sentences(text: str) -> None:
    assert len(units(text)) >= 2
    assert "".join(map(said, units(text))) == said(text)


def test_inline_code_at_the_start_of_a_line_is_no_fence() -> None:
    assert units("```x``` is code. It runs.\nThat is all.\n")[0] == "```x``` is code."


def test_json_with_a_giant_number_is_one_unit() -> None:
    text = json.dumps({"a": "One. Two."}, indent=1)[:-1] + f', "n": 1{"0" * 5000}\n}}'
    assert units(text) == [text]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_line_ends(line_end: str) -> None:
    table = line_end.join(["| a | b |", "|---|---|", "| 1. One. | 2 |"])
    assert units(f"Before.{line_end}{line_end}{table}{line_end}{line_end}After.") == ["Before.", table, "After."]


# --- No time that grows with the square of a text


@pytest.mark.parametrize(
    "text",
    [
        "word " * 200_000,
        "x" * 1_000_000,
        "a" + " " * 200_000 + "b c\nd",
        "a" + "." * 200_000 + "b c",
        "a\n" + "f(x) " * 40_000,
        "2024 | INFO | it is done.\n" * 4_000,
        "Alice: hello how are you today I am doing fine and well\n" * 3_000,
        "    this is quoted prose and so on\n" * 3_000,
        "x = 1\nthis is prose here\nmore prose here\n" * 2_000,
    ],
    ids=["words", "run", "blanks", "dots", "calls", "log", "transcript", "quote", "mixed"],
)
def test_long_texts_are_read_in_linear_time(text: str) -> None:
    assert said("".join(units(text))) == said(text)


def test_five_thousand_passages() -> None:
    passages = [Passage(f"Item {n} is here. The ferry costs {n * 7} dollars.", str(n)) for n in range(5_000)]
    passages[4_321] = Passage(ANSWER, "it")
    result = compress(passages, tokens=200)
    assert "it" in {passages[kept.index].id for kept in result.kept}
    assert result.tokens_after <= 200


# --- What must be kept


def test_a_pattern_may_reach_over_sentences_and_lines() -> None:
    text = f"{' '.join(NOISE)}\n\nPay now.\nThen wait. {' '.join(NOISE)}"
    assert "Pay now.\nThen wait." in compress([Passage(text)], protect=[r"Pay now\.\s+Then wait"]).kept[0].text


def test_a_pattern_that_matches_a_sentence_keeps_that_alone() -> None:
    result = compress([Passage(" ".join(NOISE))], tokens=1, protect=[r".*gulls.*"])
    assert (result.kept[0].text, result.over_budget) == ("Nobody has counted the gulls.", True)


def test_the_order_of_passages_does_not_matter() -> None:
    kept = [
        {passages[part.index].id: part.text for part in compress(passages, ratio=4).kept}
        for passages in (PASSAGES, PASSAGES[::-1])
    ]
    assert kept[0] == kept[1]


# --- Settings


@pytest.mark.parametrize(
    "wrong",
    [
        *({"min_tokens": -1}, {"window": 10, "reserve": 20}, {"window": 10, "reserve": "5"}, {"deadline": "5"}),
        *({"header": "{number[0]}"}, {"header": "{name}"}, {"protect": [b"x"]}, {"protect": b"x"}, {"tokens": 0}),
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Compressor(**wrong)


def test_a_header_without_a_title() -> None:
    assert compress(PASSAGES, header="---").tokens_after <= compress(PASSAGES, header="---").tokens_before // 4


# --- Embedders that fail


class Wrong:
    """An embedder that gives what it is told to."""

    id, dimension = "wrong", 4

    def __init__(self, vectors: Any) -> None:
        self.vectors = vectors

    def embed(self, texts: Sequence[str]) -> Plan[Embedded]:
        yield from do(lambda: None)
        return Embedded(self.vectors(len(texts)), (False,) * len(texts), (1,) * len(texts))


@pytest.mark.parametrize(
    "vectors",
    [
        lambda n: np.full((n, 4), np.nan, np.float32),
        lambda n: np.ones((max(n - 1, 0), 4), np.float32),
        lambda n: np.ones((n,), np.float32),
        lambda n: None,
    ],
    ids=["nan", "fewer", "flat", "none"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_with_wrong_vectors_words_decide(vectors: Any) -> None:
    result = compress(PASSAGES, scorer="hybrid+head", embedder=Wrong(vectors))
    assert (result.scorer, result.kept) == ("bm25", compress(PASSAGES).kept)


# --- Copies, threads, tasks and forks


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_work_the_same(copied: Any) -> None:
    compressor = Compressor("hybrid+head", min_tokens=0, embedder=Words2(), protect=["gulls"])
    expected = drive(compressor.compress(QUERY, PASSAGES))
    other = copied(compressor)
    assert drive(other.compress(QUERY, PASSAGES)).kept == expected.kept


class Words2(Words):
    def __init__(self) -> None:
        super().__init__(nothing)


def nothing() -> None:
    return


def test_threads_share_a_compressor() -> None:
    compressor = Compressor("bm25", min_tokens=0, remembered=2)
    with ThreadPoolExecutor(16) as pool:
        kept = list(pool.map(lambda _: drive(compressor.compress(QUERY, PASSAGES)).kept, range(64)))
    assert all(one == kept[0] for one in kept)


async def test_tasks_share_a_compressor() -> None:
    compressor = Compressor("hybrid+head", min_tokens=0, embedder=Words())
    found = await asyncio.gather(*(adrive(compressor.compress(QUERY, PASSAGES)) for _ in range(50)))
    assert {one.kept for one in found} == {drive(compressor.compress(QUERY, PASSAGES)).kept}


def _in_child(compressor: Compressor, queue: Any) -> None:
    queue.put(drive(compressor.compress(QUERY, PASSAGES)).kept)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_goes_on_though_a_lock_was_held() -> None:
    compressor = Compressor("bm25", min_tokens=0)
    expected = drive(compressor.compress(QUERY, PASSAGES)).kept
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(compressor, queue))
    with compressor._lock:
        child.start()
    child.join(5)
    assert child.exitcode == 0
    assert queue.get() == expected


# --- The event loop


@pytest.mark.parametrize("changes", [{"ratio": 4}, {"tokens": 10_000}, {"ratio": 4, "min_tokens": 9_999}])
async def test_texts_are_counted_and_read_off_the_loop(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(text: str, model: str) -> Any:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return count_text(text, model)

    monkeypatch.setattr("llmcost_plugins.compression.compressor.count_text", counted)
    result = await adrive(Compressor("bm25", **{"min_tokens": 0, **changes}).compress(QUERY, PASSAGES))
    assert "failed" not in result.reason
