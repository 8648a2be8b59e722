"""A chat model as the judge of a cache."""

from langchain_core.language_models import BaseChatModel

from llmcost_plugins.langchain.callbacks import CostCallbackHandler
from llmcost_plugins.ledger import Ledger

_PROMPT = """Two users asked an assistant a question each. Will the answer to the first also answer the second, fully \
and without a word that is wrong for it? Differences in numbers, names, dates, places, negation or what is asked for \
make it no.

First question: {stored}
Answer: {answer}
Second question: {asked}

Reply with yes or no alone."""
_TAGS = ["llmcost:judge", "nostream"]  # LangGraph leaves runs with the latter out of its message streams


class ChatJudge:
    """Asks a chat model whether a stored answer will do: `Cache(judge=ChatJudge(small))`. Its calls are recorded.

    Args:
        model: What is asked; a small one will do. It must not use the cache that it judges for.
        ledger: Where its calls are recorded; the process's ledger otherwise.
    """

    def __init__(self, model: BaseChatModel, *, ledger: Ledger | None = None) -> None:
        self._model = model.model_copy(update={"cache": False})
        self._handler = CostCallbackHandler(ledger=ledger)

    def __call__(self, asked: str, stored: str, answer: str) -> bool:
        """Tell whether the model says yes; anything else is a no."""
        prompt = _PROMPT.format(asked=asked, stored=stored, answer=answer)
        said = self._model.invoke(prompt, {"callbacks": [self._handler], "tags": _TAGS})
        return str(said.text).strip().strip(".").lower() == "yes"
