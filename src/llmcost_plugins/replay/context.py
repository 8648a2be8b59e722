"""Prompts that hold retrieved passages: taken apart, compressed, and put together again."""

import re
from dataclasses import dataclass

from llmcost_plugins.compression import Compressor, Passage
from llmcost_plugins.plan import drive
from llmcost_plugins.replay.traffic import Row
from llmcost_plugins.types import Message

_CONTEXT, _QUESTION = "Context:\n\n", "\n\nQuestion: "
_NUMBER = re.compile(r"\w*\d(?:[\w.,]*\w)?")


@dataclass(slots=True)
class Compression:
    """What compressing the passages of many prompts did.

    `numbers` counts the numbers and codes of the known answers that stand in the passages, `numbers_kept` those that
    still do.
    """

    prompts: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    numbers: int = 0
    numbers_kept: int = 0


class Reader:
    """Compresses the passages of a traffic's prompts before they are sent."""

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self.done = Compression()

    def messages(self, row: Row) -> list[Message]:
        """Return the messages of a row, with what of their passages bears on the question."""
        *earlier, last = row.messages
        text = last.get("content")
        if not isinstance(text, str) or not text.startswith(_CONTEXT) or _QUESTION not in text:
            return list(row.messages)
        context, _, question = text.removeprefix(_CONTEXT).rpartition(_QUESTION)
        shorter = self._compressed(context, question, row.strong_answer or "")
        return [*earlier, {**last, "content": f"{_CONTEXT}{shorter}{_QUESTION}{question}"}]

    def _compressed(self, context: str, question: str, answer: str) -> str:
        passages = [Passage(text) for text in context.split("\n\n")]
        result = drive(self._compressor.compress(question, passages))
        shorter = "\n\n".join(kept.text for kept in result.kept)
        numbers = {number for number in _NUMBER.findall(answer) if number in context}
        self.done.prompts += 1
        self.done.tokens_before += result.tokens_before
        self.done.tokens_after += result.tokens_after
        self.done.numbers += len(numbers)
        self.done.numbers_kept += sum(number in shorter for number in numbers)
        return shorter
