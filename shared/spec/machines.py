"""A group's instance as a machine of CloudAPI: the tags that say which group and launch it belongs to."""

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

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


class Instance(NamedTuple):
    """An instance that is to be created."""

    group_id: str
    group_name: str
    template_id: str
    launch_id: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which this service recognises its instances."""
        return {TAG_NAME: self.group_name, TAG_GROUP: self.group_id, TAG_TEMPLATE: self.template_id, TAG_LAUNCH: self.launch_id}
