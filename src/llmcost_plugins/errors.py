"""The errors of the package.

```
LLMCostError
├── ConfigurationError (ValueError)     a setting that cannot work; the text names the remedy
│   └── MissingExtra (ImportError)      an optional dependency is absent; the text is a command to paste
├── RequestFailed                       a request of a replay failed; the text says which, its cause is chained
├── InvalidUsage (ValueError)           token counts that cannot be true
├── TrafficError (ValueError)           a broken line of a traffic or log file, with file, line and what was expected
├── CorruptStore                        a store's file was damaged and set aside; the next use begins a new one
├── CorruptEntry (ValueError)           a stored answer that fails its checksum or format; the cache counts it as a miss
├── NoEligibleTier                      no tier can answer the request; the text says of each why not
└── NoTierAnswered (ExceptionGroup)     every tier failed; holds each tier's own error
```
"""

from collections.abc import Sequence
from typing import Self


class LLMCostError(Exception):
    """Base of every error that this package raises on its own account."""


class ConfigurationError(LLMCostError, ValueError):
    """A setting that cannot work."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'`{package}` is not installed. Run: pip install "llmcost-plugins[{extra}]"')
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.package, self.extra)


class RequestFailed(LLMCostError):
    """A request of a replay failed."""


class InvalidUsage(LLMCostError, ValueError):
    """Token counts that cannot be true, such as negative ones or more cached than read."""


class TrafficError(LLMCostError, ValueError):
    """A broken line of a traffic or log file."""

    def __init__(self, path: str, line: int, expected: str) -> None:
        super().__init__(f"{path}, line {line}: {expected}")
        self.path = path
        self.line = line
        self.expected = expected

    def __reduce__(self) -> tuple[type[Self], tuple[str, int, str]]:
        return type(self), (self.path, self.line, self.expected)


class CorruptStore(LLMCostError):
    """A store's file was damaged and has been set aside."""


class CorruptEntry(LLMCostError, ValueError):
    """A stored answer that fails its checksum or does not have the expected form."""


class NoEligibleTier(LLMCostError):
    """No tier can answer the request: too small a window, no tools, not open to the user, over the budget ..."""


class NoTierAnswered(LLMCostError, ExceptionGroup[Exception]):
    """Every tier failed."""

    def __new__(cls, message: str, errors: Sequence[Exception]) -> Self:
        """Build the group; an `ExceptionGroup` takes its members in `__new__`."""
        return super().__new__(cls, message, errors)

    def derive(self, errors: Sequence[Exception], /) -> "NoTierAnswered":  # type: ignore[override]
        """Return a group of the same kind around other errors, as `except*` and `split` need it."""
        return NoTierAnswered(self.message, errors)
