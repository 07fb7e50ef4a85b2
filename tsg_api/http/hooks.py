"""The paths of webhooks: what follows in them is a secret, and all that a call needs."""

import re

HOOKS = "/v1/tsg/hooks"
#: As the router has it: any number of slashes may come first.
_BEGINNING = re.compile(rf"/+{HOOKS[1:]}/")


def is_hook(path: str) -> bool:
    """Is it the path of a webhook, whether there is such a one or not?"""
    return _BEGINNING.match(path) is not None


def without_token(path: str) -> str:
    """The path as a log may have it."""
    return f"{HOOKS}/..." if is_hook(path) else path
