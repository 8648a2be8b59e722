"""What was decided for a request before any model was asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmcost_plugins.errors import ConfigurationError, NoEligibleTier
from llmcost_plugins.routing.eligibility import Needs
from llmcost_plugins.routing.policy import RoutingPolicy
from llmcost_plugins.types import Request, Tier


@dataclass(frozen=True, slots=True)
class Decision:
    """Which tier is asked first, and why.

    `hops` are the tiers in the order in which they are asked: the first, the stronger ones, then the weaker ones as a
    last resort. `refused` says of each of the others why it cannot answer. `difficulty` is None where nobody judged it.
    `arm` names the half of a split that the request is of.
    """

    tiers: tuple[Tier, ...]
    needs: Needs
    policy: RoutingPolicy
    first: int
    hops: tuple[int, ...]
    reason: str
    refused: tuple[tuple[str, str], ...] = ()
    difficulty: float | None = None
    threshold: float | None = None
    forced: bool = False
    arm: str = ""

    def __str__(self) -> str:
        lines = [f"{self.tiers[self.first].name}: {self.reason}"]
        if self.difficulty is not None:
            lines[0] += f" (difficulty {self.difficulty:.2f}, threshold {self.threshold:.2f})"
        return "\n".join([*lines, *(f"  not {name}: {why}" for name, why in self.refused)])


def order(first: int, eligible: Sequence[int]) -> tuple[int, ...]:
    """Return the eligible tiers from the first upwards, then the weaker ones, the strongest of them first."""
    up = [index for index in eligible if index >= first]
    return (*up, *(index for index in reversed(eligible) if index < first))


def lifted(index: int, eligible: Sequence[int]) -> int:
    """Return the weakest eligible tier that is as strong as the one wanted, or the strongest there is."""
    return next((other for other in eligible if other >= index), eligible[-1])


def named(tiers: Sequence[Tier], name: str, setting: str) -> int:
    """Return the index of the tier, or of the model, that a caller asks for by name."""
    names = [tier.name for tier in tiers] + [tier.model_name for tier in tiers]
    if name and name in names:
        return names.index(name) % len(tiers)
    known = ", ".join(tier.name for tier in tiers)
    raise ConfigurationError(f"`{setting}` is {name!r}, which is none of the tiers; expected one of: {known}")


def refuse(request: Request, refused: Sequence[tuple[str, str]]) -> NoEligibleTier:
    """Return the error that says of each tier why it cannot answer."""
    whys = "; ".join(f"{name}: {why}" for name, why in refused)
    count = len(request.messages)
    return NoEligibleTier(f"no tier can answer this request of {count} message{'s' * (count != 1)}: {whys}")
