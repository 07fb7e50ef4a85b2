"""Signals to stop: the first asks, the second one does not. A hang-up stops only what was started from a terminal."""

import os
import signal
import threading
from collections.abc import Callable

from shared import log

_log = log.get(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds that the main thread sleeps at a time.
AWAKE = 1.0


def on_signal(*calls: Callable[[], None]) -> None:
    """Call these, in order, at the first SIGTERM or SIGINT. The second one ends the process at once. For the main thread.

    SIGHUP is one of them when a terminal is our standard input: that has gone away then. A signal that is ignored goes on being ignored.
    """
    asked = (*SIGNALS, signal.SIGHUP) if os.isatty(0) else SIGNALS
    heeded = [number for number in asked if signal.getsignal(number) != signal.SIG_IGN]

    def tell() -> None:
        for call in calls:
            call()

    def handle(_number: int, _frame: object) -> None:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)
        # Not here: the handler interrupts the main thread anywhere, with whatever lock in its hand.
        threading.Thread(target=tell, name="stop", daemon=True).start()

    for number in heeded:
        signal.signal(number, handle)


def survive_hangup() -> None:
    """Log a SIGHUP, by which other daemons read their configuration again, and go on. For the main thread.

    Ours read it when they start. A process that was started from a terminal is left as it is (`on_signal`).
    """

    def tell() -> None:
        _log.warning("hangup_ignored", meaning="settings are read at the start: restart the process to change them")

    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL and not os.isatty(0):
        signal.signal(signal.SIGHUP, lambda _number, _frame: threading.Thread(target=tell, name="hangup", daemon=True).start())


def wait(stop: threading.Event) -> None:
    """Sleep until `stop` is set. For the main thread: a signal that came to another thread is heeded when this one runs again."""
    while not stop.wait(AWAKE):
        pass
