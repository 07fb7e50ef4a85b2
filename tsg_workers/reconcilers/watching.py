"""Watching: groups whose account's changefeed is not heard any more are checked at their intervals again."""

from shared import log
from shared.state import feed_messages, feeds
from shared.store.db import Database

_log = log.get(__name__)

#: Seconds between two looks: for so long a dead machine may go unseen once the feed has ended.
EVERY = 5.0


def mend(database: Database) -> bool:
    """Note which `tsg-feed` have ended, and bring groups back that were to be checked less often. Always complete."""
    unwatched = database.transact(feeds.mark_unwatched, alone=True)
    brought_back = database.transact(feed_messages.bring_back)
    if unwatched:
        _log.warning("accounts_not_watched", accounts=unwatched, groups=brought_back, meaning="their tsg-feed has ended")
    return True
