"""Is Nomad there? While it is known to be away, nobody waits for its runs."""

import threading
from types import TracebackType
from typing import Self

from shared import log
from shared.clients.nomad import Nomad, NomadError

_log = log.get(__name__)

#: Seconds between questions.
PAUSE = 2.0


class NomadWatch:
    """Asks for Nomad's leader in a thread of its own, inside a `with`: a Nomad that hangs keeps nobody waiting."""

    def __init__(self, nomad: Nomad) -> None:
        self._nomad = nomad
        self._away = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nomad-watch", daemon=True)

    @property
    def is_away(self) -> bool:
        """Did Nomad not answer when it was asked last, or have no leader?"""
        return self._away.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """A question that is under way is left to itself."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self._nomad.leader()
            except NomadError as error:
                if not self._away.is_set():
                    _log.warning("nomad_is_away", error=str(error), meaning="workers do the scaling")
                self._away.set()
            else:
                if self._away.is_set():
                    _log.info("nomad_is_back")
                self._away.clear()
            self._stop.wait(PAUSE)
