"""What is broken of what policies measure, and of who is told of activities: a lane of its own beside the others."""

import random
import time

from dev.sim.prometheus import vector
from dev.soaking.faults import turned
from dev.soaking.world import World


def cmon_away(world: World, dice: random.Random) -> None:
    turned(world, dice.uniform(2, 10), cmon_down=True)


def cmon_hangs(world: World, dice: random.Random) -> None:
    turned(world, dice.uniform(2, 10), cmon_hang=True)


def prometheus_fails(world: World, dice: random.Random) -> None:
    prometheus, pause = world.outside.prometheus, dice.uniform(2, 10)
    prometheus.status, prometheus.answer = dice.choice([422, 500, 503]), "the soak broke it"
    time.sleep(pause)
    world.outside.calm()


def prometheus_hangs(world: World, dice: random.Random) -> None:
    pause = dice.uniform(2, 10)
    world.outside.prometheus.hang.set()
    time.sleep(pause)
    world.outside.calm()


def prometheus_speaks_nonsense(world: World, dice: random.Random) -> None:
    """Nothing, too much, or no number."""
    pause = dice.uniform(2, 10)
    world.outside.prometheus.answer = dice.choice([vector(), vector(1.0, 2.0), vector("NaN"), vector("+Inf")])
    time.sleep(pause)
    world.outside.calm()


def receiver_fails(world: World, dice: random.Random) -> None:
    pause = dice.uniform(1, 8)
    world.outside.receivers.status = dice.choice([302, 404, 429, 500, 503])
    time.sleep(pause)
    world.outside.calm()


def receiver_slow(world: World, dice: random.Random) -> None:
    pause = dice.uniform(2, 10)
    world.outside.receivers.is_slow = True
    time.sleep(pause)
    world.outside.calm()


def receiver_hangs(world: World, dice: random.Random) -> None:
    pause = dice.uniform(2, 8)
    world.outside.receivers.hang.set()
    time.sleep(pause)
    world.outside.calm()


SOURCES = (
    cmon_away,
    cmon_hangs,
    prometheus_fails,
    prometheus_hangs,
    prometheus_speaks_nonsense,
    receiver_fails,
    receiver_slow,
    receiver_hangs,
)
