"""The fields of a template: each is one entry here, and nothing else has to know of it.

From `FIELDS` come what is accepted and refused, the description of the API, the table in docs/templates.md, what is stored where, the
body of the request for an instance, and what differs between two templates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from shared.rules import Text
from shared.spec import columns, sending, values
from shared.spec.columns import Column
from shared.spec.sending import Send
from shared.spec.tags import SERVICES


@dataclass(frozen=True, eq=False)
class Field:
    """One field, by its name in JSON. Where it is not given, or null, it is `default`; where that is nothing, `implied` is sent."""

    name: str
    #: What it may hold: pydantic's type, with the rules of `values`; and in words.
    type: Any
    rule: str
    #: How it goes to CloudAPI; and in words.
    send: Send
    sent: str
    #: What it is for.
    words: str
    #: Valid values.
    examples: Sequence[Any]
    #: The column that it has had since 2018. Without one it is in the document of `tsg_templates.more`, and shown only where it was given.
    column: Column | None = None
    is_required: bool = False
    default: Any = None
    implied: Any = None
    #: A running instance can take over a change of it.
    is_in_place: bool = False

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Its rules, for a value by itself: to be used strictly."""
        return TypeAdapter(self.type)


_UUID_EXAMPLE = "9ec60129-9034-47b4-b111-3026f9b1a10f"

