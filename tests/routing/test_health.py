"""Which deployments are well: the breaker, rests that were asked for, limits, and weights."""

import copy
import os
import pickle
import random
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.routing.health import Health, places_of
from llmcost_plugins.types import Deployment, Fault, Tier

DOWN = Fault("unavailable")
ONE = Tier("one", None)


class World:
    """A tier whose deployments fail at will, at a clock that stands still until it is moved."""

    def __init__(self, *deployments: Deployment) -> None:
        self.now = 0.0
        self.tier = Tier("tier", deployments=deployments) if deployments else ONE
        self.health = Health(clock=lambda: self.now, draw=random.Random(7).random)
        self.place = places_of(self.tier)[0]

    def call(self, fault: Fault | None = None, *, tokens: int = 1, forced: bool = False) -> bool:
        """Make a call that ends at once; tell whether it was let."""
        if not self.health.begin(self.place, tokens, forced=forced):
            return False
        self.health.succeeded(self.place) if fault is None else self.health.failed(self.place, fault)
        return True

    def fail(self, times: int, fault: Fault = DOWN) -> None:
        for _ in range(times):
            assert self.call(fault)

    @property
    def rest(self) -> float:
        return self.health.ready_in([self.tier])


def test_three_failures_in_a_row_make_it_rest() -> None:
    world = World()
    world.fail(2)
    assert world.rest == 0
    world.fail(1)
    assert world.rest == 30
    assert not world.call()


def test_a_success_in_between_begins_the_count_anew() -> None:
    world = World()
    for _ in range(5):
        world.fail(2)
        assert world.call()
    assert world.rest == 0


def test_after_the_rest_one_call_probes_and_the_others_wait() -> None:
    world = World()
    world.fail(3)
    world.now = 30
    assert world.health.begin(world.place, 1)
    assert not world.health.begin(world.place, 1)
    world.health.succeeded(world.place)
    assert world.health.begin(world.place, 1)
    assert world.health.begin(world.place, 1)


def test_each_probe_that_fails_doubles_the_rest_up_to_five_minutes() -> None:
    world, rests = World(), []
    world.fail(3)
    for _ in range(6):
        rests.append(world.rest)
        world.now += world.rest
        world.fail(1)
    assert rests == [30, 60, 120, 240, 300, 300]
    world.now += 300
    world.call()
    world.fail(3)
    assert world.rest == 30


@pytest.mark.parametrize("fault", [DOWN, Fault("rate_limit")])
def test_calls_that_were_under_way_together_count_as_one_outage(fault: Fault) -> None:
    world = World()
    for _ in range(20):
        assert world.health.begin(world.place, 1)
    for _ in range(20):
        world.health.failed(world.place, fault)
    assert world.rest <= 30


def test_a_probe_that_never_reports_back_is_given_up() -> None:
    world = World()
    world.fail(3)
    world.now = 30
    assert world.health.begin(world.place, 1)
    world.now += 60
    assert world.health.begin(world.place, 1)


def test_a_probe_that_was_called_off_is_neither_a_success_nor_a_failure() -> None:
    world = World()
    world.fail(3)
    world.now = 30
    assert world.health.begin(world.place, 1)
    world.health.released(world.place)
    assert world.rest == 0
    world.fail(1)
    assert world.rest == 60


def test_it_rests_as_long_as_the_provider_asks() -> None:
    world = World()
    world.fail(1, Fault("rate_limit", 12.5))
    assert world.rest == 12.5
    world.now = 12.5
    assert world.call()
    world.fail(1, Fault("unavailable", 40.0))
    assert world.rest == 40


def test_a_success_that_was_under_way_does_not_cut_short_what_the_provider_asked_for() -> None:
    world = World()
    assert world.health.begin(world.place, 1)
    world.fail(1, Fault("rate_limit", 10.0))
    world.health.succeeded(world.place)
    assert world.rest == 10


def test_of_two_rests_asked_for_the_longer_counts() -> None:
    world = World()
    assert all(world.health.begin(world.place, 1) for _ in range(2))
    for seconds in (50.0, 5.0):
        world.health.failed(world.place, Fault("rate_limit", seconds))
    assert world.rest == 50


def test_rate_limits_without_a_wait_double_it_each_time() -> None:
    world, rests = World(), []
    for _ in range(8):
        world.fail(1, Fault("rate_limit"))
        rests.append(world.rest)
        world.now += world.rest
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("kind", ["too_long", "fatal"])
def test_the_caller_s_own_errors_make_nothing_rest(kind: Any) -> None:
    world = World()
    world.fail(50, Fault(kind))
    assert world.rest == 0


