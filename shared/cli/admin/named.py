"""What a command's words stand for, and what they must be: argparse tells the wrong ones."""

import argparse
import uuid

from sqlalchemy import Connection

from shared.clients import signature
from shared.errors import Conflict, NotFound
from shared.runtime.settings import Settings
from shared.state import accounts
from shared.state.accounts import Account
from shared.store import db

#: Seconds for which a command waits for a database that does not answer: its user should learn of that.
PATIENCE = 5.0


def connected(chosen: Settings) -> db.Database:
    """The service's database."""
    return db.connect(chosen.database_url, pool_size=1, patience=PATIENCE)


def one_account(connection: Connection, name_or_uuid: str, *, enabled: bool) -> Account:
    """The account that is meant, in the state that is asked for if there is one; one in the other state is as good."""
    found = accounts.find(connection, name_or_uuid)
    if not found:
        raise NotFound(f"there is no account {name_or_uuid}")
    meant = [account for account in found if account.enabled == enabled] or found
    if len(meant) > 1:
        rows = ", ".join(f"{account.id} ({account.triton_uuid})" for account in meant)
        raise Conflict(f"there are several accounts {name_or_uuid}; say which by its id: {rows}")
    return meant[0]


def login(text: str) -> str:
    """A login in Triton."""
    if not signature.is_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no login: 3 characters or more of A-Z a-z 0-9 . _ @ -")
    return text


def triton_uuid(text: str) -> str:
    """A UUID in its plain form, in lower case as CloudAPI has it."""
    try:
        if str(uuid.UUID(text)) == text.lower():
            return text.lower()
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no UUID")


def count(text: str) -> int:
    """A number of lines."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:10]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000000")
    return int(text)
