"""What providers' errors mean for other models."""

from types import SimpleNamespace
from typing import Any

import anthropic
import httpx
import openai
import pytest

from llmcost_plugins.flow import fault_of
from llmcost_plugins.types import Fault


def response(status: int, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request("POST", "http://test"))


def status(code: int, text: str = "no", **headers: str) -> openai.APIStatusError:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return openai.APIStatusError(text, response=response(code, given), body=None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, "fatal") for code in (400, 401, 403, 404, 422)),
        *((code, "unavailable") for code in (408, 409, 500, 503, 529)),
        (429, "rate_limit"),
    ],
)
def test_statuses(code: int, kind: str) -> None:
    assert fault_of(status(code)).kind == kind


@pytest.mark.parametrize("text", ["maximum context length is 8192 tokens", "prompt is too long: 9 tokens > 8 maximum"])
def test_prompts_that_are_too_long(text: str) -> None:
    assert fault_of(status(400, text)) == Fault("too_long")
    assert fault_of(status(500, text)).kind == "unavailable"


class Bespoke(Exception):
    def __init__(self, **about: Any) -> None:
        super().__init__("Input is too long for requested model.")
        vars(self).update(about)


def aws(code: int, **headers: str) -> Bespoke:
    return Bespoke(response={"Error": {}, "ResponseMetadata": {"HTTPStatusCode": code, "HTTPHeaders": headers}})


def test_aws_keeps_its_status_elsewhere() -> None:
    assert fault_of(aws(429)).kind == "rate_limit"
    assert fault_of(aws(503, **{"retry-after": "3"})) == Fault("unavailable", 3.0)
    assert fault_of(aws(400)).kind == "too_long"
    assert fault_of(aws(403)).kind == "fatal"


def test_errors_inside_a_stream_have_a_name_and_no_status() -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    overloaded = anthropic.APIStatusError("Overloaded", response=response(200), body=body)
    limited = openai.APIError("slow", httpx.Request("POST", "http://test"), body={"code": "rate_limit_exceeded"})
    broken = openai.APIError("oh", httpx.Request("POST", "http://test"), body={"type": "server_error"})
    odd = openai.APIError("oh", httpx.Request("POST", "http://test"), body={"code": "invalid_prompt"})
    assert [fault_of(error).kind for error in (overloaded, limited, broken, odd)] == [
        "unavailable",
        "rate_limit",
        "unavailable",
        "fatal",
    ]


@pytest.mark.parametrize("name", ["ConnectionError", "Timeout", "ClientConnectionError", "ModelTimeoutError"])
def test_lost_connections_of_clients_with_errors_of_their_own(name: str) -> None:
    assert fault_of(type(name, (OSError,), {})("lost")).kind == "unavailable"


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), ConnectionResetError(), httpx.ConnectError("no"), openai.APITimeoutError(response(1).request)],
)
def test_lost_connections(error: Exception) -> None:
    assert fault_of(error).kind == "unavailable"


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), type("BudgetExceeded", (Exception,), {})("spent")])
def test_what_is_not_known_would_be_the_same_anywhere(error: Exception) -> None:
    assert fault_of(error) == Fault("fatal")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after_ms": "250", "retry_after": "1"}, 0.25),
        ({"retry_after": "-3"}, 0.0),
        ({"retry_after": "Thu, 01 Jan 1970 00:01:30 GMT"}, 30.0),
        ({"retry_after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 0.0),
        ({"retry_after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_the_provider_asks_to_be_left_alone(headers: dict[str, str], seconds: float | None) -> None:
    assert fault_of(status(429, **headers), clock=lambda: 60.0) == Fault("rate_limit", seconds)


def test_headers_are_read_in_any_case() -> None:
    error = Bespoke(response=SimpleNamespace(status_code=429, headers={"Retry-After": "9"}))
    assert fault_of(error).retry_after == 9
