"""Which questions a cache may answer at all: rules that can be read.

They look at the user's question only, and err towards asking the model.
"""

import re
from typing import Literal, TypeAlias

Category: TypeAlias = Literal["general", "live", "personal", "creative"]

_READ = 1_000
_LIVE = re.compile(
    r"\b(right now|at the moment|currently|today|tonight|tomorrow|yesterday|as of|latest|live|real[- ]?time|weather"
    r"|this (?:morning|afternoon|evening|week|month)|in stock|forecast|still (?:open|available|on)|open now"
    r"|what time is it|next (?:free|available|open|possible)"
    r"|current (?:price|status|rate|time|offer|discount|wait\w*))\b",
    re.IGNORECASE,
)
_GAP = "[^.?!]{0,60}"  # within a sentence, and bounded: an open end twice over takes minutes on a long text
_OWN = (
    r"order|parcel|package|delivery|shipment|refund|return|invoice|bill|balance|account|subscription|plan|payment|card|"
    r"transfer|booking|appointment|ticket|claim|repair|points|credit|membership|warranty|purchase|bike|data|address|"
    r"name|contract|limit|statement"
)
_PERSONAL = re.compile(
    r"\b(?:where(?:'s| is| are)|what(?:'s| is| are| was)|when (?:will|is|does|did|are)|has|have|is|are|was|did|does|"
    r"how (?:much|many|long)|show(?: me)?|check|track|look up|tell me|status of|cancel|change|update|delete|extend|"
    r"pause|resend|why (?:was|is|did|has|have|hasn't|isn't))"
    rf"\b{_GAP}\b(?:my|our|mine)\b{_GAP}\b(?:{_OWN})s?\b"
    r"|\b(?:am i|do i (?:still )?(?:have|owe)(?! to\b)|have i|did i|was i|did you (?:get|receive))\b",
    re.IGNORECASE,
)
_HOW_TO = re.compile(
    r"^\W*(?:(?:hi|hello|hey|please)\W+)*(?:how (?:do|can|should|would|to)|can i|could i|where can i)\b",
    re.IGNORECASE,
)
_CREATIVE = re.compile(
    r"\b(?:write|compose|draft|invent|make up|come up with|create|brainstorm|suggest|think of|give me)\b"
    rf"{_GAP}\b(?:poem|haiku|limerick|rhyme|story|joke|song|lyrics|slogan|tagline|toast|verse|names?|ideas?|caption|card|riddle|"
    r"motto|tweet|post)\b",
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
