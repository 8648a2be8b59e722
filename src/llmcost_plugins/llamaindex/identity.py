"""What several LLMs are as one: what identifies them, and what all of them can do."""

import json
import re
from collections.abc import Sequence
from copy import copy
from typing import Any

from llama_index.core.base.llms.types import LLMMetadata, MessageRole
from llama_index.core.constants import DEFAULT_NUM_OUTPUTS
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing import Router
from llmcost_plugins.types import Tier

# how prompts are made before they reach `chat` and `complete`: what tiers ask for must hold for all of them
_SHARED = ("system_prompt", "query_wrapper_prompt", "output_parser")
_FORMATTERS = ("messages_to_prompt", "completion_to_prompt", "pydantic_program_mode")
_SECRET = re.compile(r"key|token$|secret|password|credential|headers|auth", re.IGNORECASE)
_NOT_ANSWERING = frozenset({"timeout", "max_retries", "reuse_client", "verbose"})


class Identity:
    """What identifies the LLMs of a router, found anew only when a setting of theirs has changed."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._known: tuple[list[dict[str, Any]], str] = ([], "")

    def __call__(self) -> str:
        """Return the identity in plain JSON."""
        settings = [_settings(model) for tier in self._router.tiers for model in tier.models]
        known, identity = self._known
        if known != settings:
            models = [[describe(model) for model in tier.models] for tier in self._router.tiers]
            identity = json.dumps([models, self._router.describe()])
            self._known = settings, identity
        return identity


def describe(llm: LLM) -> str:
    """Return what identifies an LLM and its parameters; keys and headers are no part of it."""
    kind = type(llm)
    fields = {name: getattr(llm, name) for name, field in kind.model_fields.items() if not field.exclude}
    answering = {name: value for name, value in fields.items() if _bears_on_answers(name)}
    prompts = [_name_of(llm.messages_to_prompt), _name_of(llm.completion_to_prompt)]
    named = f"{kind.__module__}.{kind.__qualname__}"
    return repr((named, answering, prompts, llm.metadata.model_dump()))


def merged(tiers: Sequence[Tier]) -> LLMMetadata:
    """Return what holds for every tier: the smallest window, and only what all can do."""
    all_ = [model.metadata for tier in tiers for model in tier.models]
    if len(all_) == 1:
        return _checked(tiers[0].models[0], all_[0])
    window = min(one.context_window for one in all_)
    # LlamaIndex fills prompts up to the window less the output; so filled, they must fit the tier with the least room
    room = min(one.context_window - _output(one) for one in all_)
    roles = {one.system_role for one in all_}
    return LLMMetadata(
        context_window=window,
        num_output=window - room,
        is_chat_model=all(one.is_chat_model for one in all_),
        is_function_calling_model=all(map(calls_functions, tiers)),
        model_name=" -> ".join(tier.name for tier in tiers),
        system_role=roles.pop() if len(roles) == 1 else MessageRole.SYSTEM,
    )


def calls_functions(tier: Tier) -> bool:
    """Tell whether a tier takes tools."""
    return all(
        isinstance(model, FunctionCallingLLM) and model.metadata.is_function_calling_model for model in tier.models
    )


def shared_settings(tiers: Sequence[Tier], given: Sequence[str]) -> dict[str, Any]:
    """Return how the tiers would have prompts made; formats are the strongest tier's where they differ."""
    for name in _SHARED:
        asked = [getattr(model, name) for tier in tiers for model in tier.models]
        if name not in given and any(value != asked[0] for value in asked):
            raise ConfigurationError(
                f"the tiers differ in `{name}`; pass the one for all: CostAwareLLM(..., {name}=...)"
            )
    strongest = tiers[-1].models[-1]
    names = (*_SHARED, *_FORMATTERS, "callback_manager")
    return {name: getattr(strongest, name) for name in names if name not in given}


def _checked(llm: LLM, metadata: LLMMetadata) -> LLMMetadata:
    """Return the metadata of a single LLM, without the function calling that it has no methods for."""
    if isinstance(llm, FunctionCallingLLM) or not metadata.is_function_calling_model:
        return metadata
    return metadata.model_copy(update={"is_function_calling_model": False})


def _settings(llm: LLM) -> dict[str, Any]:
    """Return a copy of an LLM's settings, so that a dict among them that is changed in place is seen to be."""
    return {name: copy(value) if isinstance(value, dict | list) else value for name, value in vars(llm).items()}


def _output(metadata: LLMMetadata) -> int:
    return metadata.num_output if metadata.num_output > 0 else DEFAULT_NUM_OUTPUTS


def _bears_on_answers(name: str) -> bool:
    return name not in _NOT_ANSWERING and not _SECRET.search(name)


def _name_of(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
