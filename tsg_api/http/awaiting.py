"""What a resource needs whose requests may wait: a slot for each that does, and the thread that watches for all of them."""

from collections.abc import Callable
from typing import Generic

import falcon

from tsg_api.http.service import Service
from tsg_api.http.waiting import WAITED, IsGone, K, Parked, Resume, Watcher


class Awaiting(Generic[K]):
    """`has_ended` says of what a request waits for whether there is nothing to wait for any more."""

    def __init__(self, service: Service, has_ended: Callable[[K], bool]) -> None:
        self._slots = service.slots.settling
        self._parks = service.parks
        self._watcher = Watcher(has_ended, service.stopping)

    def wait(self, req: falcon.Request, resp: falcon.Response, awaited: K, seconds: float) -> bool:
        """Wait until `awaited` has ended, or the seconds are over. True: look again.

        Where the server can park the request, it is run again then, and comes here no more. False when it has waited already, and when
        too many wait: the answer comes before its time, and says so.
        """
        account = req.context.account.id
        if WAITED in req.env:
            return False
        if not self._slots.acquire(account):
            resp.set_header("Retry-After", "1")
            return False
        if self._parks:
            req.env[WAITED] = req.context

            def begin(resume: Resume, is_gone: IsGone) -> None:
                def end() -> None:
                    self._slots.release(account)
                    resume()

                self._watcher.add(awaited, seconds, end, is_gone)

            raise Parked(begin)
        try:
            self._watcher.wait(awaited, seconds)
        finally:
            self._slots.release(account)
        return True
