"""Ten thousand requests at random against the plainest oracle: an answer says for whom it was made."""

import random
from typing import Any

from llmcost_plugins.cache import Cache
from llmcost_plugins.plan import drive
from llmcost_plugins.stores import Memory
from llmcost_plugins.types import Reply, Request, Scope, Usage

REQUESTS = 10_000
QUESTIONS = [
    "How do I reset my password?",
    "How can I reset my password?",
    "how do i reset my password",
    "What is the way to reset my password?",
    "How do I change my email address?",
    "How can I change my email address?",
    "How do I delete my account?",
    "How can I delete my account?",
    "What are your opening hours?",
    "What are the opening hours?",
    "When do you open?",
    "Do you ship to Norway?",
    "Do you ship to Sweden?",
    "and for two?",
]
SYSTEMS = [None, "Be brief.", "Be brief", "Answer in German."]
HISTORIES: list[tuple[dict[str, Any], ...]] = [
    (),
    ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}),
    ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}),
]
TOOLS = [{}, {"tools": [{"name": "f"}]}, {"tools": [{"name": "g"}]}]
SCHEMAS = [{}, {"schema": {"a": 1}}, {"schema": {"a": 2}}]
TEMPERATURES = [{}, {"temperature": 0}, {"temperature": 1}]


def drawn(lot: random.Random) -> Request:
    system, history = lot.choice(SYSTEMS), lot.choice(HISTORIES)
    first = ({"role": "system", "content": system},) if system is not None else ()
    params = {**lot.choice(TOOLS), **lot.choice(SCHEMAS), **lot.choice(TEMPERATURES)}
    return Request(
        (*first, *history, {"role": "user", "content": lot.choice(QUESTIONS)}),
        model=lot.choice(["small", "large"]),
        params=dict(lot.sample(list(params.items()), len(params))),
        scope=Scope(lot.choice(["acme", "globex", None]), lot.choice(["u1", "u2"])),
    )


def setting(request: Request) -> list[Any]:
    return [request.scope.tenant, request.model, sorted(request.params.items(), key=str), list(request.messages[:-1])]


def test_no_answer_crosses_a_border() -> None:
    lot, tiers = random.Random(11), dict[str, int]()
    cache = Cache(Memory(max_entries=3_000))
    for _ in range(REQUESTS):
        request = drawn(lot)
        found = drive(cache.find(request, lambda event: None))
        if found.reply is None:
            body = {"for": repr(setting(request)), "to": request.messages[-1]["content"]}
            drive(cache.keep(found, Reply(body, "yes", Usage(1, 1))))
            continue
        assert found.reply.hit is not None
        assert found.reply.body["for"] == repr(setting(request))
        tier = found.reply.hit.tier
        tiers[tier] = tiers.get(tier, 0) + 1
        asked = request.messages[-1]["content"]
        assert tier != "exact" or found.reply.body["to"] == asked
        assert "and for two" not in asked or tier == "exact"
    assert {"exact", "normalised", "semantic"} <= tiers.keys()
    assert cache.turns_held == 0
