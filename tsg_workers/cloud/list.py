"""CloudAPI's list of an account's machines with this service's tags.

Most lists say what the last one said. To see that takes their bytes; to read them takes a hundred times as long.
"""

import hashlib
import time
from functools import cached_property

from shared.clients.cloudapi import Client, Machine, Page
from shared.spec.machines import TAG_NAME

#: Bytes of a list that are kept until it is read. A longer one is read as it comes: a machine may hold 100 kB of metadata.
KEPT_BYTES = 16 << 20


class Listing:
    """One list, however many pages. `CloudAPIError` when there is none to be had, also when it is read."""

    def __init__(self, client: Client, *, filtered: bool = True) -> None:
        """Not `filtered`: all machines of the account come, and those with the tags are picked here and not by CloudAPI."""
        filters = {f"tag.{TAG_NAME}": "*"} if filtered else {}
        self._filtered = filtered
        began = time.monotonic()
        digest, self._read, self._unread, kept = hashlib.blake2b(digest_size=16), dict[str, Machine](), list[Page](), 0
        for page in client.pages(**filters):
            digest.update(page.body)
            self._unread.append(page)
            kept += len(page.body)
            if kept > KEPT_BYTES:
                self._read_on()
        #: The same while CloudAPI says the same.
        self.digest = digest.hexdigest()
        #: Seconds that it took to come.
        self.took = time.monotonic() - began

    @cached_property
    def machines(self) -> dict[str, Machine]:
        """All machines, by their ids."""
        self._read_on()
        return self._read

    def _read_on(self) -> None:
        for page in self._unread:
            found = page.machines(with_bodies=False)
            self._read |= {machine.id: machine for machine in found if self._filtered or TAG_NAME in machine.tags}
        self._unread.clear()
