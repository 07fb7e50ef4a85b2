"""CloudAPI's list of an account's machines with this service's tags."""

from shared.clients.cloudapi import Client, Machine
from shared.spec.machines import TAG_NAME


def list_machines(client: Client) -> dict[str, Machine]:
    """One list, however many pages; machines by their ids. `CloudAPIError` when there is none to be had."""
    return {machine.id: machine for machine in client.machines(**{f"tag.{TAG_NAME}": "*"})}
