"""Whose request it is: nesting, and what inherits it."""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from llmcost_plugins.scope import current_scope, scope
from llmcost_plugins.types import Scope

TENANT = UUID("00000000-0000-4000-8000-000000000001")


def test_outside_of_any_scope_nothing_is_known() -> None:
    assert current_scope() == Scope()
    assert current_scope({}) == Scope()


def test_inner_scopes_add_to_outer_ones() -> None:
    with scope(tenant="acme", feature="chat") as outer:
        assert outer == current_scope() == Scope("acme", None, "chat")
        with scope(user="u1", feature="search", user_tier="pro") as inner:
            assert inner == current_scope() == Scope("acme", "u1", "search", "pro")
        assert current_scope() == outer
    assert current_scope() == Scope()


def test_an_exception_ends_a_scope_and_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), scope(tenant="acme"), scope(user="u1"):
        _ = 1 / 0
    assert current_scope() == Scope()


def test_a_function_may_be_scoped() -> None:
    @scope(tenant="acme")
    def asked() -> Scope:
        return current_scope()

    assert asked() == asked() == Scope("acme")
    assert current_scope() == Scope()


def test_names_are_required() -> None:
    with pytest.raises(TypeError):
        scope("acme")  # type: ignore[misc]


async def test_tasks_inherit_the_scope_and_keep_their_own() -> None:
    async def ask(user: str) -> Scope:
        with scope(user=user):
            await asyncio.sleep(0)
            return current_scope()

    with scope(tenant="acme"):
        found = await asyncio.gather(*(asyncio.create_task(ask(f"u{n}")) for n in range(10)))
        assert current_scope() == Scope("acme")
    assert found == [Scope("acme", f"u{n}") for n in range(10)]


async def test_to_thread_inherits_the_scope() -> None:
    with scope(tenant="acme"):
        assert await asyncio.to_thread(current_scope) == Scope("acme")


def test_threads_need_the_context_copied() -> None:
    with scope(tenant="acme"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(contextvars.copy_context().run, current_scope).result() == Scope("acme")
        assert pool.submit(current_scope).result() == Scope()


def test_metadata_lies_over_the_scope() -> None:
    with scope(tenant="acme", user="u1"):
        assert current_scope({"user": "u2", "feature": "chat", "unrelated": 1}) == Scope("acme", "u2", "chat")
        assert current_scope({"unrelated": 1}) == Scope("acme", "u1")
        assert current_scope({"user": None}) == Scope("acme", "u1")
        assert current_scope() == Scope("acme", "u1")


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (TENANT, str(TENANT)), (0, "0"), (True, "True")])
def test_values_in_metadata_become_text(value: Any, text: str) -> None:
    assert current_scope({"tenant": value}) == Scope(text)


@pytest.mark.parametrize("value", [7, TENANT])
def test_a_tenant_is_the_same_by_scope_and_by_metadata(value: Any) -> None:
    with scope(tenant=value) as found:
        assert found == current_scope({"tenant": value}) == Scope(str(value))
