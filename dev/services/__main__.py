"""python -m dev.services --data DIR"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from dev.processes import ChildError, stop_on_signals
from dev.services import Postgres, ServiceError, Valkey


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.services", description="Runs a PostgreSQL and a Valkey until Ctrl-C.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where their data are kept")
    directory: Path = parser.parse_args().data
    stop_on_signals()
    try:
        with Postgres(directory / "postgres") as postgres, Valkey(directory / "valkey") as valkey:
            print(f"export TSG_DATABASE_URL={shlex.quote(postgres.url())}")
            print(f"export TSG_REDIS_URL={shlex.quote(valkey.url)}", flush=True)
            while postgres.running and valkey.running:
                time.sleep(0.5)
            ended = valkey if postgres.running else postgres
            print(f"{ended.name} has ended by itself; see {ended.log}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except (ServiceError, ChildError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
