"""A database of 2018 taken over: its dump loaded, the tables upgraded, the service started, and what already runs left running."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.services import scratch
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from dev.stack import ACCOUNT, DATABASE, DATACENTER, TRITON_UUID, Stack
from shared.clients import keys
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI, Rejected
from shared.clients.keys import KeyPair
from shared.clients.signature import Signer
from tests.conftest import order
from tests.e2e.conftest import SETTINGS, Service

KEY_NAME = f"TSG_Management_{DATACENTER}"
KEY_ID, ACCOUNT_ID, USER_ID = (f"1d32f239-81e2-4e35-a258-a5649dc4e7f{digit}" for digit in (3, 4, 5))
TEMPLATE_ID, BARE_TEMPLATE_ID = "ad74301e-ad62-404a-be44-3b2f24d082ac", "f1ead2a9-92fc-4435-9eb8-9e520bc3e4f9"
WEB, API, GONE = "9e075e5d-60d5-4cff-968e-b70db0badc12", "77135218-9e49-4ef7-81da-09de9ec580ff", "95fb339f-8f8d-4184-ac5f-2c57e838136e"

#: A template whose image is another customer's, and its group. CloudAPI launched such an image unasked in 2018, and since 9.0 only with
#: `allow_shared_images`.
SHARED_TEMPLATE_ID, SHARED = "0f9d3b0e-6c1e-4a8e-9d3f-5b7f2f7f6a01", "c0a7a3c5-1f0b-4d57-8a36-0a4b4c1f9a02"
SHARED_IMAGE, NEIGHBOUR = "4d2c8e1a-7b3f-4e5d-9c6a-8f1b2e3d4c03", "b8e5f6a7-2c4d-4e1f-8a9b-3c5d7e9f1a04"

#: What runs in the cloud under each name when the service of 2018 is stopped.
RUNNING = {"web": 2, "api": 1, "somebody-else": 1}

AT = "'2018-04-14 15:24:20.205784+00:00'"


def escaped(text: str) -> str:
    lines = text.replace("'", "\\'").replace("\n", "\\n")
    return f"e'{lines}'"


def dump(pair: KeyPair) -> str:
    """The rows as `cockroach dump --dump-mode=data` writes them. The private key is in clear text, as it was."""
    return f"""
INSERT INTO tsg_keys (id, name, fingerprint, material, account_id, created_at, updated_at, archived) VALUES
\t('{KEY_ID}', '{KEY_NAME}', '{pair.fingerprint}', {escaped(pair.private_pem)}, NULL, {AT}, {AT}, false);

INSERT INTO tsg_accounts (id, account_name, triton_uuid, key_id, created_at, updated_at, archived) VALUES
\t('{ACCOUNT_ID}', '{ACCOUNT}', '{TRITON_UUID}', '{KEY_ID}', {AT}, {AT}, false);

INSERT INTO tsg_users (id, username, account_id, created_at, updated_at, archived) VALUES
\t('{USER_ID}', 'bob', '{ACCOUNT_ID}', {AT}, {AT}, false);

INSERT INTO tsg_templates (id, template_name, account_id, package, image_id, firewall_enabled, networks, userdata, metadata, tags,
    created_at, archived) VALUES
\t('{TEMPLATE_ID}', 'web-1', '{ACCOUNT_ID}', '{DEFAULT_PACKAGE}', '{DEFAULT_IMAGE}', false, '', e'#!/bin/sh\\necho it\\'s up\\n',
    '{{"color":"blue"}}', '{{"role":"web"}}', {AT}, false),
\t('{BARE_TEMPLATE_ID}', 'bare', '{ACCOUNT_ID}', '{DEFAULT_PACKAGE}', '{DEFAULT_IMAGE}', NULL, NULL, NULL, 'null', NULL, {AT}, false),
\t('{SHARED_TEMPLATE_ID}', 'shared', '{ACCOUNT_ID}', '{DEFAULT_PACKAGE}', '{SHARED_IMAGE}', false, '', '', 'null', 'null', {AT}, false);

