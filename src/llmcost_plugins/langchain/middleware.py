"""Cache, tiers and ledger for the model calls of an agent made by `create_agent`."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from typing_extensions import override

from llmcost_plugins.cache import Cache
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.flow import cache_of
from llmcost_plugins.forks import after_fork
from llmcost_plugins.langchain.chat import CostAwareChatModel
from llmcost_plugins.ledger import Ledger
from llmcost_plugins.pricing import PriceBook
from llmcost_plugins.routing import Router
from llmcost_plugins.types import Tier

_KEPT = 32  # models that other middleware may put in; each is wrapped once


class CostAwareMiddleware(AgentMiddleware[Any, Any, Any]):
    """Lets an agent's model calls be answered from the cache, and by the cheapest of several models that does.

    ```python
    agent = create_agent(strong, tools, middleware=[CostAwareMiddleware(tiers=[small, strong], cache=True)])
    ```

    Without `tiers` the agent's own model is the only one. Answers from the cache are new messages with new ids, so that
    a checkpointed thread keeps every turn. Put it last (innermost) among the middleware that changes prompts or models.

    Args:
        tiers: The models to choose from, the cheapest first, in place of the agent's own. Chat models or `Tier`s.
        cache: A `Cache`, or True for one with default settings; False for none. Left out, LangChain's own cache
            setting applies to the models.
        router: A `Router`, for settings of its own; its tiers are used unless others are given.
        ledger: Where to record; the process's ledger otherwise.
        prices: What to price with.
    """

    def __init__(
        self,
        *,
        tiers: Sequence[BaseChatModel | Tier] | None = None,
        cache: Cache | bool | None = None,
        router: Router | None = None,
        ledger: Ledger | None = None,
        prices: PriceBook | None = None,
    ) -> None:
        super().__init__()
        own = False if cache is False else cache_of(cache)
        self._settings: dict[str, Any] = {"cache": own, "ledger": ledger, "prices": prices}
        replaces = tiers is not None or router is not None
        self._model = CostAwareChatModel(tiers=tiers, router=router, **self._settings) if replaces else None
        self._wrapped: OrderedDict[int, tuple[BaseChatModel, CostAwareChatModel]] = OrderedDict()
        self._renew_lock()
        after_fork(self, CostAwareMiddleware._renew_lock)

    @property
    def router(self) -> Router | None:
        """What chooses among the tiers, for `router.feedback` and `router.report`; None without tiers of its own."""
        return None if self._model is None else self._model.router

    @override
    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Put the cost-aware model in the place of the request's own."""
        return handler(request.override(model=self._model_for(request.model)))

    @override
    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Do as `wrap_model_call` in async code."""
        return await handler(request.override(model=self._model_for(request.model)))

    def _model_for(self, model: Any) -> CostAwareChatModel:
        if self._model is not None:
            return self._model
        if isinstance(model, CostAwareChatModel) or not isinstance(model, BaseChatModel):
            raise ConfigurationError(
                f"the agent's model is a `{type(model).__name__}`; CostAwareMiddleware needs a plain chat model: "
                "pass create_agent one, or CostAwareMiddleware(tiers=[...])"
            )
        with self._lock:
            return self._around(model)

    def _around(self, model: BaseChatModel) -> CostAwareChatModel:
        """Return the one wrapper of a model; each is kept with its model, so that no other can have its id."""
        if id(model) not in self._wrapped:
            self._wrapped[id(model)] = model, CostAwareChatModel(model, **self._settings)
            if len(self._wrapped) > _KEPT:
                self._wrapped.popitem(last=False)
        self._wrapped.move_to_end(id(model))
        return self._wrapped[id(model)][1]

    def _renew_lock(self) -> None:
        self._lock = Lock()
