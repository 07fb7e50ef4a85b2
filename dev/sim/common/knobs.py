"""Everything that can be turned while a simulator runs: `GET` and `PATCH /--sim/knobs`, or `simulator.knobs` in a test."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, get_type_hints

from dev.sim.common.wanted import ANY_TEXT, COUNT, ERROR_STATUS, FLAG, SECONDS, SHARE, check

Seconds = Annotated[float, SECONDS]
Share = Annotated[float, SHARE]
Count = Annotated[int, COUNT]
Flag = Annotated[bool, FLAG]
Text = Annotated[str, ANY_TEXT]
Status = Annotated[int, ERROR_STATUS]


@dataclass
class Knobs:
    """Fields of `Annotated[<type>, Wanted]`."""

    def turn(self, changes: Mapping[str, Any]) -> None:
        """Set several knobs, all or none. Raises Unwanted."""
        hints = get_type_hints(type(self), include_extras=True)
        check(changes, {name: hint.__metadata__[0] for name, hint in hints.items()}, what="knob")
        for name, value in changes.items():
            setattr(self, name, value)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
