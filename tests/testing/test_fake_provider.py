import json
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any

import anthropic
import httpx
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

from llmcost_plugins.errors import ConfigurationError, MissingExtra
from llmcost_plugins.testing import Failure, FakeProvider, Latency, Limits, PortInUse
from llmcost_plugins.testing.sample_json import sample

GPT = "gpt-5.4-mini"
CLAUDE = "claude-haiku-4-5"
KEY = {"authorization": "Bearer any"}
LONG_TEXT = "The contract says a great many things at length. " * 200


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(keep_alive=False) as provider:
        yield provider


def gpt(provider: FakeProvider, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": GPT, "base_url": provider.url, "api_key": "any", "max_retries": 0, **options})


def claude(provider: FakeProvider, **options: Any) -> ChatAnthropic:
    return ChatAnthropic(
        **{"model": CLAUDE, "base_url": provider.root_url, "api_key": "any", "max_retries": 0, **options}
    )


def post(provider: FakeProvider, body: Any, path: str = "/chat/completions", headers: Any = KEY) -> httpx.Response:
    return httpx.post(provider.url + path, json=body, headers=headers)


def question(text: str = "What is it?", **fields: Any) -> dict[str, Any]:
    return {"model": GPT, "messages": [{"role": "user", "content": text}], **fields}


def whole(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    return sum(chunks[1:], start=chunks[0])


def streaming(client: httpx.Client, provider: FakeProvider) -> AbstractContextManager[httpx.Response]:
    return client.stream("POST", provider.url + "/chat/completions", json=question(stream=True), headers=KEY)


def get_weather(city: str, days: int) -> str:
    """Look up the weather."""
    return f"Sunny in {city} for {days} days"


class Mood(Enum):
    CALM = "calm"
    CROSS = "cross"


class Comment(BaseModel):
    text: str
    likes: list[int]


class Review(BaseModel):
    """A review."""

    title: str
    stars: int = Field(ge=1, le=5)
    score: float
    mood: Mood
    verified: bool
    editor: str | None
    comments: list[Comment]


@pytest.mark.parametrize("make", [gpt, claude])
class TestBothApis:
    """What LangChain's clients see is the same through either API."""

    def test_invoke(self, provider, make):
        message = make(provider).invoke("What is it?")
        (served,) = provider.served
        assert message.content == served.answer
        assert '"What is it?"' in served.answer
        assert message.usage_metadata["input_tokens"] == served.input_tokens > 0
        assert message.usage_metadata["output_tokens"] == served.output_tokens > 0
        assert (served.status, served.complete, served.stream, served.usage_reported) == (200, True, False, True)

    async def test_ainvoke(self, provider, make):
        message = await make(provider).ainvoke("What is it?")
        assert message.content == provider.served[0].answer

    def test_stream_carries_the_same_answer_and_usage(self, provider, make):
        model = make(provider, stream_usage=True)
        streamed = whole(list(model.stream("What is it?")))
        invoked = model.invoke("What is it?")
        assert streamed.content == invoked.content
        assert streamed.usage_metadata == invoked.usage_metadata
        first, second = provider.served
        assert first.chunks_sent > 10
        assert first.usage_reported
        assert (first.output_tokens, first.answer) == (second.output_tokens, second.answer)

    async def test_astream(self, provider, make):
        chunks = [chunk async for chunk in make(provider).astream("What is it?")]
        assert whole(chunks).content == provider.served[0].answer

    @pytest.mark.parametrize("stream", [False, True])
    def test_tool_call_and_its_result(self, provider, make, stream):
        model = make(provider).bind_tools([get_weather])
        asked = HumanMessage("The weather in Rome for 3 days?")
        called = whole(list(model.stream([asked]))) if stream else model.invoke([asked])
        (call,) = called.tool_calls
        assert call["name"] == "get_weather"
        assert call["args"] == {"city": "The weather in Rome for 3 days?", "days": 3}
        answer = model.invoke([asked, AIMessage("", tool_calls=[call]), ToolMessage("Sunny", tool_call_id=call["id"])])
        assert not answer.tool_calls
        assert answer.text == provider.served[1].answer
        assert provider.served[0].answer == 'get_weather {"city": "The weather in Rome for 3 days?", "days": 3}'

    def test_tool_choice(self, provider, make):
        def other(text: str) -> None:
            """Do something else."""

        model = make(provider)
        named = model.bind_tools([get_weather, other], tool_choice="other").invoke("hello")
        assert [call["name"] for call in named.tool_calls] == ["other"]
        forced = model.bind_tools([get_weather, other], tool_choice="any").invoke("hello")
        assert [call["name"] for call in forced.tool_calls] == ["get_weather"]

    def test_tools_cost_input(self, provider, make):
        make(provider).invoke("hello")
        make(provider).bind_tools([get_weather]).invoke("hello")
        without, with_tools = provider.served
        assert with_tools.input_tokens > without.input_tokens + 20

    @pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    def test_structured_output(self, provider, make, method):
        review = make(provider).with_structured_output(Review, method=method).invoke("Write a review, 4 stars")
        assert isinstance(review, Review)
        assert (review.stars, review.mood, review.title) == (4, Mood.CALM, "Write a review, 4 stars")
        assert review.comments == [Comment(text=review.title, likes=[4])]

    def test_tokens_beyond_max_tokens_are_neither_sent_nor_billed(self, provider, make):
        message = make(provider, max_tokens=5).invoke("What is it?")
        assert message.usage_metadata["output_tokens"] == 5
        assert len(message.content) == 20
        reasons = {message.response_metadata.get("finish_reason"), message.response_metadata.get("stop_reason")}
        assert reasons & {"length", "max_tokens"}

    @pytest.mark.parametrize("stream", [False, True])
    def test_tool_call_cut_by_max_tokens(self, provider, make, stream):
        model = make(provider, max_tokens=6, stream_usage=True).bind_tools([get_weather])
        message = whole(list(model.stream("Rome"))) if stream else model.invoke("Rome")
        assert message.usage_metadata["output_tokens"] == provider.served[0].output_tokens == 6

    def test_stop_sequence(self, provider, make):
        message = make(provider).invoke("What is it?", stop=["answer"])
        assert message.content == 'To "What is it?" the '

    def test_cached_prefix(self, provider, make):
        marker = {"cache_control": {"type": "ephemeral"}} if make is claude else {}
        system = SystemMessage([{"type": "text", "text": LONG_TEXT, **marker}])
        model = make(provider)
        first = model.invoke([system, HumanMessage("One?")])
        second = model.invoke([system, HumanMessage("Two?")])
        assert not first.usage_metadata["input_token_details"]["cache_read"]
        cached = second.usage_metadata["input_token_details"]["cache_read"]
        assert 2300 < cached <= 2456
        assert cached == provider.served[1].cached_tokens
        assert second.usage_metadata["input_tokens"] == provider.served[1].input_tokens

    def test_scripted_failures_end(self, provider, make):
        provider.fail(status=500, times=2, retry_after=0.001)
        make(provider, max_retries=2).invoke("hello")
        assert [served.status for served in provider.served] == [500, 500, 200]
        assert provider.calls == provider.billed().requests == 1
        assert provider.served[0].input_tokens == provider.served[0].output_tokens == 0

    @pytest.mark.parametrize("mode", ["abort", "clean"])
    def test_dropped_stream_bills_what_was_sent(self, provider, make, mode):
        provider.drop_stream(after_chunks=4, mode=mode)
        received = []
        try:
            for chunk in make(provider, stream_usage=True).stream("What is it?"):
                received.append(chunk.content)  # noqa: PERF401 - the loop breaks midway
        except Exception as error:
            assert mode == "abort", error  # noqa: PT017
        provider.wait_idle()
        (served,) = provider.served
        assert (served.complete, served.usage_reported, served.chunks_sent) == (False, False, 4)
        assert served.answer.startswith('To "What ')
        assert "".join(received) == served.answer
        assert served.output_tokens == -(-len(served.answer) // 4)
        assert provider.calls == 1
        make(provider).invoke("again")
        assert provider.served[1].complete

    def test_client_that_leaves_amid_a_stream(self, make):
        with FakeProvider(latency=Latency(20.0, sigma=0.0, first_token=0.0), keep_alive=False) as provider:
            stream = make(provider).stream("What is it?")
            next(stream)
            stream.close()
            provider.wait_idle()
            (served,) = provider.served
        assert (served.complete, served.usage_reported) == (False, False)
        assert 1 <= served.chunks_sent <= 2
        assert served.input_tokens > 0

    def test_rate_limit(self, make):
        clock = Clock()
        with FakeProvider(limits=Limits(requests_per_minute=2), clock=clock, keep_alive=False) as provider:
            model = make(provider)
            model.invoke("one")
            clock.now += 15
            model.invoke("two")
            with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as caught:
                model.invoke("three")
            assert caught.value.response.headers["retry-after"] == "45"
            clock.now += 45
            model.invoke("three")
            assert [served.status for served in provider.served] == [200, 200, 429, 200]

    def test_context_window(self, make):
        with FakeProvider(context_windows={GPT: 2000, CLAUDE: 2000}, keep_alive=False) as provider:
            model = make(provider, max_tokens=100)
            model.invoke("short")
            with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="2000") as caught:
                model.invoke(LONG_TEXT)
            if make is gpt:
                assert caught.value.code == "context_length_exceeded"
            else:
                assert "prompt is too long: 2457 tokens > 2000 maximum" in str(caught.value)
            with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="1995"):
                make(provider, max_tokens=1995).invoke("short")
            assert provider.billed().requests == 1

    def test_mixed_run_agrees_with_the_clients(self, make):
        with FakeProvider(reasoning_tokens=11, keep_alive=False) as provider:
            model = make(provider, stream_usage=True)
            messages = [
                model.invoke("one"),
                whole(list(model.stream("two"))),
                model.bind_tools([get_weather]).invoke("three"),
                *model.batch(["four", "five", LONG_TEXT, LONG_TEXT]),
            ]
            usages = [message.usage_metadata for message in messages]
            billed = provider.billed()
            assert billed.requests == provider.calls == 7
            assert billed.input_tokens == sum(usage["input_tokens"] for usage in usages)
            assert billed.output_tokens == sum(usage["output_tokens"] for usage in usages)
            assert billed.cached_tokens == sum(usage["input_token_details"]["cache_read"] for usage in usages)
            assert provider.billed("other").requests == 0


class TestOpenAI:
    def test_reply_has_new_ids_and_a_dated_model(self, provider):
        first, second = (post(provider, question()).json() for _ in range(2))
        assert first["id"] != second["id"]
        assert first["system_fingerprint"] != second["system_fingerprint"]
        assert first["model"] == "gpt-5.4-mini-2026-03-17"
        assert first["choices"] == second["choices"]
        assert post(provider, question(model="gpt-x-2025-01-01")).json()["model"] == "gpt-x-2025-01-01"

    def test_stream_usage_only_on_demand(self, provider):
        without = whole(list(gpt(provider).stream("hello")))
        with_usage = whole(list(gpt(provider, stream_usage=True).stream("hello")))
        assert without.usage_metadata is None
        assert with_usage.usage_metadata is not None
        assert [served.usage_reported for served in provider.served] == [False, True]
        assert provider.served[0].output_tokens == provider.served[1].output_tokens

    def test_stream_ends_with_usage_and_done(self, provider):
        text = post(provider, question(stream=True, stream_options={"include_usage": True})).text
        *chunks, done = text.removesuffix("\n\n").split("\n\n")
        assert done == "data: [DONE]"
        *_, finish, usage = (json.loads(chunk.removeprefix("data: ")) for chunk in chunks)
        assert finish["choices"][0]["finish_reason"] == "stop"
        assert finish["usage"] is None
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == provider.served[0].output_tokens

    def test_several_choices_share_one_prompt(self, provider):
        result = gpt(provider, n=3).generate([[HumanMessage("hello")]])
        texts = [generation.text for generation in result.generations[0]]
        assert len(set(texts)) == 3
        one = gpt(provider).invoke("hello")
        usage = result.llm_output["token_usage"]
        assert usage["prompt_tokens"] == one.usage_metadata["input_tokens"]
        assert usage["completion_tokens"] == provider.served[0].output_tokens > 2 * provider.served[1].output_tokens

    def test_several_choices_stream_by_index(self, provider):
        text = post(provider, question(stream=True, n=2)).text
        choices = [json.loads(line[6:])["choices"][0] for line in text.split("\n\n") if line.startswith("data: {")]
        for index in (0, 1):
            words = (choice["delta"].get("content") or "" for choice in choices if choice["index"] == index)
            assert "".join(words).startswith('To "What is it?"')
        plain = post(provider, question(n=2)).json()
        assert provider.served[0].output_tokens == plain["usage"]["completion_tokens"]
        assert provider.served[0].answer == plain["choices"][0]["message"]["content"]

    def test_reasoning_counts_as_output_and_against_max_tokens(self):
        with FakeProvider(lambda model, messages: "word " * 100, reasoning_tokens=30, keep_alive=False) as provider:
            usage = gpt(provider).invoke("hello").usage_metadata
            assert (usage["output_tokens"], usage["output_token_details"]["reasoning"]) == (155, 30)
            usage = gpt(provider, max_tokens=40).invoke("hello").usage_metadata
            assert (usage["output_tokens"], usage["output_token_details"]["reasoning"]) == (40, 30)
            message = gpt(provider, max_tokens=20).invoke("hello")
            assert message.content == ""
            assert message.usage_metadata["output_tokens"] == 20

    def test_json_mode(self, provider):
        body = post(provider, question(response_format={"type": "json_object"})).json()
        assert json.loads(body["choices"][0]["message"]["content"]) == {"answer": "What is it?"}

    def test_json_answer_is_kept(self):
        review = {"verdict": "good"}
        wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": {"type": "object"}}}
        with FakeProvider(lambda model, messages: json.dumps(review)) as provider:
            body = post(provider, question(response_format=wanted)).json()
        assert json.loads(body["choices"][0]["message"]["content"]) == review

    def test_content_parts(self, provider):
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}
        text = {"type": "text", "text": "What is it?"}
        gpt(provider).invoke([HumanMessage([text, image])])
        assert '"What is it?"' in provider.served[0].answer
        assert provider.served[0].input_tokens < 200

    def test_cached_tokens_come_in_blocks_and_expire(self):
        clock = Clock()
        with FakeProvider(clock=clock, keep_alive=False) as provider:
            model = gpt(provider)
            for wait, text in [(0, LONG_TEXT), (299, LONG_TEXT + "more"), (299, LONG_TEXT), (301, LONG_TEXT)]:
                clock.now += wait
                model.invoke(text)
            assert [served.cached_tokens for served in provider.served] == [0, 2432, 2432, 0]
            assert {served.cached_tokens % 128 for served in provider.served} == {0}

    def test_cache_is_per_key_model_and_beginning(self, provider):
        gpt(provider).invoke(LONG_TEXT)
        gpt(provider, api_key="other").invoke(LONG_TEXT)
        gpt(provider, model="gpt-5.4").invoke(LONG_TEXT)
        gpt(provider).invoke("A different start. " + LONG_TEXT)
        gpt(provider).bind_tools([get_weather]).invoke(LONG_TEXT)
        gpt(provider).invoke("short")
        gpt(provider).invoke("short")
        assert [served.cached_tokens for served in provider.served] == [0] * 7

    @pytest.mark.parametrize(
        ("body", "status", "param"),
        [
            ("not an object", 400, None),
            ({"messages": [{"role": "user", "content": "x"}]}, 400, "model"),
            ({"model": GPT}, 400, "messages"),
            ({"model": GPT, "messages": []}, 400, "messages"),
            (question(n=0), 400, "n"),
            (question(tools=[{"type": "function"}]), 400, None),
        ],
    )
    def test_bad_requests(self, provider, body, status, param):
        response = post(provider, body)
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"
        assert response.json()["error"]["param"] == param
        assert provider.served[0].status == status

    def test_invalid_json(self, provider):
        response = httpx.post(provider.url + "/chat/completions", content=b"{", headers=KEY)
        assert response.status_code == 400
        assert "JSON" in response.json()["error"]["message"]

    def test_broken_tool_history_is_refused(self, provider):
        call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        asked = {"role": "user", "content": "hello"}
        calling = {"role": "assistant", "content": None, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": "call_1", "content": "done"}
        for history in ([asked, result], [asked, calling], [asked, calling, asked, result]):
            assert post(provider, {"model": GPT, "messages": history}).status_code == 400
        assert post(provider, {"model": GPT, "messages": [asked, calling, result]}).status_code == 200

    def test_key_is_required(self, provider):
        response = post(provider, question(), headers={})
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"

    def test_unknown_path(self, provider):
        response = httpx.get(provider.url + "/nothing")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "unknown_url"

    def test_models(self, provider):
        client = openai.OpenAI(base_url=provider.url, api_key="any")
        assert GPT in [model.id for model in client.models.list()]
        client.close()

    def test_answer_function_that_raises(self):
        def broken(model: str, messages: list[dict[str, Any]]) -> str:
            raise LookupError("no such answer")

        with FakeProvider(broken, keep_alive=False) as provider:
            with pytest.raises(openai.InternalServerError, match="no such answer"):
                gpt(provider, max_retries=2).invoke("hello")
            assert provider.billed().requests == 0
            assert len(provider.served) == 1


class TestAnthropic:
    def test_cache_writes_and_reads_by_marker(self, provider):
        def ask(text: str, **marker: str) -> Any:
            system = {"type": "text", "text": LONG_TEXT}
            if marker:
                system["cache_control"] = {"type": "ephemeral", **marker}
            return claude(provider).invoke([SystemMessage([system]), HumanMessage(text)]).usage_metadata

        unmarked = ask("unmarked")
        assert unmarked["input_token_details"]["cache_read"] == 0
        ask("first", ttl="1h")
        ask("second", ttl="1h")
        ask("unmarked again")
        _, first, second, unmarked_again = provider.served
        assert first.cache_write_tokens == first.cache_write_1h_tokens == second.cached_tokens == 2454
        assert second.cache_write_tokens == unmarked_again.cached_tokens == 0
        raw = post(
            provider,
            question(model=CLAUDE, max_tokens=9, system=[{"type": "text", "text": LONG_TEXT, "cache_control": {}}]),
            "/messages",
        ).json()["usage"]
        assert raw["cache_creation"] == {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
        assert raw["input_tokens"] + raw["cache_read_input_tokens"] == provider.served[-1].input_tokens

    def test_time_to_live_follows_the_marker(self):
        clock = Clock()
        with FakeProvider(clock=clock, keep_alive=False) as provider:
            for ttl in ("5m", "1h"):
                marker = {"cache_control": {"type": "ephemeral", "ttl": ttl}}
                system = SystemMessage([{"type": "text", "text": ttl + LONG_TEXT, **marker}])
                for _ in range(2):
                    claude(provider).invoke([system, HumanMessage("hello")])
                    clock.now += 301
            assert [served.cached_tokens > 0 for served in provider.served] == [False, False, False, True]

    def test_growing_conversation_reads_the_last_turn_and_writes_the_new_one(self, provider):
        history: list[Any] = []
        for text in (LONG_TEXT, "second", "third"):
            history.append(HumanMessage(text))
            marked = [
                *history[:-1],
                HumanMessage([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]),
            ]
            history.append(claude(provider).invoke(marked))
        first, second, third = provider.served
        assert first.cache_write_tokens == second.cached_tokens
        assert second.cached_tokens + second.cache_write_tokens == third.cached_tokens
        assert third.cache_write_tokens < 100

    def test_too_many_markers(self, provider):
        block = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
        body = question(model=CLAUDE, max_tokens=5, system=[block] * 5)
        response = post(provider, body, "/messages")
        assert response.status_code == 400
        assert "maximum of 4" in response.json()["error"]["message"]

    @pytest.mark.parametrize("missing", ["model", "messages", "max_tokens"])
    def test_required_fields(self, provider, missing):
        body = question(model=CLAUDE, max_tokens=5)
        del body[missing]
        response = post(provider, body, "/messages")
        assert response.status_code == 400
        assert response.json()["type"] == "error"
        assert response.json()["error"] == {"type": "invalid_request_error", "message": f"{missing}: Field required"}

    @pytest.mark.parametrize(
        ("status", "kind"), [(401, "authentication_error"), (500, "api_error"), (529, "overloaded_error")]
    )
    def test_error_kinds(self, provider, status, kind):
        if status != 401:
            provider.fail(status=status)
        headers = {} if status == 401 else {"x-api-key": "any"}
        response = post(provider, question(model=CLAUDE, max_tokens=5), "/messages", headers)
        assert response.status_code == status
        assert response.json()["error"]["type"] == kind

    def test_broken_tool_history_is_refused(self, provider):
        asked = {"role": "user", "content": "hello"}
        using = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "done"}]}
        for history in ([asked, result], [asked, using], [asked, using, asked]):
            body = {"model": CLAUDE, "max_tokens": 5, "messages": history}
            assert post(provider, body, "/messages").status_code == 400
        body = {"model": CLAUDE, "max_tokens": 5, "messages": [asked, using, result]}
        assert post(provider, body, "/messages").status_code == 200

    def test_answer_function_sees_openai_messages(self):
        seen: list[dict[str, Any]] = []

        def answer(model: str, messages: list[dict[str, Any]]) -> str:
            seen.extend(messages)
            return "fine"

        with FakeProvider(answer, keep_alive=False) as provider:
            call = {"name": "f", "args": {"x": 1}, "id": "t1"}
            turns = [
                SystemMessage("Be kind."),
                HumanMessage("hello"),
                AIMessage("Calling", tool_calls=[call]),
                ToolMessage("done", tool_call_id="t1"),
            ]
            claude(provider).invoke(turns)
        function = {"name": "f", "arguments": '{"x": 1}'}
        assert seen == [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "hello"},
            {
                "role": "assistant",
                "content": "Calling",
                "tool_calls": [{"id": "t1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "done"},
        ]


class TestEmbeddings:
    def test_vectors_depend_on_the_text_alone(self, provider):
        model = OpenAIEmbeddings(base_url=provider.url, api_key="any", check_embedding_ctx_length=False)
        first, second, again = model.embed_documents(["one", "two", "one"])
        assert first == again != second
        assert len(first) == 1536
        assert sum(x * x for x in first) == pytest.approx(1, abs=1e-5)
        (served,) = provider.served
        assert (served.api, served.input_tokens, served.output_tokens) == ("embeddings", 3, 0)
        assert provider.calls == 0
        assert provider.billed().requests == 1

    async def test_dimensions(self, provider):
        model = OpenAIEmbeddings(
            base_url=provider.url, api_key="any", check_embedding_ctx_length=False, dimensions=64, model="large"
        )
        assert len(await model.aembed_query("one")) == 64

    def test_token_ids_and_floats(self, provider):
        body = {"model": "m", "input": [[1, 2, 3], [4]], "encoding_format": "float"}
        reply = post(provider, body, "/embeddings").json()
        assert [len(item["embedding"]) for item in reply["data"]] == [1536, 1536]
        assert reply["usage"] == {"prompt_tokens": 4, "total_tokens": 4}

    @pytest.mark.parametrize("given", [None, [], 5, ["text", 5], [["text"]]])
    def test_bad_input(self, provider, given):
        assert post(provider, {"model": "m", "input": given}, "/embeddings").status_code == 400


class TestAnswers:
    def test_default_answer_depends_on_question_and_model_alone(self, provider):
        model = gpt(provider)
        first = model.invoke("One?").content
        model.invoke("Two?")
        assert model.invoke([SystemMessage("Be brief."), HumanMessage("One?")]).content == first
        assert gpt(provider, model="gpt-5.4").invoke("One?").content != first

    def test_any_text_survives(self, provider):
        text = 'quotes " and \\ and \u4f60\u597d and \u0000'
        assert text in gpt(provider).invoke(text).content
        lone_surrogate = '{"model": "m", "messages": [{"role": "user", "content": "\\ud83d"}]}'
        response = httpx.post(provider.url + "/chat/completions", content=lone_surrogate, headers=KEY)
        assert response.status_code == 200

    def test_empty_answer(self):
        with FakeProvider(lambda model, messages: "", keep_alive=False) as provider:
            for make in (gpt, claude):
                assert make(provider).invoke("hello").usage_metadata["output_tokens"] == 0
                assert whole(list(make(provider).stream("hello"))).text == ""


class TestLimitsAndFailures:
    def test_tokens_per_minute(self):
        clock = Clock()
        limits = {GPT: Limits(tokens_per_minute=1000)}
        with FakeProvider(lambda model, messages: "x" * 3200, limits=limits, clock=clock) as provider:
            first = post(provider, question())
            assert first.headers["x-ratelimit-limit-tokens"] == "1000"
            assert first.headers["x-ratelimit-remaining-tokens"] == str(1000 - 10 - 800)
            refused = post(provider, question("long " * 200))
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "rate_limit_exceeded"
            assert refused.json()["error"]["type"] == "tokens"
            assert post(provider, question(model="unlimited")).status_code == 200
            clock.now += 60
            assert post(provider, question("long " * 200)).status_code == 200

    def test_concurrency(self):
        latency = Latency(30.0, sigma=0.0, first_token=0.0)
        with FakeProvider(limits=Limits(concurrency=1), latency=latency) as provider, httpx.Client() as client:
            with streaming(client, provider):
                assert post(provider, question()).status_code == 429
            provider.wait_idle()
            with streaming(client, provider) as response:
                assert response.status_code == 200

    def test_failures_are_for_the_model_named(self, provider):
        provider.fail(model="gpt-5.4", status=503)
        assert post(provider, question()).status_code == 200
        assert post(provider, question(model="gpt-5.4")).status_code == 503
        assert post(provider, question(model="gpt-5.4")).status_code == 200

    def test_failures_from_the_constructor(self):
        with FakeProvider(failures=[Failure(status=429, retry_after=2.5)]) as provider:
            response = post(provider, question())
            assert response.status_code == 429
            assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("3", "2500")

    def test_random_failures_repeat(self):
        runs = []
        for _ in range(2):
            with FakeProvider(failure_rate=0.5, seed=3) as provider:
                runs.append([post(provider, question()).status_code for _ in range(12)])
        assert runs[0] == runs[1]
        assert set(runs[0]) == {200, 500}

    def test_latency_is_waited(self):
        with FakeProvider(latency=Latency(0.05, sigma=0.0)) as provider:
            post(provider, question())
            (served,) = provider.served
        assert served.finished - served.started >= 0.05

    def test_client_that_leaves_before_a_whole_reply_still_pays(self):
        with FakeProvider(latency=Latency(30.0, sigma=0.0)) as provider:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(provider.url + "/chat/completions", json=question(), headers=KEY, timeout=0.05)
            provider.wait_idle()
            (served,) = provider.served
        assert (served.complete, served.usage_reported) == (False, False)
        assert served.output_tokens > 0


class TestLifecycle:
    def test_wait_idle_times_out_while_a_request_runs(self):
        with FakeProvider(latency=Latency(30.0, sigma=0.0, first_token=0.0)) as provider, httpx.Client() as client:
            provider.wait_idle(0)
            with streaming(client, provider), pytest.raises(TimeoutError, match="1 request"):
                provider.wait_idle(0.01)
            provider.wait_idle()

    def test_close_cuts_running_requests(self):
        provider = FakeProvider(latency=Latency(30.0, sigma=0.0, first_token=0.0)).start()
        with httpx.Client() as client, streaming(client, provider) as response:
            provider.close()
            with pytest.raises(httpx.HTTPError):
                response.read()
        assert [served.complete for served in provider.served] == [False]

    def test_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            provider = FakeProvider(port=port)
            with pytest.raises(PortInUse, match=rf"Port {port} .*port=0") as caught:
                provider.start()
            assert isinstance(caught.value, ConfigurationError)
            assert isinstance(caught.value, OSError)
            assert caught.value.port == port
        with provider:
            assert provider.url == f"http://127.0.0.1:{port}/v1"

    def test_can_be_started_again(self):
        provider = FakeProvider(keep_alive=False)
        for count in (1, 2):
            with provider:
                gpt(provider).invoke("hello")
            assert provider.calls == count

    def test_misuse(self, provider):
        with pytest.raises(RuntimeError, match="running already"):
            provider.start()
        with pytest.raises(RuntimeError, match="not running"):
            _ = FakeProvider().url

    def test_leaves_nothing_behind(self):
        before = threading.active_count()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with FakeProvider() as provider:
                post(provider, question())
            provider.close()
        assert threading.active_count() == before

    def test_is_quiet(self):
        code = (
            "import logging, httpx; logging.basicConfig(level=logging.INFO)\n"
            "logging.getLogger('httpx').setLevel(logging.WARNING)\n"
            "from llmcost_plugins.testing import FakeProvider\n"
            "with FakeProvider() as provider:\n"
            "    provider.drop_stream(after_chunks=1)\n"
            "    body = {'model': 'm', 'stream': True, 'messages': [{'role': 'user', 'content': 'x'}]}\n"
            "    try: httpx.post(provider.url + '/chat/completions', json=body, headers={'x-api-key': 'k'})\n"
            "    except httpx.HTTPError: pass\n"
        )
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == ""

    def test_import_needs_no_server(self):
        code = (
            "import sys, llmcost_plugins.testing.pytest_plugin\n"
            "from llmcost_plugins.testing import FakeProvider\n"
            "assert not {'uvicorn', 'starlette', 'numpy', 'langchain_core'} & set(sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_missing_server_names_the_remedy(self, monkeypatch):
        for name in ("app", "server"):
            monkeypatch.delitem(sys.modules, f"llmcost_plugins.testing.{name}", raising=False)
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        with pytest.raises(MissingExtra, match=r'pip install "llmcost-plugins\[demo\]"'):
            FakeProvider().start()

    def test_reset(self):
        with FakeProvider(limits=Limits(requests_per_minute=1)) as provider:
            post(provider, question(LONG_TEXT))
            provider.fail()
            provider.drop_stream()
            provider.reset()
            assert provider.served == []
            assert post(provider, question(LONG_TEXT)).status_code == 200
            (served,) = provider.served
            assert (served.index, served.cached_tokens) == (0, 0)

    def test_fixture(self, fake_provider):
        assert gpt(fake_provider).invoke("hello").content == fake_provider.served[0].answer


class TestSampleJson:
    @pytest.mark.parametrize(
        ("schema", "value"),
        [
            ({"type": "string"}, "about 7 cats"),
            ({"type": "string", "format": "date"}, "2026-03-17"),
            ({"type": "string", "minLength": 14}, "about 7 catsxx"),
            ({"type": "string", "maxLength": 5}, "about"),
            ({"type": "integer"}, 7),
            ({"type": "integer", "minimum": 10}, 10),
            ({"type": "integer", "exclusiveMaximum": 0}, -1),
            ({"type": "integer", "minimum": 10, "multipleOf": 5}, 10),
            ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
            ({"type": ["null", "boolean"]}, True),
            ({"type": "null"}, None),
            ({"const": 5}, 5),
            ({"enum": ["b", "a"]}, "b"),
            ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 7),
            ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [7, 7]),
            ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}]}, [7, None]),
            ({"type": "object"}, {}),
            (
                {"allOf": [{"properties": {"a": {"type": "null"}}}, {"properties": {"b": {"const": 1}}}]},
                {"a": None, "b": 1},
            ),
            ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, 7),
            (True, "about 7 cats"),
        ],
    )
    def test_value_fits_the_schema(self, schema, value):
        assert sample(schema, "about 7 cats") == value

    def test_recursion_ends(self):
        node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
        assert json.dumps(sample(node)).count("next") < 50
