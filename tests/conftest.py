"""What every test starts from."""

from collections.abc import Iterator

import pytest
from langchain_core.globals import set_llm_cache


@pytest.fixture(autouse=True)
def _no_global_cache() -> Iterator[None]:
    yield
    set_llm_cache(None)
