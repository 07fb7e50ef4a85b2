"""The operator's limits that a plan respects."""

from typing import NamedTuple


class Limits(NamedTuple):
    """Where they come from: `shared.runtime.settings`."""

    #: Seconds that a machine may take to come up, and that CloudAPI may take to list the machine of an unanswered launch.
    provision_timeout: int
    launch_grace: int
    #: Per cent of a group's desired capacity that may be under replacement at the same time; at least one instance.
    replace_percent: int = 20
    #: Failed attempts to launch in a row after which the circuit opens: launches are tried one at a time.
    breaker: int = 5
    #: By this share of its interval a group may be checked early, so that groups made together are not checked together for ever.
    spread: float = 0.1
    #: How many times less often settled groups are checked while the account's changefeed reports what happens to its machines.
    watched_factor: float = 1.0
