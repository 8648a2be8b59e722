"""Stores by URL, so that moving to another is one word."""

from urllib.parse import unquote, urlsplit

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.stores.memory import Memory
from llmcost_plugins.stores.sqlite import SQLite
from llmcost_plugins.types import Store

_KNOWN = "`memory://` and `sqlite:///path/to/file`"


def connect(store: Store | str | None) -> Store:
    """Return the store that a URL names; a store stays as it is, and None is memory.

    `sqlite:///cache.db` is a file in the working folder, `sqlite:////var/cache.db` one by its whole path.
    """
    if store is None:
        return Memory()
    if not isinstance(store, str):
        return store
    url = urlsplit(store)
    if url.scheme == "memory":
        return Memory()
    if url.scheme == "sqlite" and not url.netloc and len(url.path) > 1:
        return SQLite(unquote(url.path[1:]))
    raise ConfigurationError(f"`store` is {store!r}; expected a store or one of {_KNOWN}")
