"""Context variables that are set for a block."""

from contextlib import suppress
from contextvars import ContextVar, Token
from typing import TypeVar

T = TypeVar("T")


def restore(variable: ContextVar[T], token: Token[T]) -> None:
    """Undo a `set`, unless the block ends in another context than it began in.

    Servers step through generators in a new context each time; what was set in one is gone with it.
    """
    with suppress(ValueError):
        variable.reset(token)
