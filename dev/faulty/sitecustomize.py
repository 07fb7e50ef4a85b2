"""Faults inside a program of the service, for tests: the program is started as it is, with this directory on its PYTHONPATH.

    TSG_TEST_FAULT="kill after shared.state.instances:insert_launch 3"    SIGKILL, when the third call of it has returned
    TSG_TEST_FAULT="stop before shared.clients.cloudapi:Client.create_machine"    SIGSTOP, before the first call
    TSG_TEST_SKEW="-3600"    its clock is this many seconds fast; slow, when negative

Several faults are separated by semicolons. The product itself has no way to be made to die. Python imports a module of this name at
every start; `dev.faults` sets it up.
"""

import datetime as dt
import functools
import importlib
import itertools
import os
import signal
import time


def _install(fault: str) -> None:
    """Wrap a function of a module from which nothing was imported yet."""
    deed, moment, target, *count = fault.split()
    number = signal.Signals[f"SIG{deed.upper()}"]
    module_name, _, path = target.partition(":")
    holder = importlib.import_module(module_name)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    wrapped = getattr(holder, name)
    calls = itertools.count(1)
    nth = int(count[0]) if count else 1

    @functools.wraps(wrapped)
    def faulty(*args, **kwargs):
        is_it = next(calls) == nth
        if is_it and moment == "before":
            os.kill(os.getpid(), number)
        result = wrapped(*args, **kwargs)
        if is_it and moment == "after":
            os.kill(os.getpid(), number)
        return result

    if moment not in {"before", "after"}:
        raise ValueError(f"TSG_TEST_FAULT: before or after, not {moment}")
    setattr(holder, name, faulty)


def _skew(seconds: float) -> None:
    """Have Python's own clocks go wrong; the steady one goes on."""
    right, real = time.time, dt.datetime

    class Kind(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

    class Wrong(real, metaclass=Kind):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + dt.timedelta(seconds=seconds)

    time.time = lambda: right() + seconds
    dt.datetime = Wrong


try:
    if os.environ.get("TSG_TEST_SKEW"):
        _skew(float(os.environ["TSG_TEST_SKEW"]))
    if os.environ.get("TSG_TEST_FAULT"):
        for fault in os.environ["TSG_TEST_FAULT"].split(";"):
            _install(fault)
except Exception as error:
    # Python would go on without the fault.
    raise SystemExit(f"no such fault: {error!r}") from error
