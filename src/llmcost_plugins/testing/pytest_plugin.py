"""The `fake_provider` fixture, which pytest finds by itself once the package is installed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from llmcost_plugins.testing.fake_provider import FakeProvider


@pytest.fixture
def fake_provider() -> "Iterator[FakeProvider]":
    """A running `FakeProvider` with its defaults that keeps no connections open."""
    from llmcost_plugins.testing.fake_provider import FakeProvider

    with FakeProvider(keep_alive=False) as provider:
        yield provider
