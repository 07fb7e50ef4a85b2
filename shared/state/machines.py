"""A group's instance as a machine of CloudAPI: the request that creates it, and the tags that say which group and launch it belongs to."""

from collections.abc import Container, Mapping
from typing import Any

from shared.state.templates import Spec

TAG_NAME = "tsg.name"
TAG_GROUP = "tsg.group"
TAG_TEMPLATE = "tsg.template"
TAG_LAUNCH = "tsg.launch"


def find_owner(tags: Mapping[str, Any], group_ids: Container[str], by_name: Mapping[str, str]) -> str | None:
    """The id of the group that a machine with these tags belongs to, if that is one of `group_ids`.

    `tsg.group` holds the group's id. A machine of the 2018 service has only the group's name; `by_name` maps the names of that service's
    groups to their ids.
    """
    group_id = tags.get(TAG_GROUP)
    if group_id is None:
        return by_name.get(str(tags.get(TAG_NAME)))
    return group_id if isinstance(group_id, str) and group_id in group_ids else None


def instance_tags(*, group_name: str, group_id: str, template_id: str, launch_id: str) -> dict[str, str]:
    """The tags by which this service recognises its instances."""
    return {TAG_NAME: group_name, TAG_GROUP: group_id, TAG_TEMPLATE: template_id, TAG_LAUNCH: launch_id}


def instance_name(template_id: str) -> str:
    """The alias of 2018, tsg-TEMPLATE-INSTANCE: CloudAPI replaces the placeholder by the first 8 characters of the machine's id."""
    return f"tsg-{template_id[:8]}-{{{{shortId}}}}"


def creation_body(spec: Spec, *, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The body of CloudAPI's CreateMachine for an instance of a template."""
    body: dict[str, Any] = {
        "name": name,
        "package": spec.package.lower(),
        "image": spec.image_id.lower(),
        "firewall_enabled": spec.firewall_enabled,
    }
    if spec.networks:
        body["networks"] = [network.lower() for network in spec.networks]
    metadata = dict(spec.metadata or {})
    if spec.userdata:
        metadata["user-data"] = spec.userdata
    body |= {f"metadata.{key}": value for key, value in metadata.items()}
    return body | {f"tag.{key}": value for key, value in {**(spec.tags or {}), **tags}.items()}
