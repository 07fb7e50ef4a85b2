"""Programs that die, stop or go by a wrong clock at a place that a test chooses: their environment, on top of the usual one.

stack.start_process("worker-1", "tsg-worker", environment=killed("after", "shared.instances:launch", 3))
"""

from pathlib import Path
from typing import Literal

FAULTY = Path(__file__).parent / "faulty"


def killed(moment: Literal["before", "after"], target: str, nth: int = 1) -> dict[str, str]:
    """Killed at the nth call of `module:function` or `module:Class.method`."""
    return _environment(TSG_TEST_FAULT=f"kill {moment} {target} {nth}")


def stopped(moment: Literal["before", "after"], target: str, nth: int = 1) -> dict[str, str]:
    """Stopped there by SIGSTOP, until somebody sends SIGCONT."""
    return _environment(TSG_TEST_FAULT=f"stop {moment} {target} {nth}")


def skewed(seconds: float) -> dict[str, str]:
    """With a clock that is so many seconds fast."""
    return _environment(TSG_TEST_SKEW=str(seconds))


def _environment(**variables: str) -> dict[str, str]:
    return {"PYTHONPATH": str(FAULTY), **variables}
