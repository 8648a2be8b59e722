"""Other frameworks' embeddings, and functions, as an `Embedder`."""

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from llama_index.core.embeddings import BaseEmbedding, MockEmbedding

from llmcost_plugins.embeddings import LocalEmbedder, RememberingEmbedder, embedder_of, same_kind
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import adrive, drive


def one_hot(texts: list[str]) -> list[list[float]]:
    return [[3.0, 4.0] if text else [1.0, 0.0] for text in texts]


class Named(Embeddings):
    def __init__(self, model: str = "m") -> None:
        self.model = model
        self.calls: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append("sync")
        return one_hot(texts)

    def embed_query(self, text: str) -> list[float]:
        return one_hot([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append("async")
        return one_hot(texts)


class Llama(BaseEmbedding):
    seen: list[str] = []

    def _get_text_embedding(self, text: str) -> list[float]:
        self.seen.append("sync")
        return [3.0, 4.0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return [3.0, 4.0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return [3.0, 4.0]


class AsyncLlama(Llama):
    async def _aget_text_embedding(self, text: str) -> list[float]:
        self.seen.append("async")
        return [3.0, 4.0]


@pytest.mark.parametrize(
    "given", [one_hot, Named(), Llama(model_name="x")], ids=["function", "langchain", "llamaindex"]
)
async def test_vectors_are_brought_to_length_one(given: Any) -> None:
    embedder = embedder_of(given)
    assert embedder.dimension == 0
    for embedded in (drive(embedder.embed(["a", "b"])), await adrive(embedder.embed(["a", "b"]))):
        assert np.allclose(embedded.vectors, [[0.6, 0.8], [0.6, 0.8]])
        assert embedded.vectors.dtype == np.float32
    assert embedder.dimension == 2
    assert drive(embedder.embed([])).vectors.shape == (0, 2)


async def test_async_callers_use_the_async_face() -> None:
    named = Named()
    await adrive(embedder_of(named).embed(["a"]))
    assert named.calls == ["async"]


async def test_an_inherited_async_face_that_blocks_is_not_used() -> None:
    plain, own = Llama(model_name="x", seen=[]), AsyncLlama(model_name="x", seen=[])
    assert embedder_of(plain)._aembed is None  # type: ignore[attr-defined]
    await adrive(embedder_of(own).embed(["a"]))
    assert own.seen == ["async"]


def test_an_embedder_stays_as_it_is() -> None:
    embedder = LocalEmbedder()
    assert embedder_of(embedder) is embedder


async def coroutine(texts: list[str]) -> list[list[float]]:
    return one_hot(texts)


@pytest.mark.parametrize("given", [5, "model", Named, coroutine, None, object()], ids=str)
def test_what_embeds_nothing_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected an `Embedder`"):
        embedder_of(given)


# --- Ids


def test_ids_that_last_tell_models_apart() -> None:
    ids = [embedder_of(given).id for given in (Named("a"), Named("b"), Llama(model_name="a"), one_hot)]
    assert len(set(ids)) == 4
    assert ids == [embedder_of(given).id for given in (Named("a"), Named("b"), Llama(model_name="a"), one_hot)]
    assert ids[0].endswith("Named/a")


def local() -> Any:
    def embed(texts: list[str]) -> Any:
        return one_hot(texts)

    return embed


@pytest.mark.parametrize(
    "given",
    [
        lambda texts: one_hot(texts),
        local(),
        functools.partial(one_hot),
        Named("").embed_documents,
        Named(""),
        DeterministicFakeEmbedding(size=4),
        MockEmbedding(4),
    ],
    ids=["lambda", "local", "partial", "method", "no model", "fake", "unknown model"],
)
def test_what_does_not_say_which_model_it_is_shares_no_vectors(given: Any) -> None:
    one, other = embedder_of(given).id, embedder_of(given).id
    assert one != other
    assert same_kind(one, other)
    assert not same_kind(one, embedder_of(one_hot).id)


def test_an_id_of_ones_own() -> None:
    named = Named("")
    named.id = "mine-v1"  # type: ignore[attr-defined]
    assert embedder_of(named).id == "mine-v1"


# --- What comes back


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0.0]] * 2,
        [],
        [1.0],
        [[float("nan"), 1.0]],
        [[float("inf"), 1.0]],
        [[1e308, 1e308]],
        [[0.0, 0.0]],
        [[]],
        None,
        "text",
        [["a"]],
        [[1.0], [1.0, 2.0]],
    ],
    ids=str,
)
def test_what_is_no_vector_a_text_is_refused(rows: Any) -> None:
    with pytest.raises(ConfigurationError, match="returned"):
        drive(embedder_of(lambda texts: rows).embed(["a"]))


def test_another_dimension_than_before_is_refused() -> None:
    embedder = embedder_of(lambda texts: [[1.0] * len(texts[0])])
    drive(embedder.embed(["ab"]))
    with pytest.raises(ConfigurationError, match="3 dimensions after 2"):
        drive(embedder.embed(["abc"]))


@pytest.mark.parametrize(
    ("text", "cut"), [("a" * 768, False), ("a" * 769, True), ("\u4e2d" * 300, True), ("\ud83d", False)]
)
def test_long_texts_count_as_cut(text: str, cut: bool) -> None:
    assert drive(embedder_of(one_hot).embed([text])).truncated == (cut,)


# --- Remembering


def test_no_text_is_embedded_twice() -> None:
    seen: list[str] = []

    def embed(texts: list[str]) -> Any:
        seen.extend(texts)
        return one_hot(texts)

    embedder = RememberingEmbedder(embedder_of(embed), size=2)
    for texts in (["a", "b", "a"], ["b"], ["a"], ["c"], ["a"], ["b"]):
        assert len(embedder.embed_now(texts).vectors) == len(texts)
    assert seen == ["a", "b", "c", "b"]
    assert embedder.embed_now([]).vectors.shape == (0, 2)


def test_threads_that_crowd_each_other_out_get_their_vectors() -> None:
    embedder = RememberingEmbedder(embedder_of(one_hot), size=2)
    with ThreadPoolExecutor(8) as pool:
        rows = pool.map(lambda n: len(embedder.embed_now([str(n % 7), str(n % 5)]).vectors), range(2_000))
        assert set(rows) == {2}
