"""tsg-admin: the operator's command."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import psycopg2
import sqlalchemy.exc
from sqlalchemy import Connection

from shared import accounts, db, flags, groups, keys, log, schema, seed, settings, takeover
from shared.accounts import Account
from shared.cloudapi import CloudAPI, CloudAPIError, Timeouts
from shared.errors import Conflict, NotFound, ServiceError
from shared.management import NoManagementKey
from shared.rotation import Rotation
from shared.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.run is None:
        given.help()
        return 2
    try:
        chosen = settings.load_arguments(given, os.environ, needs_keys=False)
        log.configure(chosen.log_level, chosen.log_format)
        return int(given.run(given, chosen))
    except (settings.SettingsError, ServiceError, NoManagementKey, keys.SealError, LookupError) as error:
        print(f"tsg-admin: {error}", file=sys.stderr)
        return 2 if isinstance(error, settings.SettingsError) else 1
    except CloudAPIError as error:
        print(f"tsg-admin: CloudAPI: {error}; nothing is lost, repeat the command", file=sys.stderr)
        return 1
    except (sqlalchemy.exc.DBAPIError, psycopg2.Error) as error:
        print(f"tsg-admin: the database: {str(getattr(error, 'orig', None) or error).strip()}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tsg-admin", description="Look after a Triton Service Groups installation.")
    flags.add(parser)
    parser.set_defaults(run=None, help=parser.print_help)
    nouns = parser.add_subparsers(metavar="NOUN")

    def noun(name: str, text: str) -> Callable[..., argparse.ArgumentParser]:
        of_noun = nouns.add_parser(name, help=text, description=text)
        of_noun.set_defaults(help=of_noun.print_help)
        verbs = of_noun.add_subparsers(metavar="VERB")

        def verb(word: str, told: str, run: Callable[[argparse.Namespace, Settings], int]) -> argparse.ArgumentParser:
            of_verb = verbs.add_parser(word, help=told, description=told)
            of_verb.set_defaults(run=run)
            return of_verb

        return verb

    of_db = noun("db", "the database")
    to = of_db("upgrade", "make the tables, or bring them to the newest revision", _db_upgrade)
    to.add_argument("--revision", choices=("0001", "head"), default="head", help="0001: the tables of 2018, for its rows to be loaded into")
    of_db("seed", "load the development data: one account, six templates, six groups", _db_seed)
    of_accounts = noun("accounts", "the accounts that may use the service")
    add = of_accounts("add", "enable an account of Triton", _accounts_add)
    add.add_argument("name", help="the account's login in Triton")
    add.add_argument("triton_uuid", help="the account's UUID in Triton")
    of_accounts("list", "list the accounts", _accounts_list)
    which = "the account's login or UUID in Triton, or its id here"
    enable = of_accounts("enable", "let a disabled account in again; its groups are looked at at once", _accounts_enable)
    enable.add_argument("account", metavar="NAME_OR_UUID", help=which)
    told = "let an account in no longer (running processes notice within seconds); its instances stay, and nobody looks after them"
    disable = of_accounts("disable", told, _accounts_disable)
    disable.add_argument("account", metavar="NAME_OR_UUID", help=which)
    of_keys = noun("keys", "private keys, and the keys that they are sealed with")
    of_keys("generate", "print a new value for TSG_SECRET_KEYS", _keys_generate)
    told = "seal all private keys anew under the first key of TSG_SECRET_KEYS, those in clear text too; can be repeated"
    of_keys("reseal", told, _keys_reseal)
    told = "give an account a new management key, here and in CloudAPI, while the service runs; repeat it if it is broken off"
    rotate = of_keys("rotate", told, _keys_rotate)
    rotate.add_argument("account", metavar="ACCOUNT", help=which)
    return parser


def _db_upgrade(given: argparse.Namespace, chosen: Settings) -> int:
    database = _connected(chosen)
    with database.read() as connection:
        if in_the_way := takeover.obstacles(connection):
            raise Conflict(
                "the database cannot be upgraded yet, nothing was changed\n\n" + "\n\n".join(in_the_way) + "\n\nThen repeat the command."
            )
    with database.engine.connect() as connection:
        schema.upgrade(connection, given.revision)
        connection.commit()
    print("the database is up to date" if given.revision == "head" else f"the database is at revision {given.revision}")
    return 0


def _db_seed(_given: argparse.Namespace, chosen: Settings) -> int:
    _connected(chosen).transact(seed.load)
    print(f"the development data is there: account {seed.ACCOUNT_NAME}, {len(seed.TEMPLATES)} templates, {len(seed.GROUPS)} groups")
    return 0


def _accounts_add(given: argparse.Namespace, chosen: Settings) -> int:
    def add(connection: Connection) -> Account:
        if accounts.of_triton(connection, given.triton_uuid) is None and accounts.is_disabled(connection, given.triton_uuid):
            raise Conflict(
                f"the account {given.triton_uuid} is disabled; let it in again with: tsg-admin accounts enable {given.triton_uuid}"
            )
        return accounts.add(connection, given.name, given.triton_uuid)

    account = _connected(chosen).transact(add)
    print(f"account {account.name} ({account.triton_uuid}) is enabled")
    return 0


def _accounts_list(_given: argparse.Namespace, chosen: Settings) -> int:
    with _connected(chosen).read() as connection:
        found = accounts.listed(connection)
    lines = [("NAME", "TRITON UUID", "STATE", "MANAGEMENT KEY")]
    for account in found:
        state = "enabled" if account.enabled else "disabled"
        lines.append((account.name, account.triton_uuid or "-", state, "registered" if account.has_registered_key else "none yet"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _accounts_enable(given: argparse.Namespace, chosen: Settings) -> int:
    def enable(connection: Connection) -> Account:
        account = _one_account(connection, given.account, enabled=False)
        accounts.set_enabled(connection, account, enabled=True)
        groups.make_all_due(connection, account.id)
        return account

    account = _connected(chosen).transact(enable)
    print(f"account {account.name} ({account.triton_uuid}) is enabled")
    return 0


def _accounts_disable(given: argparse.Namespace, chosen: Settings) -> int:
    def disable(connection: Connection) -> Account:
        account = _one_account(connection, given.account, enabled=True)
        accounts.set_enabled(connection, account, enabled=False)
        return account

    account = _connected(chosen).transact(disable)
    print(f"account {account.name} ({account.triton_uuid}) is disabled")
    return 0


def _keys_generate(_given: argparse.Namespace, _chosen: Settings) -> int:
    print(keys.make_secret_key())
    return 0


def _keys_reseal(_given: argparse.Namespace, chosen: Settings) -> int:
    sealer = _sealer(chosen)
    database = _connected(chosen)
    with database.read() as connection:
        found = accounts.materials(connection)
    sealed = failed = 0
    for key_id, material in found:
        if sealer.is_under_first(material) or key_id == seed.KEY_ID:  # development's is no key
            continue
        try:
            anew = sealer.seal(sealer.open(material, row=key_id), row=key_id)
        except keys.SealError as error:
            print(f"tsg-admin: key {key_id} stays as it is: {error}", file=sys.stderr)
            failed += 1
            continue
        with database.read() as connection:
            # One that was replaced or sealed meanwhile is somebody else's work.
            sealed += accounts.replace_material(connection, key_id, material, anew)
    print(f"{_number(sealed, 'key')} sealed anew, {_number(len(found) - sealed - failed, 'key')} left as they were")
    return 1 if failed else 0


def _keys_rotate(given: argparse.Namespace, chosen: Settings) -> int:
    sealer = _sealer(chosen)
    database = _connected(chosen)
    with database.read() as connection:
        account = _one_account(connection, given.account, enabled=True)
    clouds = CloudAPI(chosen.triton_url, Timeouts(chosen.cloudapi_connect_timeout, chosen.cloudapi_read_timeout))
    fingerprint = Rotation(database, clouds, sealer, key_name=chosen.key_name).rotate(account)
    print(f"account {account.name} has the management key {chosen.key_name}, {fingerprint}")
    return 0


def _one_account(connection: Connection, name_or_uuid: str, *, enabled: bool) -> Account:
    """The account that is meant, in the state that is asked for if there is one; one in the other state is as good."""
    found = accounts.found(connection, name_or_uuid)
    if not found:
        raise NotFound(f"there is no account {name_or_uuid}")
    meant = [account for account in found if account.enabled == enabled] or found
    if len(meant) > 1:
        rows = ", ".join(f"{account.id} ({account.triton_uuid})" for account in meant)
        raise Conflict(f"there are several accounts {name_or_uuid}; say which by its id: {rows}")
    return meant[0]


def _sealer(chosen: Settings) -> keys.Sealer:
    if not chosen.secret_keys:
        raise settings.SettingsError({"TSG_SECRET_KEYS": f"is needed; {settings.HOW_TO_MAKE_A_KEY}"})
    return keys.Sealer(chosen.secret_keys)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _connected(chosen: Settings) -> db.Database:
    return db.connect(chosen.database_url, pool_size=1)


if __name__ == "__main__":
    sys.exit(main())
