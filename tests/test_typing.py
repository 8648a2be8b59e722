"""Type hints of the public names resolve at run time, as frameworks and notebooks read them."""

import inspect
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest

import llmcost_plugins
import llmcost_plugins.langchain
import llmcost_plugins.llamaindex


def public() -> Iterator[tuple[str, Any]]:
    for module in (llmcost_plugins, llmcost_plugins.langchain, llmcost_plugins.llamaindex):
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)


def members(owner: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(owner).items():
        if (name.startswith("_") and name != "__init__") or name == "model_post_init":  # pydantic makes the latter
            continue
        if isinstance(member, property):
            yield name, member.fget
        elif isinstance(member, classmethod | staticmethod):
            yield name, member.__func__
        elif inspect.isfunction(member):
            yield name, member


def hinted() -> Iterator[tuple[str, Any]]:
    for name, found in public():
        yield name, found
        if inspect.isclass(found):
            for member, function in members(found):
                yield f"{name}.{member}", function


@pytest.mark.parametrize("name", sorted({name for name, _ in hinted()}))
def test_hints_resolve(name: str) -> None:
    hints = get_type_hints(dict(hinted())[name])
    assert all(hint is not None for hint in hints.values())


def test_functions_say_what_they_take_and_return() -> None:
    bare = [
        f"{name}: {parameter}"
        for name, found in hinted()
        if inspect.isfunction(found)
        for parameter in [*inspect.signature(found).parameters, "return"]
        if parameter not in ("self", "cls")
        and parameter not in found.__annotations__
        and not hasattr(found, "__wrapped__")
    ]
    assert bare == []
