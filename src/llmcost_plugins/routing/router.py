"""Ask the cheapest tier that should do, a stronger one if it did not, another one if it failed."""

import asyncio
import math
import random
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.events import ComponentFailed, Refused, Sink, emit
from llmcost_plugins.plan import Plan, Step
from llmcost_plugins.pricing import PriceBook, default_prices
from llmcost_plugins.routing.conversations import Conversations, cheaper_to_stay, conversation_of, in_tool_loop
from llmcost_plugins.routing.decision import Decision, lifted, named, order, refuse
from llmcost_plugins.routing.eligibility import Needs, needs_of, unfit, worst_case
from llmcost_plugins.routing.fitting import LearnedPolicy, learn_policy
from llmcost_plugins.routing.guard import Guard
from llmcost_plugins.routing.health import Health, places_of
from llmcost_plugins.routing.learning import Learning, RouterReport, arm_of
from llmcost_plugins.routing.policy import RoutingPolicy
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.rules import Choice, difficulty
from llmcost_plugins.routing.scoring import AnswerScorer, Scorer, ask_scorer
from llmcost_plugins.routing.shadow import Shadow
from llmcost_plugins.types import Fault, Reply, Request, Tier

Goal: TypeAlias = Literal["cost", "latency", "balanced"]


class Paid(Protocol):
    """Calls one tier and pays for it; `shown` lets its answer reach the reader as it comes."""

    def __call__(self, tier: Tier, *, shown: bool) -> Generator[Step[Any], Any, Reply]:
        """Return the plan of the call."""
        ...


