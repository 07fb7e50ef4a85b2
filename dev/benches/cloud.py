"""A simulated CloudAPI that is full of machines from the first: `python -m dev.benches.cloud FILE MADE`; prints its address.

What it was filled with is in MADE: account, group and machine, a line each.
"""

import json
import signal
import sys
import threading
from pathlib import Path

from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK, DEFAULT_PACKAGE
from dev.sim.cloudapi.order import Order
from dev.sim.cloudapi.simulator import Simulator
from shared.runtime.signals import wait


def main() -> int:
    wanted = json.loads(Path(sys.argv[1]).read_text())
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    with Simulator(throttle=False, provision_seconds=0) as simulator, Path(sys.argv[2]).open("w") as made:
        cloud = simulator.cloud
        for tenant in wanted["accounts"]:
            account = cloud.add_account(tenant["login"], [wanted["key"]], uuid=tenant["uuid"])
            for group_id, name in tenant["groups"]:
                for _ in range(wanted["instances"]):
                    order = Order(
                        name=None,
                        image=cloud.images[DEFAULT_IMAGE],
                        package=cloud.packages[DEFAULT_PACKAGE],
                        networks=[cloud.networks_of(account)[DEFAULT_NETWORK]],
                        tags={"tsg.name": name, "tsg.group": group_id},
                    )
                    machine_id, _shown = cloud.create_machine(account, order)
                    made.write(f"{tenant['id']}\t{group_id}\t{machine_id}\n")
        made.close()
        print(simulator.url, flush=True)
        wait(stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
