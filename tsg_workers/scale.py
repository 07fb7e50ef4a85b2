"""tsg-scale GROUP_ID: what a Nomad job runs - the same converge as a worker's, in the foreground, under the same lease.

Audit lines go to standard output, one JSON object for each launch and deletion in the words of 2018; the log goes to standard error.
"""

import argparse
import sys
from collections.abc import Sequence

from shared.runtime import flags


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tsg-scale",
        description="Bring one group to its capacity.",
        epilog="Exit codes: 0 settled, 1 failed, 2 wrong usage or settings, 75 not there yet, try again.",
    )
    flags.add(parser)
    parser.add_argument("group_id", metavar="GROUP_ID", help="the group's UUID")
    parser.add_argument("--wait", action="store_true", help="go on until the group is settled, instead of for one pass")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="with --wait: seconds before giving up (default 600)")
    given = parser.parse_args(arguments)
    # Imported here: `--help` should not wait for what it does not need.
    from tsg_workers import foreground  # noqa: PLC0415

    return foreground.run(given)


if __name__ == "__main__":
    sys.exit(main())
