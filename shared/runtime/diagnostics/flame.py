"""A profile for the browser, drawn by pyinstrument: a tree and a flame graph in one page that needs nothing from elsewhere."""

import sys
import time

from pyinstrument.renderers import HTMLRenderer
from pyinstrument.session import Session

from shared.runtime.diagnostics.sampler import PERIOD, Samples


def page(program: str, samples: Samples) -> str:
    """Processor time, or wall time where the system has no clock for each thread. The outermost level is the threads."""
    has_cpu = any(spent.cpu for spent in samples.spent.values())
    records = []
    for (thread, stack), spent in sorted(samples.spent.items(), key=lambda item: item[0][0]):
        nanoseconds = spent.cpu if has_cpu else spent.wall
        calls = [f"{frame.function}\0{frame.file}\0{frame.start}\1l{frame.line}" for frame in reversed(stack)]
        if nanoseconds:
            records.append(([f"{thread}\0{thread}\x000", *calls], nanoseconds / 1e9))
    total = sum(seconds for _calls, seconds in records)
    session = Session.from_json(
        {
            "frame_records": records,
            "start_time": time.time() - samples.seconds,
            "duration": total,
            "min_interval": PERIOD,
            "max_interval": PERIOD,
            "sample_count": sum(spent.looks for spent in samples.spent.values()),
            # What all stacks have in common is cut off as far as it is told here: nothing is.
            "start_call_stack": [""],
            "target_description": f"{program}: {'processor' if has_cpu else 'wall'} time of all threads in {samples.seconds:.1f} seconds",
            "cpu_time": total,
            "sys_path": sys.path,
        }
    )
    return str(HTMLRenderer().render(session))