class Router:
    """Chooses among tiers, ordered from the cheapest to the strongest.

    ```python
    Router([Tier("small", small), Tier("strong", strong, user_tiers={"pro"})], threshold=0.6)
    ```

    Tiers that cannot answer a request (window, tools, images, schema, user tier, budget) are left out first. A scorer
    then judges how hard it is. Answers of weaker tiers are judged in turn, and where they fall short the next stronger
    tier is asked. After rate limits, timeouts and server errors another deployment, then another tier is asked. Within
    a conversation a tier is left for a cheaper one only where that saves more than the provider's prompt cache does,
    and never while the model waits for the results of tools.

    Args:
        tiers: The models to choose from; one is a router that never has a choice.
        policy: How to decide, as `fit` returns it; or the settings of one:
        scorer: as in `RoutingPolicy`,
        threshold: as in `RoutingPolicy`,
        escalate: as in `RoutingPolicy`,
        answer_scorer: as in `RoutingPolicy`,
        answer_threshold: as in `RoutingPolicy`.
        split: Policies to compare, by name; users, or conversations of nobody's, are divided among them for good.
        max_bad: The share of weaker tiers' answers that may be bad: `feedback` moves the thresholds towards it.
        shadow: Asks the strongest tier as well for a share of the answers, and writes both down.
        optimise: What to choose by among the tiers that are strong enough: the cheapest, the fastest as measured in
            this process, or the one with the best product of both.
        sticky: Weigh the provider's prompt cache when a conversation would change tiers.
        output_reserve: Tokens kept free for the answer where the request sets no limit.
        retries: How often all tiers are tried again after all have failed in passing; rate limits do not count.
        patience: Seconds that one request may wait in all before it is tried again.
        deadline: Seconds that a scorer may take before the rules decide.
        clock: Seconds since the epoch.
        draw: Draws a number from 0 to 1: which deployment, how long to wait.
        pause: Makes the step that waits so many seconds.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        policy: RoutingPolicy | None = None,
        scorer: Scorer | None = None,
        threshold: float | Sequence[float] | None = None,
        escalate: bool | None = None,
        answer_scorer: AnswerScorer | None = None,
        answer_threshold: float | None = None,
        split: Mapping[str, RoutingPolicy] | None = None,
        max_bad: float = 0.05,
        shadow: Shadow | None = None,
        optimise: Goal = "cost",
        sticky: bool = True,
        output_reserve: int = 1_024,
        retries: int = 2,
        patience: float = 20.0,
        deadline: float = 2.0,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        pause: Callable[[float], Step[None]] | None = None,
    ) -> None:
        given = {
            "scorer": scorer,
            "threshold": threshold,
            "escalate": escalate,
            "answer_scorer": answer_scorer,
            "answer_threshold": answer_threshold,
        }
        settings = {name: value for name, value in given.items() if value is not None}
        self.policies = dict(split) if split else {"": _policy(policy, settings)}
        if split and (policy or settings):
            raise ConfigurationError("`split` holds whole policies; pass no other policy beside it")
        self.tiers = _checked(tiers, self.policies.values())
        if not (isinstance(max_bad, int | float) and 0 < max_bad < 1):
            raise ConfigurationError(f"`max_bad` is {max_bad!r}; expected a share such as 0.05")
        _check(optimise=optimise, output_reserve=output_reserve, retries=retries, patience=patience, deadline=deadline)
        self.retries = retries
        self.patience = patience
        self.clock = clock
        self.draw = draw
        self._pause = pause
        self.health = Health(clock=clock, draw=draw)
        self.conversations = Conversations()
        self.learning = Learning(max_bad)
        self.shadow = shadow
        self.deadline = deadline
        self.guards = {arm: Guard(one.calibration, clock=clock) for arm, one in self.policies.items()}
        self._optimise = optimise
        self._sticky = sticky
        self._output_reserve = output_reserve

    def __repr__(self) -> str:
        return f"Router({' -> '.join(tier.name for tier in self.tiers)})"

    def with_tiers(self, tiers: Sequence[Tier]) -> "Router":
        """Return a router with the same settings over other tiers, as doors need it that fill tiers in.

        Both share what they know of deployments and conversations, by the names of the tiers.
        """
        router = copy(self)
        router.tiers = _checked(tiers, self.policies.values())
        return router

    def pause(self, seconds: float) -> Step[None]:
        """Return the step that waits."""
        return (self._pause or _pause)(seconds)

    @property
    def strongest(self) -> Tier:
        """The tier that costs are compared with."""
        return self.tiers[-1]

    def describe(self) -> list[Any]:
        """Return what decides who answers, in plain JSON: a part of the identity that cached answers rest on."""
        policies = [[arm, *policy.describe()] for arm, policy in self.policies.items()]
        return [[tier.name for tier in self.tiers], policies, self._optimise]

    def variant(self, request: Request) -> str:
        """Return what of one request changes who may answer it, in a few words; "" where nothing does."""
        user_tier, overrides = request.scope.user_tier, request.overrides
        open_to = [tier.name for tier in self.tiers if tier.user_tiers is None or user_tier in tier.user_tiers]
        parts = [] if len(open_to) == len(self.tiers) else [f"open: {open_to}"]
        parts += [] if len(self.policies) == 1 else [f"arm: {self._arm(request)}"]
        parts += [f"{name}: {value}" for name, value in overrides._asdict().items() if value is not None]
        return "; ".join(parts)

    def feedback(self, name: str, *, good: bool) -> bool:
        """Take in whether an answer was good; of weaker tiers' answers it moves the threshold.

        Args:
            name: The `id` in the answer's `response_metadata["routing"]`, its call id, or the framework's run id.
            good: Whether it was.

        Returns:
            False where the answer is not among the newest 10,000 of this process.
        """
        return self.learning.feedback(name, good=good)

    def fit(
        self,
        records: Sequence[Record],
        *,
        quality: float | None = None,
        budget: float | None = None,
        prices: PriceBook | None = None,
    ) -> LearnedPolicy:
        """Learn how to divide requests between the weakest and the strongest tier; see `learn_policy`.

        Nothing changes here: `Router(tiers, policy=learned.policy)` uses what was learned.
        """
        ends = self.tiers[0], self.tiers[-1]
        return learn_policy(records, *ends, prices or default_prices(), at=self.clock(), quality=quality, budget=budget)

    def report(self) -> RouterReport:
        """Return what came of the requests so far: shares, escalations, costs and feedback, for each arm of a split."""
        cascades = {arm: guard.report() for arm, guard in self.guards.items()}
        return RouterReport(self.learning.report(), cascades)

    def decide(self, request: Request, prices: PriceBook | None = None, sink: Sink | None = None) -> Plan[Decision]:
        """Return which tier is asked first, and why, without asking any.

        Raises:
            NoEligibleTier: None can answer; the text says of each why not.
            ConfigurationError: The request asks for a tier that there is none of.
        """
        prices = prices or default_prices()
        needs = needs_of(request, self._output_reserve)
        eligible, refused = self._eligible(needs, prices)
        arm = self._arm(request)
        decision = self._asked_for(needs, arm, eligible, refused)
        if not eligible or (decision is not None and decision.first not in eligible):
            emit(Refused(time=self.clock(), reasons=refused, scope=request.scope), sink)
            raise refuse(request, refused)
        if decision is None:
            choice = yield from self._judged(request, self.policies[arm], sink)
            decision = self._weighed(needs, arm, choice, eligible, refused, prices)
        return decision

    def route(
        self,
        request: Request,
        paid: Paid,
        fault: Callable[[Exception], Fault],
        sink: Sink | None = None,
        prices: PriceBook | None = None,
    ) -> Plan[Reply]:
        """Return the first good enough answer.

        Raises:
            NoEligibleTier: No tier can answer the request.
            NoTierAnswered: Several tiers failed; the error of a single one is raised as it is.
        """
        from llmcost_plugins.routing.route import Route

        prices = prices or default_prices()
        decision = yield from self.decide(request, prices, sink)
        return (yield from Route(self, request, decision, paid, fault, sink, prices).run())

    def _eligible(self, needs: Needs, prices: PriceBook) -> tuple[list[int], tuple[tuple[str, str], ...]]:
        now = self.clock()
        whys = [unfit(tier, needs, prices, now) for tier in self.tiers]
        refused = tuple((tier.name, why) for tier, why in zip(self.tiers, whys, strict=True) if why is not None)
        return [index for index, why in enumerate(whys) if why is None], refused

    def _asked_for(
        self, needs: Needs, arm: str, eligible: Sequence[int], refused: tuple[tuple[str, str], ...]
    ) -> Decision | None:
        """Return the decision that the caller has made, if any, or that nobody has to make."""
        wish, known = needs.request.overrides, (self.tiers, needs, self.policies[arm])
        if wish.force_model is not None:
            index = named(self.tiers, wish.force_model, "force_model")
            return Decision(*known, index, (index,), "forced", refused, forced=True, arm=arm)
        if wish.tier is not None and eligible:
            index = lifted(named(self.tiers, wish.tier, "tier"), eligible)
            return Decision(*known, index, order(index, eligible), "asked for", refused, arm=arm)
        if len(eligible) == 1:
            only = "only tier" if len(self.tiers) == 1 else "the only tier that can answer"
            return Decision(*known, eligible[0], tuple(eligible), only, refused, arm=arm)
        return None

    def _arm(self, request: Request) -> str:
        if len(self.policies) == 1:
            return next(iter(self.policies))
        return arm_of(tuple(self.policies), request.scope.user or conversation_of(request))

    def _judged(self, request: Request, policy: RoutingPolicy, sink: Sink | None) -> Plan[Choice]:
        """Return how hard the request is; where the scorer fails or has no opinion, the rules say."""
        try:
            choice = yield from ask_scorer(policy.scorer, request, self.deadline)
        except Exception as error:  # noqa: BLE001 - a scorer must not cost the user the call
            text = f"{type(error).__name__}: {error}"
            emit(ComponentFailed(time=self.clock(), component="router", error=text, scope=request.scope), sink)
            choice = None
        return difficulty(request) if choice is None else choice

    def _weighed(
        self,
        needs: Needs,
        arm: str,
        choice: Choice,
        eligible: Sequence[int],
        refused: tuple[tuple[str, str], ...],
        prices: PriceBook,
    ) -> Decision:
        policy, asked = self.policies[arm], needs.request.overrides.threshold
        moved = self.learning.moved(arm) if asked is None else 0.0
        weighing = policy if asked is None else replace(policy, threshold=asked)
        wanted = lifted(weighing.tier_for(choice.difficulty, len(self.tiers), moved), eligible)
        best = self._best(needs, wanted, eligible, prices)
        held = self._held(needs, best, eligible, prices) or self._guarded(best, arm, eligible)
        index, reason = held or (best, choice.reason)
        return Decision(
            self.tiers,
            needs,
            policy,
            index,
            order(index, eligible),
            reason,
            refused,
            difficulty=choice.difficulty,
            threshold=weighing.steps[-1] + moved,
            arm=arm,
        )

    def _guarded(self, index: int, arm: str, eligible: Sequence[int]) -> tuple[int, str] | None:
        """Return the next tier whose drafts pay, and why, where those of the one wanted do not."""
        if not self.policies[arm].escalate:
            return None
        up = [other for other in eligible if other >= index]
        names = [self.tiers[other].name for other in up]
        pays = (weak for weak, *pair in zip(up, names, names[1:], strict=False) if self.guards[arm].allows(*pair))
        first = next(pays, up[-1])
        return None if first == index else (first, "drafts of the weaker tier cost more than they save")

    def _held(self, needs: Needs, wanted: int, eligible: Sequence[int], prices: PriceBook) -> tuple[int, str] | None:
        """Return the tier that the conversation stays with, and why, if it should not change."""
        served = self.conversations.last(needs.request)
        names = [tier.name for tier in self.tiers]
        if served is None or served.tier not in names:
            return None
        current = names.index(served.tier)
        if current not in eligible:
            return None
        if in_tool_loop(needs.request):
            return current, "its tools are under way"
        if not self._sticky or current <= wanted:
            return None
        tokens, tenant = needs.tokens(self.tiers[current].model_name), needs.request.scope.tenant
        stays = cheaper_to_stay(self.tiers[current], self.tiers[wanted], served, tokens, prices, self.clock(), tenant)
        return (current, "its prompt cache is worth more than the cheaper tier") if stays else None

    def _best(self, needs: Needs, wanted: int, eligible: Sequence[int], prices: PriceBook) -> int:
        """Return the tier that does best by the goal, of those as strong as the one wanted; unmeasured ones first."""
        if self._optimise == "cost":
            return wanted

        def drawback(index: int) -> float:
            seconds = self.health.seconds(self.tiers[index])
            if seconds is None or self._optimise == "latency":
                return seconds or 0.0
            cost = worst_case(self.tiers[index], needs, prices, self.clock())
            return math.inf if cost is None else seconds * cost

        return min((index for index in eligible if index >= wanted), key=drawback, default=wanted)


def _policy(policy: RoutingPolicy | None, settings: dict[str, Any]) -> RoutingPolicy:
    if policy is not None and settings:
        given = ", ".join(f"`{name}`" for name in settings)
        raise ConfigurationError(f"{given} beside a `policy`; change the policy instead, with dataclasses.replace")
    return policy or RoutingPolicy(**settings)


def _checked(tiers: Sequence[Tier], policies: Collection[RoutingPolicy]) -> tuple[Tier, ...]:
    if not tiers:
        raise ConfigurationError("`tiers` is empty; pass at least one model")
    for tier in tiers:
        if not isinstance(tier, Tier):
            raise ConfigurationError(f"`tiers` holds {tier!r}; expected such as Tier('small', model)")
    _check_names("tiers", [tier.name for tier in tiers])
    for tier in tiers:
        _check_names(f"deployments of {tier.name!r}", [place.key[1] for place in places_of(tier)])
    for policy in policies:
        _check_policy(policy, tiers)
    return tuple(tiers)


def _check_policy(policy: RoutingPolicy, tiers: Sequence[Tier]) -> None:
    if len(policy.steps) not in (1, len(tiers) - 1):
        raise ConfigurationError(
            f"`threshold` has {len(policy.steps)} steps for {len(tiers)} tiers; pass one number, or {len(tiers) - 1}"
        )
    if policy.second_opinion is not None and named(tiers, policy.second_opinion, "second_opinion") == len(tiers) - 1:
        raise ConfigurationError(
            f"`second_opinion` is {policy.second_opinion!r}, the strongest tier; name one that it can decide for"
        )


def _check_names(what: str, names: Collection[str]) -> None:
    if len(set(names)) < len(names):
        raise ConfigurationError(f"`{what}` have the names {list(names)}; give each a name of its own")


def _check(*, optimise: str, **numbers: float) -> None:
    if optimise not in ("cost", "latency", "balanced"):
        raise ConfigurationError(f"`optimise` is {optimise!r}; expected 'cost', 'latency' or 'balanced'")
    for name, value in numbers.items():
        if not (isinstance(value, int | float) and value >= 0):
            raise ConfigurationError(f"`{name}` is {value!r}; expected 0 or more")
    if numbers["retries"] % 1:
        raise ConfigurationError(f"`retries` is {numbers['retries']!r}; expected a whole number")


def _pause(seconds: float) -> Step[None]:
    return Step(partial(time.sleep, seconds), partial(asyncio.sleep, seconds))
