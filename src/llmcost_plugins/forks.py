"""What must be made anew in a forked process: a lock that another thread held at that moment has no owner there."""

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_renewals: "WeakKeyDictionary[Any, Callable[[Any], None]]" = WeakKeyDictionary()


def after_fork(owner: T, renew: Callable[[T], None]) -> None:
    """Have `renew(owner)` called in every process forked from now on, as long as the owner lives."""
    _renewals[owner] = renew


def _renew() -> None:
    for owner, renew in list(_renewals.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
