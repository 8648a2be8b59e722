"""What every test starts from."""

from collections.abc import Iterator

import pytest
from langchain_core.globals import set_llm_cache

from llmcost_plugins.plan import Step
from llmcost_plugins.routing import router


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that routers would have waited; nothing waits in tests."""
    waited: list[float] = []
    monkeypatch.setattr(router, "_pause", lambda seconds: Step(lambda: waited.append(seconds)))
    return waited


@pytest.fixture(autouse=True)
def _no_global_cache() -> Iterator[None]:
    yield
    set_llm_cache(None)
