"""What the tests of stores share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.stores import SQLite


@pytest.fixture
def opened() -> Iterator[Callable[..., SQLite]]:
    """Open stores that are closed in the end."""
    stores: list[SQLite] = []

    def open_(path: Path, **options: Any) -> SQLite:
        stores.append(SQLite(path, **options))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()
