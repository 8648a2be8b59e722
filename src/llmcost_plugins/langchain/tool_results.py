"""Compressing what an agent's tools return before a model reads it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeGuard

from langchain.agents.middleware import AgentMiddleware, ToolCallRequest
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.types import Command
from typing_extensions import override

from llmcost_plugins.compression import CompressionResult, Compressor, Passage, compressor_of, described
from llmcost_plugins.langchain.compression import COMPRESSION
from llmcost_plugins.plan import adrive, drive


class ToolResultCompressor(AgentMiddleware[Any, Any, Any]):
    """Keeps of long tool results what bears on the user's question, to the letter, within a token budget.

    ```python
    agent = create_agent(model, tools, middleware=[ToolResultCompressor(tokens=1_000)])
    ```

    A message keeps its id, status and artifact; `additional_kwargs["compression"]` adds what was kept and where it
    stood, and where there is no artifact, the whole text becomes it. Errors and results that are no text are passed on.

    Args:
        compressor: A `Compressor`, or the settings of one:
        tools: Names of the tools whose results are compressed; all if left out.
        settings: such as `tokens=1000`, `ratio=4`, `scorer="bm25"`, `min_tokens=300`.
    """

    def __init__(
        self, compressor: Compressor | None = None, *, tools: Sequence[str] | None = None, **settings: Any
    ) -> None:
        super().__init__()
        self._compressor = compressor_of(compressor, settings)
        self._tools_compressed = None if tools is None else frozenset(tools)

    @override
    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Run the tool, and compress what it returns."""
        result = handler(request)
        if not self._compresses(result):
            return result
        passage = Passage(str(result.content))
        return _compressed(result, drive(self._compressor.compress(_question(request), [passage])))

    @override
    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """Do as `wrap_tool_call` in async code."""
        result = await handler(request)
        if not self._compresses(result):
            return result
        passage = Passage(str(result.content))
        return _compressed(result, await adrive(self._compressor.compress(_question(request), [passage])))

    def _compresses(self, result: ToolMessage | Command[Any]) -> TypeGuard[ToolMessage]:
        if not isinstance(result, ToolMessage) or result.status == "error" or not isinstance(result.content, str):
            return False
        return self._tools_compressed is None or result.name in self._tools_compressed


def _question(request: ToolCallRequest) -> str:
    """Return what the user asked last, and what the model asked of the tool."""
    messages = request.state.get("messages", []) if isinstance(request.state, dict) else []
    asked = next((str(message.text) for message in reversed(messages) if isinstance(message, HumanMessage)), "")
    wanted = " ".join(str(value) for value in request.tool_call["args"].values() if isinstance(value, str))
    return f"{asked} {wanted}".strip()


def _compressed(message: ToolMessage, result: CompressionResult) -> ToolMessage:
    """Return the message with what was kept; one of which nothing would be kept stays whole."""
    if not result.kept or result.kept[0].text == message.content:
        return message
    kept = result.kept[0]
    extras = {**message.additional_kwargs, COMPRESSION: described(kept, result)}
    artifact = message.content if message.artifact is None else message.artifact
    return message.model_copy(update={"content": kept.text, "additional_kwargs": extras, "artifact": artifact})
