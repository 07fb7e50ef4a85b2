"""How long to wait after failures in a row."""

import random

#: Seconds: the longest pause.
LONGEST = 600.0


def backoff(failures: int, longest: float = LONGEST) -> float:
    """Seconds to wait after `failures` in a row: 1 to 2, 2 to 4, ... up to `longest`. Never the same twice."""
    return min(longest, 2.0 ** min(failures, 20)) * random.uniform(0.5, 1.0)
