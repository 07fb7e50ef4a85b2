"""The paths of webhooks: what follows in them is a secret, and all that a call needs."""

HOOKS = "/v1/tsg/hooks"
_BEGINNING = f"{HOOKS}/"


def is_hook(path: str) -> bool:
    """Is it the path of a webhook, whether there is such a one or not?"""
    return path.startswith(_BEGINNING)


def without_token(path: str) -> str:
    """The path as a log may have it."""
    return f"{_BEGINNING}..." if path.startswith(_BEGINNING) else path
