"""Programs that die, stop or go by a wrong clock at a place that a test chooses: their environment, on top of the usual one.

stack.start_process("worker-1", "tsg-worker", environment=killed("after shared.state.instances:insert_launch 3"))
"""

from pathlib import Path

FAULTY = Path(__file__).parent / "faulty"


def killed(*faults: str) -> dict[str, str]:
    """Killed at each of these: "before" or "after", a function as `module:name` or `module:Class.name`, and which call of it (1)."""
    return _environment(TSG_TEST_FAULT=";".join(f"kill {fault}" for fault in faults))


def stopped(*faults: str) -> dict[str, str]:
    """Stopped there by SIGSTOP, until somebody sends SIGCONT."""
    return _environment(TSG_TEST_FAULT=";".join(f"stop {fault}" for fault in faults))


def skewed(seconds: float) -> dict[str, str]:
    """With a clock that is `seconds` fast."""
    return _environment(TSG_TEST_SKEW=str(seconds))


def _environment(**variables: str) -> dict[str, str]:
    return {"PYTHONPATH": str(FAULTY), **variables}
