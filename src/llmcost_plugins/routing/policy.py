"""How a router decides: what judges requests, what judges answers, and from where each counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing.gain import shipped_scorer
from llmcost_plugins.routing.scoring import AnswerScorer, Scorer
from llmcost_plugins.routing.thresholds import Chosen


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """How a router decides.

    Args:
        scorer: Judges how hard a request is: by default the shipped scorer, and the rules where that has no opinion.
        threshold: Requests at least this hard go to the strongest tier at once. With several numbers, one for each step
            between tiers and in rising order, those between two go to the tier between.
        escalate: Judge the answers of weaker tiers, and ask the next stronger one where they fall short. Such answers
            are held back until judged, so they reach a streaming reader at once instead of word by word.
        answer_scorer: Judges answers that have no visible fault; none by default.
        answer_threshold: Answers at least this likely to be wrong are escalated.
        second_opinion: The name of another cheap tier, which is asked as well where an answer has no visible fault;
            where the two do not agree, one stronger than both is asked.
        calibration: What to expect of escalating; the live escalation rate is watched against it, and where it says
            that a cascade does not pay there is none.
    """

    scorer: Scorer = shipped_scorer
    threshold: float | Sequence[float] = 0.5
    escalate: bool = True
    answer_scorer: AnswerScorer | None = None
    answer_threshold: float = 0.5
    second_opinion: str | None = None
    calibration: Chosen | None = None

    def __post_init__(self) -> None:
        for name in ("scorer", "answer_scorer"):
            judge = getattr(self, name)
            if not callable(judge) and (judge is not None or name == "scorer"):
                raise ConfigurationError(f"`{name}` is {judge!r}; expected a function or another callable")
        steps = (self.threshold,) if isinstance(self.threshold, int | float) else tuple(self.threshold)
        if not steps or not all(map(_is_share, steps)) or list(steps) != sorted(steps):
            raise ConfigurationError(f"`threshold` is {self.threshold!r}; expected 0 to 1, or such numbers rising")
        if not _is_share(self.answer_threshold):
            raise ConfigurationError(f"`answer_threshold` is {self.answer_threshold!r}; expected 0 to 1")
        object.__setattr__(self, "threshold", steps)

    @property
    def steps(self) -> tuple[float, ...]:
        """The thresholds, one or one for each step between tiers."""
        return self.threshold  # type: ignore[return-value]

    def tier_for(self, difficulty: float, tiers: int, moved: float = 0.0) -> int:
        """Return the index of the tier that a difficulty calls for; `moved` is added to every threshold."""
        if len(self.steps) == 1:
            return tiers - 1 if difficulty >= self.steps[0] + moved else 0
        return sum(difficulty >= step + moved for step in self.steps)

    def describe(self) -> list[Any]:
        """Return what decides who answers, in plain JSON: a part of the identity that cached answers rest on."""
        judge = self.answer_scorer and [_name_of(self.answer_scorer), self.answer_threshold]
        return [_name_of(self.scorer), list(self.steps), self.escalate, judge, self.second_opinion]


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _name_of(judge: Callable[..., Any]) -> str:
    """Return a name that lasts, or one with an address in it, by which a cache knows that there is none."""
    name = str(getattr(judge, "id", None) or getattr(judge, "__qualname__", "<"))
    return f"{judge.__module__}.{name}" if "<" not in name else repr(judge)
