"""Asking the strongest tier as well, for a share of the answers of weaker ones, to learn what they are worth."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.types import Reply, Request


class Shadow:
    """Compares a share of the answers given with the strongest tier's, behind the user's back and at your cost.

    Args:
        share: The share of weaker tiers' answers, from 0 to 1, for which the strongest is asked as well.
        path: Where both answers are appended as a line of JSON, in the clear; what `llmcost router fit` reads.
        judge: Tells how good the answer given is, from 0 to 1, of the question, that answer and the strongest one's.
            Without it the lines have no qualities, to be filled in before they are fitted.
    """

    def __init__(
        self, share: float, *, path: str | Path, judge: Callable[[str, str, str], float] | None = None
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigurationError(f"`share` is {share!r}; expected more than 0 and at most 1")
        self.share = share
        self._path = Path(path)
        self._judge = judge
        self._renew_lock()
        after_fork(self, Shadow._renew_lock)

    def __reduce__(self) -> "tuple[Callable[..., Shadow], tuple[object, ...]]":
        return _new, (self.share, self._path, self._judge)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def keep(self, request: Request, question: str, given: Reply, strongest: Reply) -> None:
        """Judge and write down both answers."""
        quality = None if self._judge is None else self._judge(question, given.text, strongest.text)
        row = {
            "messages": [dict(message) for message in request.messages],
            "weak_answer": given.text,
            "strong_answer": strongest.text,
            "weak_quality": quality,
            "strong_quality": None if quality is None else 1.0,
            "weak_model": given.model,
            "strong_model": strongest.model,
            "weak_finish": given.finish,
        }
        line = json.dumps(row, ensure_ascii=False, default=str) + "\n"
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line)


def _new(share: float, path: Path, judge: Callable[[str, str, str], float] | None) -> Shadow:
    return Shadow(share, path=path, judge=judge)
