"""Whose request this is, set once at its edge."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from llmcost_plugins.context import restore
from llmcost_plugins.types import Scope

_current: ContextVar[Scope] = ContextVar("llmcost_scope", default=Scope())
_FIELDS = frozenset(Scope._fields)


@contextmanager
def scope(
    *, tenant: str | None = None, user: str | None = None, feature: str | None = None, user_tier: str | None = None
) -> Iterator[Scope]:
    """Say whose requests the block makes: costs are attributed to it and caches kept apart by its tenant.

    Names left out keep the value of an enclosing `scope`. Threads need `contextvars.copy_context`, tasks inherit it.
    """
    given = {"tenant": tenant, "user": user, "feature": feature, "user_tier": user_tier}
    token = _current.set(_current.get()._replace(**{k: str(v) for k, v in given.items() if v is not None}))
    try:
        yield _current.get()
    finally:
        restore(_current, token)


@contextmanager
def within(scope_: Scope) -> Iterator[None]:
    """Put a scope in force that was captured before."""
    token = _current.set(scope_)
    try:
        yield
    finally:
        restore(_current, token)


def current_scope(metadata: Mapping[str, Any] | None = None) -> Scope:
    """Return the scope in force, with `tenant`, `user`, `feature` and `user_tier` of `metadata` laid over it."""
    scope_ = _current.get()
    return overlaid(scope_, metadata) if metadata else scope_


def overlaid(scope_: Scope, metadata: Mapping[str, Any] | None) -> Scope:
    """Return a scope with what `metadata` says of it."""
    if not metadata or metadata.keys().isdisjoint(_FIELDS):
        return scope_
    return scope_._replace(**{name: str(metadata[name]) for name in _FIELDS if metadata.get(name) is not None})
