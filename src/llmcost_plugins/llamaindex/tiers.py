"""LlamaIndex's LLMs as tiers: what prices go by, what they can do, and who retries."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.llm import LLM

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.types import Deployment, Tier

_CLIENTS = ("_client", "_aclient")


def prepared(models: Sequence[Any]) -> list[Tier]:
    """Return tiers with the names that prices go by.

    The LLMs' own retries are set to 0: the router retries, elsewhere if it can, and counts.
    """
    return [_prepare(model if isinstance(model, Tier) else Tier("", model)) for model in models]


def _prepare(tier: Tier) -> Tier:
    if tier.deployments:
        deployments = tuple(_deployment(tier, one) for one in tier.deployments)
        tier = replace(tier, deployments=deployments)
        provider, named = deployments[0].provider, deployments[0].model_name
    else:
        tier = replace(tier, model=_ready(tier, tier.model))
        provider, named = _provider(tier.model), tier.model.metadata.model_name
    named = tier.model_name or named
    window = tier.context_window or _window(tier)
    return replace(
        tier,
        name=tier.name or named,
        provider=tier.provider or provider,
        model_name=named,
        context_window=window,
    )


def _deployment(tier: Tier, one: Deployment) -> Deployment:
    llm = _ready(tier, one.model)
    named = one.model_name or tier.model_name or llm.metadata.model_name
    return replace(one, model=llm, provider=one.provider or tier.provider or _provider(llm), model_name=named)


def _ready(tier: Tier, llm: Any) -> LLM:
    if not isinstance(llm, LLM):
        raise ConfigurationError(
            f"tier {tier.name or llm!r} is not a LlamaIndex LLM; pass an object such as OpenAI(model=...)"
        )
    if getattr(llm, "is_cost_aware", False):
        raise ConfigurationError("a tier is a `CostAwareLLM` itself; pass the LLMs that it is made of")
    return _without_retries(llm) if "max_retries" in type(llm).model_fields else llm


def _without_retries(llm: LLM) -> LLM:
    """Return an LLM that raises at once what it would retry; a client that it has already is shared."""
    copy = llm.model_copy(update={"max_retries": 0})
    for name in _CLIENTS:
        client: Any = getattr(copy, name, None)
        if hasattr(client, "with_options"):
            setattr(copy, name, client.with_options(max_retries=0))
    return copy


def _window(tier: Tier) -> int | None:
    """Return the smallest window of a tier's LLMs; LlamaIndex's default stands for one that is not known."""
    windows = [model.metadata.context_window for model in tier.models]
    return min((window for window in windows if window != DEFAULT_CONTEXT_WINDOW), default=None)


def _provider(llm: LLM) -> str:
    """Return the provider after the integration's package: `llama_index.llms.openai` is `openai`."""
    for kind in type(llm).__mro__:
        names = kind.__module__.split(".")
        if names[:2] == ["llama_index", "llms"] and len(names) > 2:
            return names[2]
    return ""
