"""What a LlamaIndex response says of its making: tokens, model, price and how it ended, in any provider's words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from llmcost_plugins.flow import finish_named
from llmcost_plugins.pricing import STANDARD, Context
from llmcost_plugins.types import Finish, Usage

Native: TypeAlias = ChatResponse | CompletionResponse

_READ = ("prompt_tokens", "input_tokens", "prompt_token_count", "inputTokens", "prompt_eval_count")
_WRITTEN = ("completion_tokens", "output_tokens", "candidates_token_count", "outputTokens", "eval_count")
_READ_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_WRITTEN_DETAILS = ("completion_tokens_details", "output_tokens_details")
_UNCOUNTED_READ = ("cache_read_input_tokens", "cacheReadInputTokens")
_UNCOUNTED_WRITE = ("cache_creation_input_tokens", "cacheWriteInputTokens")
_SAID_BY = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
_PLACES = ("choices", "candidates")


def usage_of(responses: Sequence[Native]) -> Usage | None:
    """Return the tokens that a response, or the chunks of one, report; None where none were reported.

    Streams report at the end, at the start and the end, or a growing count with every chunk: the greatest of each
    count is right for all.
    """
    found = [usage for response in responses if (usage := _reported(response)) is not None]
    if not found:
        return None
    return Usage(*(max(counts) for counts in zip(*(usage[:-1] for usage in found), strict=True)))


def finish_of(responses: Sequence[Native]) -> Finish | None:
    """Return how an answer ended, None for one that broke off.

    A model that never says how it ended (local and scripted ones) is taken to have stopped; one whose replies have a
    place for that and leave it empty has broken off.
    """
    for response in reversed(responses):
        for source in _sources(response):
            if said := next((value for name in _SAID_BY if (value := get(source, name))), None):
                return finish_named(getattr(said, "name", said))
    silent = responses and not any(_has_a_place(response) for response in responses)
    return "stop" if silent else None


def model_of(responses: Sequence[Native]) -> str:
    """Return the name under which the provider says that it answered, or nothing."""
    names = (get(response.raw, name) for response in reversed(responses) for name in ("model", "model_version"))
    return next((name for name in names if isinstance(name, str)), "")


def price_context(responses: Sequence[Native]) -> Context:
    """Return what else the price of a call depends on: the service tier that the provider reports."""
    tiers = [get(response.raw, "service_tier") for response in responses]
    return next(((("service_tier", tier),) for tier in reversed(tiers) if tier in ("flex", "priority")), STANDARD)


def get(source: Any, name: str) -> Any:
    """Return a field of a provider's object or dict, None where there is none."""
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def _reported(response: Native) -> Usage | None:
    for source in _usage_sources(response):
        if source is not None and (usage := _usage(source)) is not None:
            return usage
    return None


def _usage_sources(response: Native) -> Iterator[Any]:
    raw = response.raw
    yield from (get(raw, "usage"), get(raw, "usage_metadata"), get(get(raw, "message"), "usage"))
    yield raw if isinstance(raw, Mapping) else None
    yield from (response.additional_kwargs, response.additional_kwargs.get("usage"))
    if isinstance(response, ChatResponse):
        yield response.message.additional_kwargs.get("usage")


def _usage(source: Any) -> Usage | None:
    read, written = _first(source, *_READ), _first(source, *_WRITTEN)
    if read is None and written is None:
        return None
    read_details, written_details = _first(source, *_READ_DETAILS), _first(source, *_WRITTEN_DETAILS)
    uncounted, stored = _count(source, *_UNCOUNTED_READ), _count(source, *_UNCOUNTED_WRITE)
    thoughts = _count(source, "thoughts_token_count")
    return Usage(
        input_tokens=(read or 0) + uncounted + stored,
        output_tokens=(written or 0) + thoughts,
        cached_tokens=uncounted
        or _count(read_details, "cached_tokens")
        or _count(source, "cached_content_token_count"),
        cache_write_tokens=stored,
        cache_write_1h_tokens=_count(get(source, "cache_creation"), "ephemeral_1h_input_tokens"),
        reasoning_tokens=thoughts or _count(written_details, "reasoning_tokens"),
        input_audio_tokens=_count(read_details, "audio_tokens"),
        output_audio_tokens=_count(written_details, "audio_tokens"),
    )


def _first(source: Any, *names: str) -> Any:
    return next((value for name in names if (value := get(source, name)) is not None), None)


def _count(source: Any, *names: str) -> int:
    return _first(source, *names) or 0


def _sources(response: Native) -> Iterator[Any]:
    """Yield the places where a response may say how it ended, the surest first."""
    raw = response.raw
    for name in _PLACES:
        yield from get(raw, name) or ()
    if isinstance(response, ChatResponse):
        yield response.message.additional_kwargs
    yield from (get(raw, "delta"), raw, response.additional_kwargs)


def _has_a_place(response: Native) -> bool:
    """Tell whether a response is of a kind that says how it ended, as OpenAI's and Anthropic's do."""
    raw = response.raw
    kind = get(raw, "type")
    of_anthropic = isinstance(kind, str) and kind.startswith(("message", "content_block"))
    return of_anthropic or any(get(raw, name) is not None for name in _PLACES)