def test_a_forced_call_is_let_and_its_success_ends_the_rest() -> None:
    world = World()
    world.fail(3)
    assert world.call(forced=True)
    assert world.rest == 0


def test_requests_per_minute_are_kept_over_any_minute() -> None:
    world, times = World(Deployment(None, requests_per_minute=5)), []
    for _ in range(400):
        if world.call():
            times.append(world.now)
        world.now += 1.7
    assert max(sum(start <= time < start + 60 for time in times) for start in times) == 5
    assert len(times) > 45


def test_tokens_per_minute_are_kept_and_one_larger_call_is_let_by_itself() -> None:
    world = World(Deployment(None, tokens_per_minute=100))
    assert world.call(tokens=500)
    assert not world.call(tokens=1)
    world.now = 60
    assert world.call(tokens=60)
    world.now = 70
    assert world.call(tokens=60)
    assert not world.call(tokens=1)
    assert world.rest == 50


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 80)), max_size=60))
def test_what_ready_in_promises_holds(calls: list[tuple[float, int]]) -> None:
    world = World(Deployment(None, requests_per_minute=3, tokens_per_minute=100))
    for pause, tokens in calls:
        world.now += pause
        wait = world.rest
        assert world.call(tokens=tokens) == (wait == 0)
        assert 0 <= wait < 60.001


def test_the_first_place_goes_by_weight() -> None:
    world = World(Deployment(None, "light"), Deployment(None, "heavy", weight=3))
    firsts = Counter(world.health.places(world.tier)[0].key[1] for _ in range(2_000))
    assert firsts["heavy"] / firsts["light"] == pytest.approx(3, rel=0.15)


def test_every_place_is_tried_once() -> None:
    world = World(*(Deployment(None, str(n), weight=10.0**-n) for n in range(8)))
    assert {place.key[1] for place in world.health.places(world.tier)} == set("01234567")


def test_a_tier_is_ready_when_one_of_its_deployments_is() -> None:
    world = World(Deployment(None, "east"), Deployment(None, "west"))
    world.fail(3)
    assert world.rest == 0
    world.place = places_of(world.tier)[1]
    world.now = 10
    world.fail(3)
    assert world.rest == 20


def test_a_tier_takes_the_seconds_of_its_fastest_deployment() -> None:
    world = World(Deployment(None, "east"), Deployment(None, "west"))
    assert world.health.seconds(world.tier) is None
    east, west = places_of(world.tier)
    world.health.succeeded(east, 4.0)
    world.health.succeeded(west, 2.0)
    assert world.health.seconds(world.tier) == 2
    world.health.succeeded(west, 12.0)
    assert world.health.seconds(world.tier) == 3
    assert world.health.seconds(Tier("another", None)) is None


def test_a_deployment_stands_in_for_its_tier() -> None:
    tier = Tier("tier", None, "openai", "gpt-5.4", deployments=(Deployment("m", "east", "azure"), Deployment("n")))
    places = places_of(tier)
    assert [(place.tier.model, place.tier.provider, place.tier.model_name) for place in places] == [
        ("m", "azure", "gpt-5.4"),
        ("n", "openai", "gpt-5.4"),
    ]
    assert [place.key for place in places] == [("tier", "east"), ("tier", "1")]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda health: pickle.loads(pickle.dumps(health))])
def test_a_copy_begins_with_nothing_held_against_anybody(copied: Any) -> None:
    health = Health(clock=float)
    for _ in range(3):
        health.failed(places_of(ONE)[0], DOWN)
    assert health.ready_in([ONE]) == 30
    assert copied(health).ready_in([ONE]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_begins_anew_even_if_the_lock_was_held() -> None:
    world = World()
    world.fail(3)
    with world.health._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if world.rest == 0 and world.call() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert world.rest == 30


def test_many_threads_never_break_the_limit_nor_probe_together() -> None:
    world = World(Deployment(None, requests_per_minute=100))
    let: list[bool] = []

    def call() -> None:
        let.extend(world.call() for _ in range(50))

    everyone(call)
    assert (len(let), sum(let)) == (400, 100)
    probed = World()
    probed.fail(3)
    probed.now = 30
    begun: list[bool] = []
    everyone(lambda: begun.append(probed.health.begin(probed.place, 1)))
    assert sum(begun) == 1


def everyone(call: Any) -> None:
    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_calls_under_way_send_the_next_one_elsewhere() -> None:
    world = World(Deployment(None, "east"), Deployment(None, "west"))
    for _ in range(10):
        first = world.health.places(world.tier)[0]
        assert world.health.begin(first, 1)
        second = world.health.places(world.tier)[0]
        assert second.key != first.key
        world.health.released(first)
