"""What a running instance takes over of another template: tags, metadata and the firewall. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from shared.spec.machines import Instance
from shared.spec.spec import Spec, request

_TAG, _METADATA, _FIREWALL = "tag.", "metadata.", "firewall_enabled"


class Changes(NamedTuple):
    """What CloudAPI is asked for, in this order. A firewall of None stays as it is."""

    metadata: Mapping[str, Any]
    metadata_gone: list[str]
    firewall: bool | None
    tags_gone: list[str]
    tags: Mapping[str, Any]


def changes(before: Spec, after: Spec, instance: Instance) -> Changes:
    """What makes the instance of one template one of the other. Its own tags are set last: they say that it is done."""
    old, new = request(before, instance), request(after, instance)
    tags, metadata = dict(_changed(old, new, _TAG)), dict(_changed(old, new, _METADATA))
    tags |= instance.tags
    is_on = bool(new.get(_FIREWALL))
    return Changes(
        metadata,
        _gone(old, new, _METADATA),
        is_on if is_on != bool(old.get(_FIREWALL)) else None,
        _gone(old, new, _TAG),
        tags,
    )


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    return ((key.removeprefix(prefix), value) for key, value in new.items() if key.startswith(prefix) and old.get(key) != value)


def _gone(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in old if key.startswith(prefix) and key not in new]
