"""The API, shared by all tests that do it no harm, each with an account of its own; and `make_api` for those that need another."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dev.services import Postgres, Valkey
from dev.sim.cloudapi.simulator import Simulator
from tests.conftest import new_database
from tests.integration.api.service import Api, Caller


@pytest.fixture(scope="session")
def api(postgres: Postgres, valkey: Valkey) -> Iterator[Api]:
    with new_database(postgres) as database, Simulator(throttle=False) as simulator, Api(database, simulator, valkey.url) as served:
        yield served


@pytest.fixture
def tsg(api: Api) -> Caller:
    """An account of the test's own, with nothing in it."""
    return api.new_account()


@pytest.fixture
def stranger(api: Api) -> Caller:
    """Another account."""
    return api.new_account()


@pytest.fixture
def make_api(postgres: Postgres, valkey: Valkey) -> Iterator[Callable[..., Api]]:
    """Starts an API with a database and a cloud of its own. The keywords are those of `Api`, which may replace any of it."""
    with ExitStack() as stack:

        def make(**options: Any) -> Api:
            database = options.pop("database", None) or stack.enter_context(new_database(postgres))
            simulator = options.pop("simulator", None) or stack.enter_context(Simulator(throttle=False))
            redis_url = options.pop("redis_url", valkey.url)
            return stack.enter_context(Api(database, simulator, redis_url, **options))

        yield make
