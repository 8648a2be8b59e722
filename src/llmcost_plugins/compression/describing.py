"""What doors share: the compressor that was asked for, and what a kept text says of itself."""

from collections.abc import Mapping
from typing import Any

from llmcost_plugins.compression.compressor import Compressor
from llmcost_plugins.compression.passages import CompressionResult, Kept
from llmcost_plugins.errors import ConfigurationError


def compressor_of(compressor: Any, settings: Mapping[str, Any]) -> Compressor:
    """Return the compressor as it is, or one with the settings.

    Raises:
        ConfigurationError: Both are given, a setting is unknown, or it is no compressor.
    """
    if compressor is None:
        try:
            return Compressor(**settings)
        except TypeError as error:
            raise ConfigurationError(f"`Compressor` does not take that: {error}") from error
    if settings:
        raise ConfigurationError(f"give a `compressor` or its settings ({', '.join(settings)}), not both")
    if not isinstance(compressor, Compressor):
        raise ConfigurationError(f"`compressor` is of type {type(compressor).__name__}; expected a `Compressor`")
    return compressor


def described(kept: Kept, result: CompressionResult) -> dict[str, Any]:
    """Return what a document's metadata says of its compression, as plain JSON."""
    return {
        "original_tokens": kept.original_tokens,
        "kept_tokens": kept.kept_tokens,
        "kept_spans": [list(span) for span in kept.spans],
        "scorer": result.scorer,
        "reason": result.reason,
        "score": kept.score,
    }
