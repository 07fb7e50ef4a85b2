"""Being told to stop: the first signal asks, the second one does not."""

import signal
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds that the main thread sleeps at a time.
AWAKE = 1.0


def on_signal(*told: Callable[[], None]) -> None:
    """Call these, in order, at the first SIGTERM or SIGINT. The second one ends the process at once. For the main thread.

    A signal that is ignored goes on being ignored.
    """
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]

    def tell() -> None:
        for call in told:
            call()

    def handle(_number: int, _frame: object) -> None:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)
        # Not here: the handler interrupts the main thread anywhere, with whatever lock in its hand.
        threading.Thread(target=tell, name="stop", daemon=True).start()

    for number in heeded:
        signal.signal(number, handle)


def wait(stop: threading.Event) -> None:
    """Sleep until `stop` is set. For the main thread: a signal that came to another thread is heeded when this one runs again."""
    while not stop.wait(AWAKE):
        pass
