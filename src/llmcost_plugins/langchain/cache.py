"""The cache as LangChain's `set_llm_cache` takes it."""

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.load import dumps
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from typing_extensions import override

from llmcost_plugins.cache import Cache
from llmcost_plugins.errors import ConfigurationError, CorruptEntry
from llmcost_plugins.events import ComponentFailed, emit
from llmcost_plugins.langchain.convert import (
    dump_message,
    finish_of,
    from_serialised,
    load_message,
    usage_of,
    whole_answer,
)
from llmcost_plugins.ledger import Ledger
from llmcost_plugins.plan import Plan, adrive, drive
from llmcost_plugins.scope import current_scope
from llmcost_plugins.types import Message, Reply, Request


class SemanticCache(BaseCache):
    """Answers repeated questions of any LangChain model: `set_llm_cache(SemanticCache())`.

    LangChain's cache hook sees neither run metadata nor API keys, so tenants are kept apart by `scope(tenant=...)`
    alone. With `require_scope=True` nothing is answered or kept outside such a scope. `stream()` on a plain model never
    consults LangChain's cache; `CostAwareChatModel` does. Takes a `Cache`, or the keywords of one.

    Args:
        cache: The cache to use; made from `options` otherwise.
        ledger: Where to record hits and misses; the process's ledger otherwise.
        options: Keywords of `Cache`.
    """

    def __init__(self, cache: Cache | None = None, *, ledger: Ledger | None = None, **options: Any) -> None:
        if cache is not None and options:
            names = ", ".join(f"`{name}`" for name in options)
            raise ConfigurationError(f"{names}: set on the `Cache` itself; pass either a `Cache` or its keywords")
        self.cache = cache or Cache(**options)
        self._sink = ledger.record if ledger is not None else None

    def __repr__(self) -> str:
        return f"SemanticCache({self.cache!r})"

    @override
    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Return the stored answer as fresh copies, None on a miss; never raises."""
        return drive(self._look_up(prompt, llm_string))

    @override
    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Do as `lookup` without blocking the event loop."""
        return await adrive(self._look_up(prompt, llm_string))

    @override
    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep the answer if it may be given again; never raises."""
        drive(self._update(prompt, llm_string, return_val))

    @override
    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Do as `update` without blocking the event loop."""
        await adrive(self._update(prompt, llm_string, return_val))

    @override
    def clear(self, **kwargs: Any) -> None:
        """Forget every answer in the store."""
        self.cache.clear()

    @override
    async def aclear(self, **kwargs: Any) -> None:
        """Do as `clear` without blocking the event loop."""
        await asyncio.to_thread(self.cache.clear)

    def warm(self, model: BaseChatModel, answers: Iterable[tuple[LanguageModelInput, str | AIMessage]]) -> int:
        """Keep answers that are known beforehand, for a chat model; tell how many were offered to the cache."""
        offered = 0
        for given, answer in answers:
            message = whole_answer(answer)
            prompt = dumps(model._convert_input(given).to_messages())
            self.update(prompt, model._get_llm_string(), [ChatGeneration(message=message)])
            offered += 1
        return offered

    def _look_up(self, prompt: str, llm_string: str) -> Plan[list[Generation] | None]:
        try:
            request = _request(prompt, llm_string)
            found = yield from self.cache.find(request, self._sink, turn=False, read=_generations)
            return None if found.reply is None else found.reply.native
        except Exception as error:  # noqa: BLE001 - LangChain would fail the user's call
            self._tell(error)
            return None

    def _update(self, prompt: str, llm_string: str, answers: RETURN_VAL_TYPE) -> Plan[None]:
        try:
            yield from self.cache.store(_request(prompt, llm_string), _reply(answers), self._sink)
        except Exception as error:  # noqa: BLE001 - the answer is paid for and must reach the user
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        emit(ComponentFailed(time=time.time(), component="cache", error=text, scope=current_scope()), self._sink)


def _request(prompt: str, llm_string: str) -> Request:
    """Return the request that LangChain describes by its two strings; a prompt that is not its JSON stays one text."""
    return Request(_messages(prompt), model=llm_string, dialect="langchain", scope=current_scope())


def _messages(prompt: str) -> tuple[Message, ...]:
    if prompt.startswith("["):
        try:
            return tuple(from_serialised(message) for message in json.loads(prompt))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            pass
    return ({"role": "prompt", "content": prompt},)


def _reply(answers: RETURN_VAL_TYPE) -> Reply:
    """Return LangChain's generations as one reply; its usage and end are those of the first."""
    first = answers[0]
    body = {"generations": [_dump(generation) for generation in answers]}
    if not isinstance(first, ChatGeneration):
        return Reply(body, text=first.text)
    message = first.message
    finishes = {finish_of(g.message, g.generation_info) for g in answers if isinstance(g, ChatGeneration)}
    return Reply(
        body,
        text=first.text,
        usage=usage_of(getattr(message, "usage_metadata", None)),
        provider=message.response_metadata.get("model_provider") or "",
        model=message.response_metadata.get("model_name") or message.response_metadata.get("model") or "",
        finish=finishes.pop() if len(finishes) == 1 else None,
        calls_tools=bool(getattr(message, "tool_calls", None)),
    )


def _dump(generation: Generation) -> dict[str, Any]:
    message = dump_message(generation.message) if isinstance(generation, ChatGeneration) else None
    return {"text": generation.text, "info": generation.generation_info, "message": message}


def _generations(reply: Reply) -> list[Generation]:
    """Return the stored generations as new objects with fresh ids; chat messages say how they were found."""
    generations = [_load(row, reply) for row in reply.body["generations"]]
    if not generations:
        raise CorruptEntry("entry holds no answer")
    return generations


def _load(row: dict[str, Any], reply: Reply) -> Generation:
    if row["message"] is None:
        return Generation(text=row["text"], generation_info=row["info"])
    return ChatGeneration(message=load_message(row["message"], reply), generation_info=row["info"])
