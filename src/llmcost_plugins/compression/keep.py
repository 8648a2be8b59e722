"""Sentences that a reader must not miss whatever was asked: instructions, prohibitions, deadlines."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BOOST = 0.5  # deviations of the scores
_READERS = "you|users?|customers?|employees?|applicants?|passengers?|patients?|please|we|agents?"
_DUTIES = "must|shall|may not|must not|should not|need to|are required to|are not allowed to"
_DANGERS = "use|take|share|mix|exceed|open|store|give|send|delete|expose"
_BINDING = re.compile(
    rf"\b(?:(?:{_READERS}) (?:{_DUTIES})|do not|don't|never (?:[a-z]+ )?(?:{_DANGERS})|under no circumstances|"
    r"is (?:strictly )?(?:prohibited|forbidden|not permitted|mandatory)|allergic to|contraindicated|deadline|"
    r"no later than|at (?:the )?latest)\b|\b(?:warning|caution|important|note):|^(?:always|never) [a-z]+",
    re.IGNORECASE | re.MULTILINE,
)


# One of these is in whatever binds; looking for them first is many times faster than the expression alone.
_HINTS = (
    *("must", "shall", "o not", "y not", "d not", "not permitted", "not allowed", "n't", "need to", "required"),
    *("never", "no circ", "ibited", "forb", "mandat", "allerg", "contraind", "deadline", "no later", "latest"),
    *("ing:", "ion:", "important:", "note:", "alw"),
)


def boosted(scores: "NDArray[np.float64]", texts: Sequence[str]) -> "NDArray[np.float64]":
    """Raise the scores of binding sentences by half a deviation: they win over equals, and cannot fill the budget.

    A sentence binds if it tells its reader what to do or to heed; what is past ("he must have been") does not.
    """
    import numpy as np

    if not texts:
        return scores
    everything = "\n".join(texts).casefold()
    hints = [hint for hint in _HINTS if hint in everything]
    binding = np.array([_is_binding(text, hints) for text in texts])
    return scores + _BOOST * (float(scores.std()) or 1.0) * binding


def _is_binding(text: str, hints: Sequence[str]) -> bool:
    lowered = text.casefold()
    return any(hint in lowered for hint in hints) and _BINDING.search(text) is not None
