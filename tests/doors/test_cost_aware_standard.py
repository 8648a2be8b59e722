"""LangChain's standard tests for chat models, run on `CostAwareChatModel` in front of a fake provider.

Those with images, sounds and PDF files are off because they fetch the files from the internet.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from llmcost_plugins import Deployment, Tier
from llmcost_plugins.langchain import CostAwareChatModel
from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.testing.generation import default_answer, last_user_text


def answer(model: str, messages: list[dict[str, Any]]) -> str:
    """JSON mode comes without a schema: the standard test names the keys in its question."""
    if "'setup' and 'punchline' keys" in last_user_text(messages):
        return json.dumps({"setup": "What do cats drink?", "punchline": "Nine lives' worth of milk."})
    return default_answer(model, messages)


def tiers(url: str) -> list[ChatOpenAI]:
    given: dict[str, Any] = {"base_url": url, "api_key": "any", "stream_usage": True, "max_retries": 0}
    return [ChatOpenAI(model=name, **given) for name in ("gpt-5.4-mini", "gpt-5.4")]


def mixed(url: str) -> list[Tier]:
    """Return two deployments of OpenAI's model, and Anthropic's."""
    small, twin = (tiers(url)[0] for _ in range(2))
    claude = ChatAnthropic(model="claude-haiku-4-5", base_url=url.removesuffix("/v1"), api_key="any")
    return [Tier("small", deployments=[small, Deployment(twin, "twin", weight=2)]), Tier("claude", claude)]


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return CostAwareChatModel

    @property
    def chat_model_params(self) -> dict:
        return {"tiers": tiers("http://127.0.0.1:9/v1"), "cache": True}


class TestUnitOfTwoProviders(TestUnit):
    @property
    def chat_model_params(self) -> dict:
        return {"tiers": mixed("http://127.0.0.1:9/v1")}


class Integration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def provider(cls) -> Iterator[FakeProvider]:
        with FakeProvider(answer, reasoning_tokens=7, keep_alive=False) as provider:
            cls.provider_url = provider.url
            yield provider

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return CostAwareChatModel

    @property
    def chat_model_params(self) -> dict:
        return {"tiers": tiers(self.provider_url)}

    @property
    def model_override_value(self) -> str:
        return "gpt-5.4-nano"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict:
        details = ["reasoning_output", "cache_read_input"]
        return {"invoke": details, "stream": details}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._invoke("Think hard.", stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        self._invoke("A long text. " * 500, stream=stream)
        return self._invoke("A long text. " * 500, stream=stream)

    def _invoke(self, text: str, *, stream: bool) -> AIMessage:
        model = CostAwareChatModel(**self.chat_model_params)
        if not stream:
            return model.invoke(text)
        first, *rest = model.stream(text)
        return sum(rest, start=first)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")
class TestTiers(Integration):
    """Two tiers, no cache."""


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")
class TestOneTierWithCache(Integration):
    """One tier, and a cache of each test's own."""

    @property
    def chat_model_params(self) -> dict:
        return {"model": tiers(self.provider_url)[0], "cache": True}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")
class TestTwoProviders(Integration):
    """Two deployments of one provider's model, and another provider's."""

    @property
    def chat_model_params(self) -> dict:
        return {"tiers": mixed(self.provider_url)}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")
class TestTwoProvidersTheOtherFirst(Integration):
    """The same the other way round, so that Anthropic's model answers what is easy."""

    @property
    def chat_model_params(self) -> dict:
        return {"tiers": [*reversed(mixed(self.provider_url))]}

    @property
    def supported_usage_metadata_details(self) -> dict:
        return {"invoke": [], "stream": []}  # Anthropic reports no reasoning, and caches what is marked alone


del Integration
