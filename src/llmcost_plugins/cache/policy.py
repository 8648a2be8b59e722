"""Which questions a cache may answer at all, how loosely and for how long: rules that can be read.

They look at the user's question only, and err towards asking the model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmcost_plugins.errors import ConfigurationError

Mode: TypeAlias = Literal["off", "exact", "semantic"]

_MODES = ("off", "exact", "semantic")
_MINUTE, _HOUR = 60.0, 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is done with the questions of one category.

    Args:
        mode: `off` neither answers nor keeps; `exact` answers the same question, `semantic` also one that means the
            same.
        ttl: Seconds that an answer is kept; hits do not extend it.
        threshold: The likeness from which a question means the same; that of the cache's calibration by default.
        version: Change it to forget all answers of the category.
    """

    mode: Mode = "semantic"
    ttl: float = 48 * _HOUR
    threshold: float | None = None
    version: str = ""

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ConfigurationError(f"`mode` is {self.mode!r}; expected one of {', '.join(_MODES)}")
        if not (isinstance(self.ttl, int | float) and self.ttl > 0):
            raise ConfigurationError(f"`ttl` is {self.ttl!r}; expected seconds above 0")
        if self.threshold is not None and not (isinstance(self.threshold, int | float) and 0 <= self.threshold <= 2):
            raise ConfigurationError(f"`threshold` is {self.threshold!r}; expected a likeness, as from 0.6 to 1")


DEFAULT_POLICIES: Mapping[str, Policy] = {
    "faq": Policy(),
    "summary": Policy(mode="exact", ttl=12 * _HOUR),
    "classification": Policy(mode="exact", ttl=24 * _HOUR),
    "code": Policy(mode="exact"),
    "maths": Policy(mode="exact"),
    "live": Policy(mode="exact", ttl=5 * _MINUTE),
    "personal": Policy(mode="off"),
    "creative": Policy(mode="off"),
}

_READ = 1_000
_GAP = "[^.?!]{0,60}"  # within a sentence, and bounded: an open end twice over takes minutes on a long text

_LIVE = re.compile(
    r"\b(?:right now|at the moment|currently|today|tonight|tomorrow|yesterday|as of|latest|live|real[- ]?time|weather"
    r"|this (?:morning|afternoon|evening|week|month)|in stock|forecast|still (?:open|available|on)|open now|news|score"
    r"|what (?:time|day|date|year) is it|next (?:free|available|open|possible|bus|train|flight|appointment|date|slot)"
    r"|exchange rates?|(?:stock|share) price|(?:tickets?|seats?|places?|rooms?|tables?) left"
    r"|is (?:[\w']+ ){1,3}(?:down|up|working|offline|online|delayed|late)"
    r"|current (?:price|status|rate|time|offer|discount|wait\w*))\b"
    r"|\bhow much is (?-i:[A-Z]{2,5})\b",
    re.IGNORECASE,
)
_PERSONAL = re.compile(
    r"\b(?:where(?:'s| is| are)|what(?:'s| is| are| was)|when (?:will|is|does|did|are)|has|have|is|are|was|did|"
    r"does|will|get|see|view|know|how (?:much|many|long|can)|show(?: me)?|check|track|look up|tell me|status of|extend|"
    r"pause|resend|why (?:was|is|did|has|have|hasn't|isn't))"
    rf"\b{_GAP}\b(?:my|our|mine)\b"
    r"|(?:^|\n)\W*(?:please )?(?:cancel|change|update|delete|close|renew|activate|block)\b[^.?!]{0,20}\b(?:my|our)\b"
    r"|\b(?:my|our) [\w-]+(?: [\w-]+)? (?:has|have|is|are|was|were|did|does|never|hasn't|haven't|isn't|wasn't|didn't)\b"
    r"|\b(?:am i|do i (?:still )?(?:have|owe)(?! to\b)|do i get paid|have i|did i|was i|did you (?:get|receive))\b"
    r"|\bi(?: was| have been|'ve been| got| ordered| paid| received| haven't| hasn't| didn't| want my)\b"
    r"|\b(?:refund|charge|charged|bill|billed|pay|call|send|email|text|contact|remind) me\b"
    r"|\b(?:order|ticket|booking|invoice|case|claim|shipment|parcel|reservation|account|tracking)\b"
    r"(?: (?:no\.?|number|id))?[ #:]{0,3}[A-Z-]{0,4}\d{3,}",
    re.IGNORECASE,
)
_HOW_TO = re.compile(
    r"^\W*(?:(?:hi|hello|hey|please)\W+)*(?:how (?:(?:do|can|should|would|could) (?:i|we|you)|to)"
    r"|what(?:'s| is| are) the (?:\w+ )?(?:ways?|steps?|procedure|process) (?:to|for|of)|is there a way to"
    r"|what (?:do|should|can|must) i (?:have to |need to )?do to|what (?:do|would) i need to"
    r"|where (?:can|do) (?:i|we)|(?:can|could|may) (?:i|we) (?!get|see|have|know|view|check))\b[^\d]*$",
    re.IGNORECASE,
)
_CREATIVE = re.compile(
    r"\b(?:write|compose|draft|invent|make up|come up with|create|brainstorm|suggest|think of|give me|tell (?:me|us)|"
    r"generate|pick|choose)\b"
    rf"{_GAP}\b(?:poem|haiku|limerick|rhyme|story|joke|song|lyrics|slogan|tagline|toast|verse|names?|ideas?|caption|card|"
    r"riddle|motto|tweet|post|password|number|random)\b|\brandom\b",
    re.IGNORECASE,
)


_SUMMARY = re.compile(
    r"^\W*(?:please |can you |could you )*(?:summari[sz]e|sum up|condense|shorten|tl;?dr|what are the key points"
    r"|give (?:me )?(?:a |the )?(?:brief |short )?(?:summary|overview|gist) of)\b",
    re.IGNORECASE,
)
_CLASSIFICATION = re.compile(
    r"\b(?:classify|categori[sz]e|label (?:the|this|each)|what (?:is the )?(?:sentiment|category|intent|tone)"
    r"|which category|positive or negative|positive, negative|spam or)\b",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|\b(?:def|class|function|import|return|public static|select \w+ from|#include)\b.{0,40}[(;:{]|[{};]\s*$|=>"
    r"|</\w+>|\b(?:write|fix|debug|refactor|review|implement)\b.{0,40}"
    r"\b(?:code|function|script|query|regex|program|class|method)\b"
    r"|\b(?:traceback|stack trace|syntaxerror|typeerror|nullpointerexception|segfault)\b",
    re.IGNORECASE | re.MULTILINE,
)
_MATHS = re.compile(
    r"\d\s*(?:[-+*/^\u00d7\u00f7]|plus|minus|times|divided by|modulo)\s*\d|\b\d+(?:\.\d+)?\s*(?:%|percent) of\b"
    r"|\b(?:calculate|compute|solve|integrate|differentiate|square root|derivative|integral|factorial|equation)\b",
    re.IGNORECASE,
)


def category_of(question: str) -> str:
    """Return the first category whose rule matches the question; of a long text, its beginning or its end."""
    text = question if len(question) <= 2 * _READ else f"{question[:_READ]}\n{question[-_READ:]}"
    if _SUMMARY.search(text):
        return "summary"
    if _CLASSIFICATION.search(text):
        return "classification"
    if _CREATIVE.search(text):
        return "creative"
    if _PERSONAL.search(text) and not _HOW_TO.search(text):
        return "personal"
    if _LIVE.search(text):
        return "live"
    if _CODE.search(text):
        return "code"
    return "maths" if _MATHS.search(text) else "faq"
