"""The development data of the contract: one account, six templates, six groups. It does not work against a CloudAPI."""

from sqlalchemy import Connection, func
from sqlalchemy.dialects.postgresql import insert

from shared.state import accounts
from shared.state.accounts import Account
from shared.store.tables import accounts as accounts_table
from shared.store.tables import groups, keys, templates

ACCOUNT_ID = "6f873d02-172c-418f-8416-4da2b50d5c53"
ACCOUNT_NAME = "joyent"
TRITON_UUID = "87307a00-ab96-4fec-8df7-1a256e49fbcc"
KEY_ID = "1d32f239-81e2-4e35-a258-a5649dc4e6f3"
KEY_FINGERPRINT = "5a:ce:1e:1d:b0:96:78:c6:7a:f2:f8:26:e1:b3:55:79"
IMAGE = "49b22aec-0c8a-11e6-8807-a3eb4db576ba"
NETWORK = "f7ed95d3-faaf-43ef-9346-15644403b963"

TEMPLATES = (
    "ad74301e-ad62-404a-be44-3b2f24d082ac",
    "f1ead2a9-92fc-4435-9eb8-9e520bc3e4f9",
    "93a4a267-498c-4911-a463-196eca9a5d99",
    "deee2b55-11ef-4ffa-b34d-d1035ae1943b",
    "8b5a6001-8a59-4d85-bc72-1af83015b2c2",
    "437c560d-b1a9-4dae-b3b3-6dbabb7d23a7",
)
#: Id, capacity and seconds between checks.
GROUPS = (
    ("9e075e5d-60d5-4cff-968e-b70db0badc12", 3, 300),
    ("77135218-9e49-4ef7-81da-09de9ec580ff", 3, 300),
    ("95fb339f-8f8d-4184-ac5f-2c57e838136e", 6, 60),
    ("9dd64b6a-3d2c-4e92-b280-ef0f6cf49d04", 1, 300),
    ("e6e5bc41-204f-4729-8189-ae3ec6385e95", 3, 120),
    ("1398d5b9-5750-4ed8-af0d-fe328f5d8cd0", 12, 300),
)


def load(connection: Connection) -> None:
    """Put in what is not there yet; what is there stays as it is."""
    account(connection)
    made = {"account_id": ACCOUNT_ID, "created_at": func.now(), "archived": False}
    for number, template_id in enumerate(TEMPLATES, start=1):
        spec = {"package": "test-package", "image_id": IMAGE, "networks": NETWORK, "userdata": "bash script here"}
        row = {"id": template_id, "template_name": f"test-template-{number}", "firewall_enabled": False, **spec, **made}
        connection.execute(insert(templates).values(row).on_conflict_do_nothing())
    for number, (group_id, capacity, interval) in enumerate(GROUPS, start=1):
        row = {"id": group_id, "name": f"test-group-{number}", "template_id": TEMPLATES[number - 1], "capacity": capacity, **made}
        values = {**row, "health_check_interval": interval, "updated_at": func.now(), "by_name": False}
        connection.execute(insert(groups).values(values).on_conflict_do_nothing())


def account(connection: Connection) -> Account:
    """The account of development mode, put in if it is not there."""
    stamps = {"created_at": func.now(), "updated_at": func.now()}
    key = {"id": KEY_ID, "name": "TSG_Management", "fingerprint": KEY_FINGERPRINT, "material": "no private key: development data"}
    connection.execute(insert(keys).values(account_id=ACCOUNT_ID, **key, **stamps).on_conflict_do_nothing())
    row = {"id": ACCOUNT_ID, "account_name": ACCOUNT_NAME, "triton_uuid": TRITON_UUID, "key_id": KEY_ID}
    connection.execute(insert(accounts_table).values(**row, **stamps).on_conflict_do_nothing())
    found = accounts.get(connection, ACCOUNT_ID)
    if found is None:
        raise LookupError(f"the development account {ACCOUNT_ID} is disabled, or another account has its UUID in Triton")
    return found