INSERT INTO tsg_groups (id, name, template_id, account_id, capacity, health_check_interval, created_at, updated_at, archived) VALUES
\t('{WEB}', 'web', '{TEMPLATE_ID}', '{ACCOUNT_ID}', 3, 300, {AT}, {AT}, false),
\t('{API}', 'api', '{BARE_TEMPLATE_ID}', '{ACCOUNT_ID}', 1, NULL, {AT}, {AT}, false),
\t('{SHARED}', 'shared', '{SHARED_TEMPLATE_ID}', '{ACCOUNT_ID}', 1, 300, {AT}, {AT}, false),
\t('{GONE}', 'web', '{TEMPLATE_ID}', '{ACCOUNT_ID}', 9, 300, {AT}, {AT}, true);
"""


class StackOf2018(Stack):
    """A stack whose database and cloud are as the 2018 service left them."""

    def _make_database(self) -> None:
        pair = keys.generate()
        user = CloudAPI(self.cloud_url, Timeouts(5, 30)).as_account(ACCOUNT, Signer(ACCOUNT, self.key_id, self.key_file.read_text()))
        user.add_key(KEY_NAME, pair.public_line)
        image = {"id": SHARED_IMAGE, "public": False, "owner": NEIGHBOUR, "acl": [TRITON_UUID]}
        self.cloud("POST", "/images", image)
        with pytest.raises(Rejected, match="is a shared image"):
            user.create_machine(order("unasked", {}, image=SHARED_IMAGE))
        for name, count in RUNNING.items():
            for number in range(count):
                user.create_machine(order(f"{name}-{number}", {"tsg.name": name, "tsg.template": TEMPLATE_ID}))
        self.postgres.drop_database(DATABASE)
        self.postgres.create_database(DATABASE)
        # As docs/moving-from-2018.md has it.
        self._admin("db", "upgrade", "--revision", "0001")
        self.sql(dump(pair))
        self._admin("db", "upgrade")

    def _admin(self, *arguments: str) -> None:
        done = self.run("tsg-admin", *arguments)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def service(cluster: Path) -> Iterator[Service]:
    with scratch() as directory:
        options: dict[str, Any] = {"workers": 1, "provision_seconds": 1.0, "durable": False, "settings": SETTINGS, "copy_of": cluster}
        with StackOf2018(directory, **options) as stack:
            yield Service(stack)


def named(service: Service, name: str) -> dict[str, str]:
    """Machines of a group's name that exist, and their states: those of 2018 say no more of whose they are."""
    machines = service.stack.cloud("GET", "/state")["machines"]
    return {
        machine["id"]: machine["state"] for machine in machines if machine["tags"].get("tsg.name") == name and machine["state"] != "deleted"
    }


def test_a_dump_of_2018_is_taken_over_and_nothing_is_launched_twice_or_deleted(service: Service) -> None:
    tsg = service.tsg
    listed = {group["id"]: (group["group_name"], group["capacity"], group["created_at"]) for group in tsg.ok("GET", "/groups")}
    made = "2018-04-14T15:24:20.205784Z"
    assert listed == {WEB: ("web", 3, made), API: ("api", 1, made), SHARED: ("shared", 1, made)}
    templates = {template["id"]: template for template in tsg.ok("GET", "/templates")}
    assert templates.keys() == {TEMPLATE_ID, BARE_TEMPLATE_ID, SHARED_TEMPLATE_ID}
    assert templates[TEMPLATE_ID]["userdata"] == "#!/bin/sh\necho it's up\n"
    assert (templates[BARE_TEMPLATE_ID]["metadata"], templates[BARE_TEMPLATE_ID]["networks"]) == (None, [])

    service.wait("three run", lambda: list(named(service, "web").values()) == ["running"] * 3)
    service.wait("all groups are settled", lambda: all(service.is_settled({"id": group}) for group in (WEB, API, SHARED)))
    assert service.counters()["creates_accepted"] == sum(RUNNING.values()) + 2, "one was missing, and one whose image is shared"
    assert list(named(service, "shared").values()) == ["running"]
    assert len(tsg.ok("GET", f"/groups/{WEB}/instances")) == 3
    listed_by_admin = service.stack.run("tsg-admin", "groups", "list")
    assert listed_by_admin.returncode == 0
    assert WEB in listed_by_admin.stdout
    assert API in listed_by_admin.stdout
    assert GONE not in listed_by_admin.stdout

    tsg.ok("PUT", f"/groups/{WEB}/increment", {"instance_count": 2, "max_instance": 10}, status=202)
    service.wait("five run", lambda: list(named(service, "web").values()) == ["running"] * 5)
    service.wait("the group is settled", lambda: service.is_settled({"id": WEB}))
    counters = service.counters()
    assert (counters["creates_accepted"], counters["deletes_accepted"]) == (sum(RUNNING.values()) + 4, 0)
    assert len(named(service, "api")) == 1
    assert len(named(service, "somebody-else")) == 1

    # The key of 2018 was used, and is sealed now.
    ((key_id, material),) = service.stack.sql("SELECT k.id::text, k.material FROM tsg_accounts a JOIN tsg_keys k ON k.id = a.key_id")
    assert key_id == KEY_ID
    assert "PRIVATE KEY" not in material

    tsg.ok("DELETE", f"/groups/{WEB}", status=204)
    service.wait("all of the group is gone, those of 2018 too", lambda: named(service, "web") == {})
    assert len(named(service, "somebody-else")) == 1
