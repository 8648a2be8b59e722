"""LangChain's chat models as tiers: what prices go by, what they can do, and who retries."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.model_profile import ModelProfile

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.types import Deployment, Tier

_ABILITIES = {  # what a `Tier` says of its model, by LangChain's names
    "context_window": "max_input_tokens",
    "max_output_tokens": "max_output_tokens",
    "tools": "tool_calling",
    "vision": "image_inputs",
    "json_schema": "structured_output",  # models without it may still know JSON mode
}
_CLIENTS = (("root_client", "client"), ("root_async_client", "async_client"))  # of langchain-openai and its kin


def prepared(models: Sequence[Any], *, cached: bool, output_version: str | None) -> list[Tier]:
    """Return tiers with the names that prices go by, over models that take the door's settings.

    A door with a cache setting of its own calls models that ask no other cache. The models' own retries are set to 0:
    the router retries, elsewhere if it can, and counts.
    """
    settings: dict[str, Any] = {"cache": False} if cached else {}
    if output_version is not None:
        settings["output_version"] = output_version
    return [_prepare(model if isinstance(model, Tier) else Tier("", model), settings) for model in models]


def profile_of(tiers: Sequence[Tier]) -> ModelProfile | None:
    """Return what holds for every tier: the smallest limits, and only what all can do."""
    profiles = [_profile(tier, model) for tier in tiers for model in tier.models]
    if len(profiles) == 1:
        return profiles[0] or None  # type: ignore[return-value]
    shared = set(profiles[0]).intersection(*profiles[1:])
    merged = {name: _least([profile[name] for profile in profiles]) for name in sorted(shared)}
    if len({provider for tier in tiers for provider in _providers(tier)}) > 1:
        merged["structured_output"] = None  # what providers take for it differs
    return {name: value for name, value in merged.items() if value is not None} or None  # type: ignore[return-value]


def _prepare(tier: Tier, settings: Mapping[str, Any]) -> Tier:
    if tier.deployments:
        deployments = tuple(_deployment(tier, one, settings) for one in tier.deployments)
        first = deployments[0]
        tier = replace(
            tier,
            deployments=deployments,
            provider=tier.provider or first.provider,
            model_name=tier.model_name or first.model_name,
        )
    else:
        model = _ready(tier, tier.model, settings)
        tier = replace(
            tier,
            model=model,
            provider=tier.provider or _provider(model),
            model_name=tier.model_name or _name(model),
        )
    return _with_abilities(replace(tier, name=tier.name or tier.model_name))


def _deployment(tier: Tier, one: Deployment, settings: Mapping[str, Any]) -> Deployment:
    model = _ready(tier, one.model, settings)
    provider = one.provider or tier.provider or _provider(model)
    return replace(one, model=model, provider=provider, model_name=one.model_name or tier.model_name or _name(model))


def _with_abilities(tier: Tier) -> Tier:
    """Return the tier with what its models' profiles say of them, where it says nothing itself."""
    profile: Mapping[str, Any] = profile_of([tier]) or {}
    known: dict[str, Any] = {name: profile.get(said) for name, said in _ABILITIES.items() if name != "json_schema"}
    return replace(tier, **known)


def _profile(tier: Tier, model: BaseChatModel) -> dict[str, Any]:
    """Return a model's profile, with what its tier says in place of what it says itself."""
    own = {said: getattr(tier, name) for name, said in _ABILITIES.items()}
    return {**(model.profile or {}), **{name: value for name, value in own.items() if value is not None}}


def _providers(tier: Tier) -> list[str]:
    return [deployment.provider for deployment in tier.deployments] or [tier.provider]


def _ready(tier: Tier, model: Any, settings: Mapping[str, Any]) -> BaseChatModel:
    if not isinstance(model, BaseChatModel):
        raise ConfigurationError(f"tier {tier.name or model!r} is not a LangChain chat model")
    if getattr(model, "is_cost_aware", False):
        raise ConfigurationError("a tier is a `CostAwareChatModel` itself; pass the models that it is made of")
    copy = model.model_copy(update=dict(settings))
    _stop_retries(copy)
    made = {
        name for kind in type(copy).__mro__ for name, value in vars(kind).items() if isinstance(value, cached_property)
    }
    for name in made:
        copy.__dict__.pop(name, None)  # made of the original's settings
    return copy


def _stop_retries(model: Any) -> None:
    """Have a model's client raise at once what it would retry."""
    roots = [(root, used) for root, used in _CLIENTS if _uses(model, root, used)]
    for root, used in roots:
        setattr(model, root, getattr(model, root).with_options(max_retries=0))
        setattr(model, used, getattr(model, root).chat.completions)
    if not roots and "max_retries" in type(model).model_fields:
        model.max_retries = 0


def _uses(model: Any, root: str, used: str) -> bool:
    client = getattr(model, root, None)
    return client is not None and getattr(getattr(model, used, None), "_client", None) is client


def _least(values: Sequence[Any]) -> Any:
    """Return what all values allow: the smallest number, True only if all are; None where they are something else."""
    if all(isinstance(value, bool) for value in values):
        return all(values)
    if all(isinstance(value, int) for value in values):
        return min(values)
    return values[0] if all(value == values[0] for value in values) else None


def _provider(model: BaseChatModel) -> str:
    return str(model._get_ls_params().get("ls_provider", ""))


def _name(model: BaseChatModel) -> str:
    return str(model._get_ls_params().get("ls_model_name") or model._llm_type)
