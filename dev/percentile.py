"""Percentiles, as all benches and the soak have them."""

import math
from collections.abc import Iterable


def percentile(values: Iterable[float], share: float) -> float:
    """The least of the values that this share of them does not exceed; not a number where there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else math.nan