FIELDS: tuple[Field, ...] = (
    Field(
        "package",
        values.Package,
        "UUID, or name of at most 255 of `A-Z a-z 0-9 _ . + -`",
        sending.as_ids("package"),
        "`package`",
        "How large an instance is. For a name, CloudAPI takes the newest active package at each launch",
        ("2d3ffb0c-0a5b-4d4f-9f0a-6f2a8d0f5101", "sim-small"),
        columns.TEXT,
        is_required=True,
    ),
    Field(
        "image_id",
        values.Image,
        "UUID",
        sending.as_ids("image"),
        "`image`",
        "What an instance is made from",
        ("7b27a514-89d7-11e6-bee6-3f96f367bee7",),
        columns.TEXT,
        is_required=True,
    ),
    Field(
        "firewall_enabled",
        bool,
        "`true` or `false`",
        sending.as_field("firewall_enabled"),
        "`firewall_enabled`",
        "Whether the account's firewall rules apply",
        (True, False),
        columns.BOOLEAN,
        default=False,
        is_in_place=True,
    ),
    Field(
        "networks",
        values.Networks,
        'at most 32 UUIDs, or as many `{"ipv4_uuid": UUID}`; none twice',
        sending.networks,
        "`networks`",
        "The networks in which an instance gets an address. Without any, CloudAPI chooses",
        ([_UUID_EXAMPLE], [{"ipv4_uuid": _UUID_EXAMPLE}]),
        columns.IDS,
        default=[],
    ),
    Field(
        "userdata",
        Text,
        "text",
        sending.as_metadata("user-data"),
        "metadata `user-data`",
        "Data for a script in the instance to read. Nothing executes it",
        ("role=web",),
        columns.LONG_TEXT,
        default="",
    ),
    Field(
        "metadata",
        values.Metadata,
        "object to strings, numbers and booleans. No name that CloudAPI drops or overwrites",
        sending.as_pairs("metadata"),
        "`metadata.NAME`",
        "Data that an instance reads with `mdata-get NAME`",
        ({"role": "web", "workers": 4},),
        columns.PAIRS,
        is_in_place=True,
    ),
    Field(
        "tags",
        values.Tags,
        "object to strings, numbers and booleans. No `tsg.` tags; of `triton.` only those that CloudAPI knows",
        sending.as_pairs("tag"),
        "`tag.NAME`",
        "Tags, by which firewall rules, affinity rules and lists select an instance",
        ({"role": "web", "triton.cns.disable": True},),
        columns.PAIRS,
        is_in_place=True,
    ),
    Field(
        "affinity",
        values.Affinity,
        "a rule, or at most 10: `KEY==VALUE`, `KEY!=VALUE` (hard), `KEY==~VALUE`, `KEY!=~VALUE` (soft); all hard, or all soft",
        sending.affinity,
        "`affinity`",
        "On which servers an instance may, or should, be placed, by the instances that run there",
        ("role!=~db", ["role!=db", "instance!=/^build-/"]),
    ),
    Field(
        "spread",
        values.Spread,
        "`none`, `prefer` or `require`. Not with `affinity` of the other hardness",
        sending.spread,
        "`affinity`: `tsg.group!=~GROUP` or `tsg.group!=GROUP`",
        "Whether the group's instances should, or must, be on different servers",
        ("prefer", "require", "none"),
    ),
    Field(
        "volumes",
        values.Volumes,
        "at most 8 `{name, mountpoint, mode, type}`: `mode` is `rw` or `ro`, `type` is `tritonnfs`; no mountpoint twice",
        sending.as_array("volumes"),
        "`volumes`",
        "NFS volumes that all instances of the group mount",
        ([{"name": "shared", "mountpoint": "/data", "mode": "ro"}],),
    ),
    Field(
        "disks",
        values.Disks,
        '1 to 8 `{size, block_size, boot}`: `size` in MiB, one may be `"remaining"`; the first is the image\'s own',
        sending.as_field("disks"),
        "`disks`",
        "The disks of a virtual machine whose package has `flexible_disk`",
        ([{}, {"size": 10240}, {"size": "remaining"}],),
    ),
    Field(
        "brand",
        values.Brand,
        "`bhyve` or `kvm`",
        sending.as_field("brand"),
        "`brand`",
        "The hypervisor, if image and package allow both",
        ("bhyve", "kvm"),
    ),
    Field(
        "delegate_dataset",
        bool,
        "`true` or `false`",
        sending.when_true("delegate_dataset"),
        "`delegate_dataset`, when true",
        "Whether a zone gets a ZFS dataset that it manages itself",
        (True, False),
    ),
    Field(
        "encrypted",
        bool,
        "`true` or `false`",
        sending.when_true("encrypted"),
        "`encrypted`, when true",
        "Whether the server must have encrypted storage",
        (True, False),
    ),
    Field(
        "allow_shared_images",
        bool,
        "`true` (the default) or `false`",
        sending.when_true("allow_shared_images"),
        "`allow_shared_images`, unless false",
        "Whether the image may be one that another account shares with this one",
        (True, False),
        implied=True,
    ),
    Field(
        "user_script",
        values.script("user_script"),
        "text of at most 64 KiB. Not with metadata `user-script`",
        sending.as_metadata("user-script"),
        "metadata `user-script`",
        "A script that the instance runs at every boot",
        ("#!/bin/sh\ntouch /var/tmp/booted\n",),
    ),
    Field(
        "cloud_config",
        values.script("cloud_config"),
        "text of at most 64 KiB. Not with metadata `cloud-init:user-data`",
        sending.as_metadata("cloud-init:user-data"),
        "metadata `cloud-init:user-data`",
        "What cloud-init does at the first boot, on images that have it",
        ("#cloud-config\npackages: [nginx]\n",),
    ),
    Field(
        "cns_services",
        values.CnsServices,
        "array of `NAME[:PORT][:priority=N][:weight=N]`. Not with the tag `triton.cns.services`",
        sending.as_tag(SERVICES),
        "tag `triton.cns.services`",
        "Names in DNS that lead to all running instances of the group",
        (["web", "api:8080:priority=10"],),
        is_in_place=True,
    ),
    Field(
        "instance_name",
        values.InstanceName,
        "letters, digits and `-`, with `{{shortId}}` and perhaps `{{group}}`; at most 63 characters once filled in",
        sending.name,
        "`name`",
        "The name of an instance. Without it: `tsg-TEMPLATE-{{shortId}}`",
        ("{{group}}-{{shortId}}", "web-{{shortId}}"),
    ),
)


def by_name() -> dict[str, Field]:
    """The fields by their names."""
    return {field.name: field for field in FIELDS}
