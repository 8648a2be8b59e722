"""What a cache tells of a look-up."""

from typing import TYPE_CHECKING

from llmcost_plugins.events import CacheHit, CacheMissed, ComponentFailed, emit
from llmcost_plugins.types import Hit, Reply, Usage

if TYPE_CHECKING:
    from llmcost_plugins.cache.cache import Found

_SHOWN = 200  # of a question, in explanations
_NONE = Usage()


def hit_event(found: "Found", reply: Reply, hit: Hit, now: float) -> CacheHit:
    """Return the event of an answer that was found."""
    question = found.fingerprint.question if found.fingerprint is not None else ""
    return CacheHit(
        call_id=hit.id,
        time=now,
        hit=hit,
        provider=reply.provider,
        model=reply.model,
        usage=reply.usage or _NONE,
        scope=found.request.scope,
        question=question[:_SHOWN],
    )


def miss_event(found: "Found", now: float) -> CacheMissed:
    """Return the event of a look-up without an answer, with what came nearest."""
    nearest = found.matches[0].neighbour if found.matches else None
    question = found.fingerprint.question if found.fingerprint is not None else ""
    return CacheMissed(
        time=now,
        reason=found.reason,
        scope=found.request.scope,
        category=found.category,
        question=question[:_SHOWN],
        nearest=nearest.question[:_SHOWN] if nearest is not None else "",
        similarity=nearest.similarity if nearest is not None else 0.0,
        veto=next((match.veto for match in found.matches if match.veto), ""),
    )


def tell_failure(found: "Found", error: Exception, now: float) -> None:
    """Tell of something that failed and cost nobody the call."""
    text = f"{type(error).__name__}: {error}"
    emit(ComponentFailed(time=now, component="cache", error=text, scope=found.request.scope), found.sink)
