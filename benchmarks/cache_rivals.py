"""Other caches behind one face, to be measured beside this package's: each is given the question and its vector.

`available()` says which can be made here. All of them come from PyPI: gptcache, faiss-cpu, langchain-community.
"""

import atexit
import shutil
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration

LLM = "a model and its parameters"
DIMENSION = 384
VCACHE = (
    "not on PyPI; earlier figures of its algorithm, not measured by this run: with a bound of 1 %, 8.1 % hits and "
    "0.36 % wrong on 3,300 banking77 requests, 0.9 % hits and 0.13 % wrong on 3,878 QQP requests; with a bound of "
    "2 %, 14.4 % and 0.67 %, 2.0 % and 0.28 %"
)


class Rival(Protocol):
    """A cache that is asked with a question and its unit vector."""

    name: str

    def get(self, question: str, vector: Any) -> object | None: ...

    def put(self, question: str, vector: Any, answer: str) -> None: ...


class Offer(NamedTuple):
    """A rival's name, how to make one (None: not here) and what to know about it."""

    name: str
    make: Callable[..., Rival] | None
    note: str


class CosineCache:
    """The nearest stored question answers if its cosine reaches a threshold: what most semantic caches do."""

    def __init__(self, threshold: float = 0.85, *, dimension: int = DIMENSION) -> None:
        self.name = f"cosine {threshold:.2f}"
        self.threshold = threshold
        self._vectors = np.empty((1024, dimension), np.float32)
        self._answers: list[str] = []

    def get(self, question: str, vector: Any) -> object | None:
        if not self._answers:
            return None
        cosines = self._vectors[: len(self._answers)] @ vector
        nearest = int(cosines.argmax())
        return self._answers[nearest] if cosines[nearest] >= self.threshold else None

    def put(self, question: str, vector: Any, answer: str) -> None:
        if len(self._answers) == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
        self._vectors[len(self._answers)] = vector
        self._answers.append(answer)


class SerialisedPromptCache:
    """Embeds all that LangChain hands to a cache, as langchain-redis does: the JSON of every message.

    The vector given is left aside; `embed` turns texts into unit vectors. The distance is langchain-redis's default.
    """

    def __init__(self, embed: Callable[[Sequence[str]], Any], system: str = "", *, distance: float = 0.2) -> None:
        self.name = f"serialised prompt {1 - distance:.2f}"
        self._embed = embed
        self._system = system
        self._cosine = CosineCache(1 - distance)

    def get(self, question: str, vector: Any) -> object | None:
        return self._cosine.get(question, self.vector(question))

    def put(self, question: str, vector: Any, answer: str) -> None:
        self._cosine.put(question, self.vector(question), answer)

    def vector(self, question: str) -> Any:
        """Embed the serialised messages of a call with this question."""
        system = [SystemMessage(self._system)] if self._system else []
        return self._embed([dumps([*system, HumanMessage(question)])])[0]


class GPTCache:
    """GPTCache through its own `get` and `put`, with the default store (SQLite and faiss) and similarity.

    Its threshold is a share of the squared distance's range: 0.8 is a cosine of 0.60, 0.95 one of 0.90. The memory
    eviction, 1,000 entries by default, is widened so that all that is put stays.
    """

    def __init__(self, threshold: float = 0.8, *, folder: Path | None = None, dimension: int = DIMENSION) -> None:
        _keep_gptcache_from_installing()
        from gptcache import Cache, Config
        from gptcache.adapter import api
        from gptcache.embedding.base import BaseEmbedding
        from gptcache.manager import manager_factory

        class Given(BaseEmbedding):
            vector: Any = None

            def to_embeddings(self, data: Any, **kwargs: Any) -> Any:
                return self.vector

            @property
            def dimension(self) -> int:
                return dimension

        self.name = f"gptcache {threshold:.2f}"
        self._api, self._embedding, self._cache = api, Given(), Cache()
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="gptcache"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)  # after GPTCache's own hook, which writes there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls SQLAlchemy by old names
            store = manager_factory(
                "sqlite,faiss",
                data_dir=str(folder),
                vector_params={"dimension": dimension},
                eviction_params={"max_size": 10**9},
            )
        config = Config(similarity_threshold=threshold)
        api.init_similar_cache(cache_obj=self._cache, embedding=self._embedding, data_manager=store, config=config)

    def get(self, question: str, vector: Any) -> object | None:
        self._embedding.vector = vector
        return self._api.get(question, cache_obj=self._cache)

    def put(self, question: str, vector: Any, answer: str) -> None:
        self._embedding.vector = vector
        self._api.put(question, answer, cache_obj=self._cache)


def _keep_gptcache_from_installing() -> None:
    """Let a package that GPTCache misses be an error; of itself it runs pip."""

    def refuse(package: str, warn: bool = False) -> None:
        raise ModuleNotFoundError(f"gptcache wants {package}")

    instead = types.ModuleType("gptcache.utils.dependency_control")
    instead.prompt_install = refuse  # type: ignore[attr-defined]
    sys.modules["gptcache.utils.dependency_control"] = instead


class LangChainCache:
    """A LangChain cache asked as a chat model asks it; vectors play no part."""

    def __init__(self, name: str, cache: BaseCache) -> None:
        self.name = name
        self._cache = cache

    def get(self, question: str, vector: Any) -> object | None:
        found = self._cache.lookup(dumps([HumanMessage(question)]), LLM)
        return found[0].text if found else None

    def put(self, question: str, vector: Any, answer: str) -> None:
        generation = ChatGeneration(message=AIMessage(answer))
        self._cache.update(dumps([HumanMessage(question)]), LLM, [generation])


def langchain_memory() -> Rival:
    """Make LangChain's `InMemoryCache`."""
    return LangChainCache("langchain InMemoryCache", InMemoryCache())


def langchain_sqlite(path: Path) -> Rival:
    """Make langchain-community's `SQLiteCache` at a path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from langchain_community.cache import SQLiteCache
    warnings.filterwarnings("ignore", module=r"langchain_community\.cache")
    return LangChainCache("langchain SQLiteCache", SQLiteCache(str(path)))


def available() -> list[Offer]:
    """List every rival; those that are absent say why, or what to install."""
    return [
        Offer("cosine", CosineCache, "static threshold; make(threshold=0.85)"),
        Offer("serialised prompt", SerialisedPromptCache, "make(embed, system_prompt, distance=0.2)"),
        Offer("langchain InMemoryCache", langchain_memory, "exact only; make()"),
        _if_importable("langchain SQLiteCache", langchain_sqlite, "exact only; make(path)", "langchain_community"),
        _if_importable("gptcache", GPTCache, "make(threshold=0.8)", "gptcache", "faiss"),
        Offer("vcache", None, VCACHE),
    ]


def _if_importable(name: str, make: Callable[..., Rival], note: str, *modules: str) -> Offer:
    missing = [module for module in modules if find_spec(module) is None]
    return (
        Offer(name, None, f"absent ({', '.join(missing)}): run `make bench-setup`")
        if missing
        else Offer(name, make, note)
    )
