"""How long each thing takes at most."""

from typing import NamedTuple


class Times(NamedTuple):
    """Seconds."""

    #: Between looks at whose the accounts are. A seat ends `seat` after its holder's death: another has its accounts within 15 s.
    round: float = 3.0
    seat: float = 10.0
    #: After which a launch or deletion of ours must have been told, and what a check found. Usually both are told within two.
    told_within: float = 30.0
    found_within: float = 10.0
    #: Until a mute connection is replaced by another.
    mute: float = 600.0
    #: For which an account is not trusted that was told other things, but not what happened.
    doubt: float = 3600.0


USUAL = Times()
