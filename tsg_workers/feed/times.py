"""How long each thing takes at most."""

from typing import NamedTuple


class Times(NamedTuple):
    """Seconds."""

    #: Between looks at whose the accounts are. A seat ends `seat` after its holder's death: another has its accounts within 15 s.
    round: float = 3.0
    seat: float = 10.0
    #: Until a message must have come about a launch or deletion of this service, and about what a check found. Two are usual.
    sent_within: float = 30.0
    found_within: float = 10.0
    #: Until a mute connection is replaced by another.
    mute: float = 600.0
    #: For which a connection is not trusted that sent messages, but none about an event.
    doubt: float = 3600.0


USUAL = Times()
