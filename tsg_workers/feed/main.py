"""tsg-feed: watches the machines of all accounts by CloudAPI's changefeed, so that a dead one is noticed in seconds.

It makes groups due and wakes workers, and does nothing else: without it, groups are checked at their intervals. Several may run, and share
the accounts.
"""

import argparse
import asyncio
import sys
import threading
from collections.abc import Sequence

from shared import log
from shared.clients.changefeed import Changefeed
from shared.clients.keys import Sealer
from shared.clients.queue import CONVERGE, WakeUps, make_broker
from shared.runtime import diagnostics, flags, health, monitor, program
from shared.runtime.checks import health_of
from shared.runtime.settings import Settings
from shared.runtime.signals import on_signal, wait
from shared.state.feeds import FeedState
from shared.store import db
from tsg_workers import wiring
from tsg_workers.feed.feeds import Feeds

_log = log.get(__name__)

#: Connections to the database: for a look, a write, and the key of an account that is just opened.
POOL = 3
#: What /readyz says of a CloudAPI that has no changefeed.
NOT_OFFERED = "not offered"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tsg-feed", description="Watch machines by CloudAPI's changefeed, and wake workers when one changes."
    )
    flags.add(parser)
    return watch(program.begin(parser.prog, parser.parse_args(arguments)))


def watch(chosen: Settings) -> int:
    """Watch until a signal comes."""
    stop = threading.Event()
    database = db.connect(chosen.database_url, pool_size=POOL)
    offered = _Offered()
    more = {health.CHANGEFEED: offered.check} if chosen.feed == "on" else {}
    healthy = health_of(chosen, database.engine.url, needed={health.DATABASE, health.MIGRATIONS, health.QUEUE}, more=more)
    on_signal(healthy.drain, stop.set)
    with monitor.serving(monitor.listen_or_exit("tsg-feed", chosen), healthy):
        doors = diagnostics.start(chosen, "tsg-feed")
        if chosen.feed == "off":
            _log.info("feed_is_off", meaning="TSG_FEED=off: groups are checked at their intervals")
            wait(stop)
        else:
            asyncio.run(_watch(chosen, database, offered, stop))
        doors.stop()
    database.close()
    _log.info("stopped")
    return 0


async def _watch(chosen: Settings, database: db.Database, offered: "_Offered", stop: threading.Event) -> None:
    wake_ups = WakeUps(make_broker(chosen.redis_url))
    feeds = Feeds(
        database,
        Changefeed(chosen.triton_url, chosen.triton_trust),
        Sealer(chosen.secret_keys),
        lambda account_id: wake_ups.enqueue(CONVERGE, account_id),
        owner=wiring.name(),
    )
    offered.feeds = feeds
    _log.info("watching", id=feeds.id)
    running = asyncio.create_task(feeds.run())
    stopped = asyncio.create_task(asyncio.to_thread(wait, stop))
    await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    running.cancel()
    await asyncio.wait((running, stopped))
    wake_ups.close()
    if not running.cancelled():
        running.result()


class _Offered:
    """Is there a changefeed at all? Asked with TSG_FEED=on alone."""

    feeds: Feeds | None = None

    def check(self) -> str:
        states = {watch.state for watch in tuple(self.feeds.watches.values())} if self.feeds else set()
        return NOT_OFFERED if states & {FeedState.TOO_OLD, FeedState.STRIPPED} else health.OK


if __name__ == "__main__":
    sys.exit(main())
