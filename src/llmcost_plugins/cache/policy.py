"""Which questions a cache may answer at all: rules that can be read.

They look at the user's question only, and err towards asking the model.
"""

import re
from typing import Literal, TypeAlias

Category: TypeAlias = Literal["general", "live", "personal", "creative"]

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


def category_of(question: str) -> Category:
    """Return the first category whose rule matches the question; of a long text, its beginning or its end."""
    text = question if len(question) <= 2 * _READ else f"{question[:_READ]}\n{question[-_READ:]}"
    if _CREATIVE.search(text):
        return "creative"
    if _PERSONAL.search(text) and not _HOW_TO.search(text):
        return "personal"
    return "live" if _LIVE.search(text) else "general"
