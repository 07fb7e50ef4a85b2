"""The sources of measures that there are with these settings."""

from collections.abc import Callable, Sequence

from shared.clients.pushed import Pushed
from shared.measures.gather import Gatherer
from shared.measures.pushed import PushedSource
from shared.measures.source import Source
from shared.runtime.settings import Settings
from shared.state import policies
from shared.state.policies import Scaled
from shared.store.db import Database


def make_gatherer(chosen: Settings, database: Database) -> Gatherer:
    """Asks all sources, each on threads of its own."""
    sources: dict[str, Source] = {"pushed": PushedSource(Pushed(chosen.redis_url))}
    return Gatherer(sources, list_members(database))


def list_members(database: Database) -> Callable[[Scaled], Sequence[str]]:
    """Lists the machines of a group's available members."""

    def members(group: Scaled) -> list[str]:
        with database.read() as connection:
            return policies.list_available(connection, group.id, ready_seconds=group.settings.ready_seconds)

    return members
