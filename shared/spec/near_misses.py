"""Names that are no field of a template, and that somebody writes who means one, or something that CloudAPI has and a template has not."""

import json
import re
from collections.abc import Collection
from difflib import get_close_matches

#: How alike two names are that are taken for one, out of 1.
ALIKE = 0.85
#: Characters of a name below which two are never alike.
SHORT = 5

_NO_SECRETS = "it would be a secret stored by this service: images make a password themselves, which CloudAPI shows (?credentials=true)"
_SCRIPT = "write user_script for a script that runs at every boot, cloud_config for cloud-init, or userdata for data that nothing executes"
_ADDRESS = "the instances of a group cannot share an address: name networks, and CloudAPI gives each instance an address of its own"
_PLACES = "write affinity (rules) or spread (this group's instances on different servers)"

#: By name, without `_` and `-` and in lower case: what to write instead, or why there is no such field.
_INSTEAD = {
    "deletionprotection": "scaling in would have to break it: protect single members of the group instead",
    "locality": f"CloudAPI has given it up: {_PLACES}",
    "placement": _PLACES,
    "antiaffinity": _PLACES,
    "placementrules": _PLACES,
    "defaultnetworks": "write networks, with the ids of the networks",
    "bootrom": "it follows from the image",
    "administratorpw": _NO_SECRETS,
    "adminpassword": _NO_SECRETS,
    "password": _NO_SECRETS,
    "credentials": _NO_SECRETS,
    "rootauthorizedkeys": "CloudAPI writes the account's own keys there: add the key to the account",
    "sshkeys": "instances get the account's own keys: add the key to the account",
    "name": "the template's own name is template_name, and instance_name says what its instances are called",
    "alias": "instance_name says what instances are called",
    "hostname": "instance_name says what instances are called",
    "machinename": "instance_name says what instances are called",
    "ipv4ips": _ADDRESS,
    "ips": _ADDRESS,
    "ip": _ADDRESS,
    "ipaddress": _ADDRESS,
    "primaryip": _ADDRESS,
    "nics": "write networks",
    "nic": "write networks",
    "networkids": "write networks",
    "networkobjects": "write networks",
    "userdata": _SCRIPT,
    "script": _SCRIPT,
    "startupscript": _SCRIPT,
    "bootscript": _SCRIPT,
    "cloudinit": "write cloud_config",
    "cloudinituserdata": "write cloud_config",
    "image": "write image_id, with the UUID of the image",
    "imageuuid": "write image_id",
    "imagename": "write image_id, with the UUID of the image",
    "dataset": "write image_id for the image, or delegate_dataset for a ZFS dataset of the instance's own",
    "delegateddataset": "write delegate_dataset",
    "packageid": "write package",
    "packagename": "write package",
    "packageuuid": "write package",
    "flavor": "write package",
    "disk": "write disks",
    "disksize": "write disks",
    "encryption": "write encrypted",
    "mount": "write volumes",
    "mounts": "write volumes",
    "nfsvolumes": "write volumes",
    "label": "write tags",
    "labels": "write tags",
    "firewall": "write firewall_enabled",
    "enablefirewall": "write firewall_enabled",
    "cns": "write cns_services",
    "services": "write cns_services",
    "sharedimages": "write allow_shared_images",
    "allowsharedimage": "write allow_shared_images",
}


def problem(name: str, fields: Collection[str]) -> str | None:
    """What to say of a name that is none of the fields; None when it is to be ignored, as in 2018."""
    bare = _bare(name)
    kind, dot, key = name.partition(".")
    if dot and (pairs := {"tag": "tags", "metadata": "metadata"}.get(kind.casefold())):
        return f"a template has no {name}: write {pairs}, an object with {json.dumps(key, ensure_ascii=False)} in it"
    instead = _INSTEAD.get(bare) or _INSTEAD.get(bare.removesuffix("s"))
    if instead is None:
        known = {_bare(field): field for field in fields}
        alike = get_close_matches(bare, known, 1, ALIKE) if len(bare) >= SHORT else []
        meant = next(
            (known[one] for one in (bare, f"{bare}s", bare.removesuffix("s"), re.sub("ies$", "y", bare), *alike) if one in known), None
        )
        if meant is None:
            return None
        instead = f"write {meant}"
    return f"a template has no {name}: {instead}"


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
