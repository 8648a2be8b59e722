"""LangChain's standard tests for `ChatOpenAI` and `ChatAnthropic`, driven against a fake provider.

Those with images, sounds and PDF files are off because they fetch the files from the internet.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.testing.generation import default_answer, last_user_text


def answer(model: str, messages: list[dict[str, Any]]) -> str:
    """JSON mode comes without a schema: the standard test names the keys in its question."""
    if "'setup' and 'punchline' keys" in last_user_text(messages):
        return json.dumps({"setup": "What do cats drink?", "punchline": "Nine lives' worth of milk."})
    return default_answer(model, messages)


# `with_structured_output` makes pydantic warn about `parsed`, and langchain-openai about pydantic 1 models.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")
class TestChatOpenAI(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def provider(cls) -> Iterator[FakeProvider]:
        with FakeProvider(answer, reasoning_tokens=7, keep_alive=False) as provider:
            cls.provider_url = provider.url
            yield provider

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict:
        return {
            "model": "gpt-5.4-mini",
            "base_url": self.provider_url,
            "api_key": "any",
            "stream_usage": True,
            "max_retries": 0,
        }

    @property
    def model_override_value(self) -> str:
        return "gpt-5.4"

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
        model = ChatOpenAI(**self.chat_model_params)
        if not stream:
            return model.invoke(text)
        first, *rest = model.stream(text)
        return sum(rest, start=first)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
class TestChatAnthropic(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def provider(cls) -> Iterator[FakeProvider]:
        with FakeProvider(keep_alive=False) as provider:
            cls.provider_url = provider.root_url
            yield provider

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatAnthropic

    @property
    def chat_model_params(self) -> dict:
        return {"model": "claude-haiku-4-5", "base_url": self.provider_url, "api_key": "any", "max_retries": 0}

    @property
    def model_override_value(self) -> str:
        return "claude-sonnet-4-6"

    @property
    def supported_usage_metadata_details(self) -> dict:
        details = ["cache_read_input", "cache_creation_input"]
        return {"invoke": details, "stream": details}

    def invoke_with_cache_creation_input(self, *, stream: bool = False) -> AIMessage:
        return self._invoke(f"A long text, streamed: {stream}. " * 500, stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        self.invoke_with_cache_creation_input(stream=stream)
        return self.invoke_with_cache_creation_input(stream=stream)

    def _invoke(self, text: str, *, stream: bool) -> AIMessage:
        model = ChatAnthropic(**self.chat_model_params)
        content = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
        if not stream:
            return model.invoke([HumanMessage(content)])
        first, *rest = model.stream([HumanMessage(content)])
        return sum(rest, start=first)
