"""What goes first when room is needed."""

from math import log2

HALVED_AFTER = 86_400.0  # seconds


def worth(value: int, hits: int, used: float) -> float:
    """Return the rank of an entry: what its hits save, halved for every day since it was last `used`.

    A logarithm, so that it need not be reckoned anew as time passes: all ranks would sink alike. Without a value, the
    last use decides.
    """
    return log2(max(value, 1) * (1 + hits)) + used / HALVED_AFTER
