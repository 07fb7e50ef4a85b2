"""The disks of a virtual machine (sdc-cloudapi: lib/machines.js getCreateOptions; sdc-vmapi: lib/common/validation.js validDisks)."""

import math
from typing import Any

from dev.sim.cloudapi.catalog import Image, Package
from dev.sim.cloudapi.errors import ApiError, invalid_argument, validation_failed

MAX_DISKS = 8

_TOO_LARGE = "The size of the disks must not be greater than the package quota"
_DEFAULT_BLOCK_SIZE = 8192


def read_disks(wanted: Any, image: Image, package: Package, *, flexible: bool) -> list[dict[str, Any]]:
    """As the machine object shows them, the image's first; sizes in MiB. Raises ApiError."""
    image_size = image.image_size or 0
    if not flexible:
        if wanted is not None:
            raise invalid_argument("The use of `disks` is only supported if the package has the flexible_disk attr set to true")
        return _shown([{"size": image_size}, {"size": package.disk}], image)
    if wanted is None:
        return _shown([{"size": image_size}, {"size": package.disk - image_size}], image)
    if not isinstance(wanted, list) or not wanted or not all(isinstance(disk, dict) for disk in wanted):
        raise ApiError(500, None, "Cannot set property 'image_uuid' of undefined")
    if len(wanted) > MAX_DISKS:
        raise invalid_argument(f"A maximum of {MAX_DISKS} disks per VM are supported")
    _check_block_sizes(wanted)
    sizes = _sizes(wanted, image_size, package.disk)
    _check_sizes_once_more(sizes)
    return _shown([disk | {"size": size} for disk, size in zip(wanted, sizes, strict=True)], image)


def _shown(disks: list[dict[str, Any]], image: Image) -> list[dict[str, Any]]:
    rows = [{"size": disk["size"], "block_size": disk.get("block_size", _DEFAULT_BLOCK_SIZE)} for disk in disks]
    rows[0] |= {"boot": True, "image": image.id}
    return [row | ({"id": disk["id"]} if "id" in disk else {}) for row, disk in zip(rows, disks, strict=True)]


def _check_block_sizes(disks: list[dict[str, Any]]) -> None:
    for number, disk in enumerate(disks):
        if "block_size" not in disk:
            continue
        if number == 0:
            raise invalid_argument("Cannot set block_size and image_uuid.")
        size = disk["block_size"]
        if not isinstance(size, int) or not 512 <= size <= 131072 or size & (size - 1):
            raise invalid_argument(f"Invalid block_size: {size} on disk: {number}. Must be 512-131072 and a power of 2.")


def _sizes(disks: list[dict[str, Any]], image_size: int, quota: int) -> list[float]:
    """With a disk that has no number for a size the sum is none either, and CloudAPI checks no more."""
    if sum(disk.get("size") == "remaining" for disk in disks) > 1:
        raise invalid_argument("Only one disk.size can be set to `remaining`")
    sizes = [_number(disk.get("size", image_size if number == 0 else math.nan)) for number, disk in enumerate(disks)]
    left = quota - sum(sizes)
    if disks[0].get("size") == "remaining" and image_size > left:
        raise invalid_argument(_TOO_LARGE)
    sizes = [left if disk.get("size") == "remaining" else size for disk, size in zip(disks, sizes, strict=True)]
    if sizes[0] < image_size:
        raise invalid_argument("Size must be greater than or equal to image size for the boot disk")
    if sum(sizes) > quota:
        raise invalid_argument(_TOO_LARGE)
    return sizes


def _number(size: Any) -> float:
    if size == "remaining":
        return 0
    return size if isinstance(size, (int, float)) and not isinstance(size, bool) else math.nan


def _check_sizes_once_more(sizes: list[float]) -> None:
    """VMAPI."""
    for number, size in enumerate(sizes):
        if math.isnan(size):
            raise validation_failed("Invalid VM parameters", f"disks.{number}.size", "Invalid", "Not Allowed")
        if size <= 0:
            raise validation_failed("Invalid VM parameters", f"disks.{number}.size", "Invalid", "Disk size must be positive")
