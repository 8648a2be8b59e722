import pickle
import subprocess
import sys

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from llmcost_plugins.embeddings import LocalEmbedder
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.langchain.embeddings import LocalEmbeddings
from llmcost_plugins.llamaindex import LocalEmbedding

TEXTS = ["Reset your password in the settings.", "A refund takes five days.", "We ship to Norway."]
QUESTION = "how can I change my password"


@pytest.fixture(scope="module")
def embedder() -> LocalEmbedder:
    return LocalEmbedder()


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[LocalEmbeddings]:
        return LocalEmbeddings


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[LocalEmbeddings]:
        return LocalEmbeddings


async def test_langchain_gives_the_embedders_own_vectors(embedder: LocalEmbedder) -> None:
    face, vectors = LocalEmbeddings(embedder), embedder.embed_now(TEXTS).vectors.tolist()
    assert face.embed_documents(TEXTS) == await face.aembed_documents(TEXTS) == vectors
    assert face.embed_query(TEXTS[0]) == await face.aembed_query(TEXTS[0]) == vectors[0]
    assert face.embed_documents([]) == []
    assert type(face.embed_query("")[0]) is float


def test_langchain_finds_the_right_document(embedder: LocalEmbedder) -> None:
    store = InMemoryVectorStore(LocalEmbeddings(embedder))
    store.add_documents([Document(text) for text in TEXTS])
    assert store.similarity_search(QUESTION, k=1)[0].page_content == TEXTS[0]


def test_langchain_takes_an_embedder_or_its_keywords(embedder: LocalEmbedder) -> None:
    assert repr(LocalEmbeddings(threads=2)) == "LocalEmbeddings(LocalEmbedder(threads=2, batch_size=32))"
    with pytest.raises(ConfigurationError, match="`threads`: set on the embedder itself"):
        LocalEmbeddings(embedder, threads=2)


async def test_llamaindex_gives_the_embedders_own_vectors(embedder: LocalEmbedder) -> None:
    face, vectors = LocalEmbedding(embedder), embedder.embed_now(TEXTS).vectors.tolist()
    assert face.get_text_embedding_batch(TEXTS) == await face.aget_text_embedding_batch(TEXTS) == vectors
    assert face.get_text_embedding(TEXTS[0]) == await face.aget_text_embedding(TEXTS[0]) == vectors[0]
    assert face.get_query_embedding(TEXTS[0]) == await face.aget_query_embedding(TEXTS[0]) == vectors[0]
    assert face.model_name == embedder.id


def test_llamaindex_finds_the_right_node(embedder: LocalEmbedder) -> None:
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=LocalEmbedding(embedder))
    (found,) = index.as_retriever(similarity_top_k=1).retrieve(QUESTION)
    assert found.text == TEXTS[0]


def test_llamaindex_components_survive_storage() -> None:
    face = LocalEmbedding(threads=2, embed_batch_size=7)
    for other in (LocalEmbedding.from_dict(face.to_dict()), pickle.loads(pickle.dumps(face))):
        assert (other.threads, other.embed_batch_size, other.model_name) == (2, 7, face.model_name)
        assert other._embedder.threads == 2
    own = pickle.loads(pickle.dumps(LocalEmbedding(LocalEmbedder(batch_size=3))))
    assert own._embedder.batch_size == 3


@pytest.mark.parametrize("face", ["langchain.embeddings.LocalEmbeddings", "llamaindex.LocalEmbedding"])
def test_faces_load_no_model_before_use(face: str) -> None:
    module, name = face.rsplit(".", 1)
    script = (
        f"import sys; from llmcost_plugins.{module} import {name}; {name}(); assert 'onnxruntime' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_without_llamaindex_the_error_is_a_command_to_paste() -> None:
    script = """
import sys
sys.modules["llama_index"] = None
from llmcost_plugins.errors import MissingExtra
try:
    import llmcost_plugins.llamaindex
except MissingExtra as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == '`llama-index-core` is not installed. Run: pip install "llmcost-plugins[llamaindex]"'


def test_both_frameworks_see_one_vector_space(embedder: LocalEmbedder) -> None:
    one, other = LocalEmbeddings(embedder).embed_query(QUESTION), LocalEmbedding(embedder).get_query_embedding(QUESTION)
    assert np.array_equal(one, other)
