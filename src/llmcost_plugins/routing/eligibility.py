"""Which tiers can answer a request at all: a hard yes or no, before anything is weighed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from llmcost_plugins.pricing import PriceBook, usd
from llmcost_plugins.tokens import count_messages, count_text
from llmcost_plugins.types import Message, Request, Tier, Usage

_IMAGES = frozenset({"image", "image_url", "input_image"})
_TOKENS_OF_AN_IMAGE = 1_500  # a full-size image costs about as much at OpenAI, Anthropic and Google
_TOKENS_OF_A_MESSAGE = 8  # role, separators and name, with room to spare
_MAX_OUTPUT = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
_JSON_FORMATS = frozenset({"json_schema", "json_object"})


@dataclass(frozen=True)
class Needs:
    """What a request asks of a model. `output` is how many tokens its answer may have."""

    request: Request = field(repr=False)
    output: int
    tools: bool
    images: int
    json_schema: bool

    @cached_property
    def at_most(self) -> int:
        """More tokens than the prompt can have: none is shorter than a byte."""
        size = sum(_bytes_of(message) for message in self.request.messages) + len(self._tools.encode())
        return size + _TOKENS_OF_A_MESSAGE * (len(self.request.messages) + 1) + self.images * _TOKENS_OF_AN_IMAGE

    def tokens(self, model: str) -> int:
        """Count the prompt, tools, their calls and images included, as a model reads it."""
        text = count_messages(self.request.messages, model).tokens
        written = self._tools + "".join(_calls_of(message) for message in self.request.messages)
        return text + (count_text(written, model).tokens if written else 0) + self.images * _TOKENS_OF_AN_IMAGE

    @cached_property
    def _tools(self) -> str:
        tools = self.request.params.get("tools")
        return json.dumps(tools, default=str) if tools else ""


def needs_of(request: Request, output_reserve: int) -> Needs:
    """Return what a request asks of a model; `output_reserve` stands for the answer where no limit is set."""
    settings = {**request.params, **_mapping(request.params.get("settings"))}
    limit = next((settings[name] for name in _MAX_OUTPUT if settings.get(name)), None)
    return Needs(
        request,
        output=limit if isinstance(limit, int) else output_reserve,
        tools=bool(settings.get("tools")),
        images=sum(1 for block in _blocks(request) if block.get("type", block.get("block_type")) in _IMAGES),
        json_schema=_mapping(settings.get("response_format")).get("type") in _JSON_FORMATS,
    )


def unfit(tier: Tier, needs: Needs, prices: PriceBook, now: float) -> str | None:
    """Say why a tier cannot answer, or None."""
    user_tier = needs.request.scope.user_tier
    if tier.user_tiers is not None and user_tier not in tier.user_tiers:
        return f"not open to user tier {user_tier!r}"
    for needed, can, what in (
        (needs.tools, tier.tools, "tools"),
        (needs.images, tier.vision, "images"),
        (needs.json_schema, tier.json_schema, "JSON schemas"),
    ):
        if needed and can is False:
            return f"takes no {what}"
    return _too_small(tier, needs) or _too_dear(tier, needs, prices, now)


def worst_case(tier: Tier, needs: Needs, prices: PriceBook, now: float) -> int | None:
    """Return the most that a call can cost, in pico-USD; None without a price."""
    usage = Usage(needs.tokens(tier.model_name), min(needs.output, tier.max_output_tokens or needs.output))
    cost = prices.cost(tier.provider, tier.model_name, usage, at=now, tenant=needs.request.scope.tenant)
    return None if cost is None else cost.total


def _too_small(tier: Tier, needs: Needs) -> str | None:
    window = tier.context_window
    if window is None:
        return None
    reserve = min(needs.output, tier.max_output_tokens or needs.output)
    if needs.at_most + reserve <= window:
        return None
    tokens = needs.tokens(tier.model_name)
    if tokens + reserve <= window:
        return None
    return f"a window of {window:,} tokens for {tokens:,} and {reserve:,} of output"


def _too_dear(tier: Tier, needs: Needs, prices: PriceBook, now: float) -> str | None:
    budget = needs.request.overrides.budget
    if budget is None:
        return None
    cost = worst_case(tier, needs, prices, now)
    if cost is None:
        return "no known price, and the request has a budget"
    return f"may cost ${float(usd(cost)):.6f} of a budget of ${float(usd(budget)):.6f}" if cost > budget else None


def _blocks(request: Request) -> Iterator[Mapping[str, Any]]:
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, list):
            yield from (block for block in content if isinstance(block, dict))


def _bytes_of(message: Message) -> int:
    """Return the bytes of what a model reads of a message; images count by their number."""
    content = message.get("content")
    text = content if isinstance(content, str) else "\n".join(_read(block) for block in content or ())
    return len(text.encode("utf-8", "surrogatepass")) + len(_calls_of(message))


def _calls_of(message: Message) -> str:
    """Return the tools that an earlier answer called; models read them as a part of the prompt."""
    calls = message.get("tool_calls")
    return json.dumps(calls, default=str) if calls else ""


def _read(block: Any) -> str:
    if isinstance(block, dict) and block.get("type", block.get("block_type")) in _IMAGES:
        return ""
    return block if isinstance(block, str) else json.dumps(block, default=str, ensure_ascii=False)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
