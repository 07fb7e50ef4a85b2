"""tsg-admin: the operator's command."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

import psycopg2
import sqlalchemy.exc
from sqlalchemy import Connection

from shared import log
from shared.cli import seed, takeover
from shared.cli.admin import groups
from shared.cli.admin.named import connected, login, one_account, triton_uuid
from shared.cli.admin.report import Report, for_terminal, table
from shared.clients import cloudapi, keys
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI, CloudAPIError
from shared.errors import Conflict, NotFound, ServiceError
from shared.lines import say
from shared.management.access import NoManagementKey
from shared.management.rotation import Rotation
from shared.runtime import flags, process, settings, values
from shared.runtime.settings import Settings
from shared.state import accounts, group_state, notifications
from shared.state.accounts import Account
from shared.store import db, schema

#: The exit codes, as `--help` tells them.
DONE, FAILED, USAGE, NOT_FOUND, IN_THE_WAY, TRY_AGAIN = 0, 1, 2, 3, 4, 75
CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 not found, 4 conflict, 75 something cannot be reached, try again."

NOT_UTF8 = """the database was made with another encoding than UTF-8, so it cannot hold all names; nothing was changed

Make one that can, load into it what pg_dump saves of this one, and name it in TSG_DATABASE_URL:
  CREATE DATABASE tsg_utf8 ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';
  pg_dump OLD | psql tsg_utf8"""

Run = Callable[[argparse.Namespace, Settings], Report]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.run is None:
        given.help()
        return USAGE
    process.forbid_core_dumps()
    try:
        chosen = settings.load_arguments(given, os.environ, needs_keys=False)
        log.configure(chosen.log_level, chosen.log_format)
        report: Report = given.run(given, chosen)
    except Exception as error:  # noqa: BLE001 - a fault of this service is raised again
        code, message = _problem(error)
        say(f"tsg-admin: {message}")
        return code
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A Latin-1 or ASCII terminal shows what it has no letter for as an escape. Standard error does so by itself.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(report.as_json() if given.json else for_terminal(report.text), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        if not isinstance(error, BrokenPipeError):  # a reader who has seen enough
            say(f"tsg-admin: it is done, but what came of it can't be written: {error.strerror}")
            return FAILED
    return report.code


def _problem(error: Exception) -> tuple[int, str]:
    """The exit code of what was raised, and what to say of it. A fault of this service is raised again."""
    if isinstance(error, settings.SettingsError):
        return USAGE, str(error)
    if isinstance(error, NotFound):
        return NOT_FOUND, str(error)
    if isinstance(error, Conflict):
        return IN_THE_WAY, str(error)
    if isinstance(error, ServiceError | NoManagementKey | keys.SealError | LookupError):
        return FAILED, str(error)
    if isinstance(error, CloudAPIError):
        code = TRY_AGAIN if isinstance(error, cloudapi.Unavailable | cloudapi.Throttled) else FAILED
        return code, f"CloudAPI: {error}; nothing is lost, repeat the command"
    if isinstance(error, sqlalchemy.exc.DBAPIError | sqlalchemy.exc.TimeoutError | psycopg2.Error):
        code = TRY_AGAIN if isinstance(error, psycopg2.OperationalError) or db.is_unavailable(error) else FAILED
        where = " (TSG_DATABASE_URL, or the TSG_CRDB variables, say where it is)" if code == TRY_AGAIN else ""
        return code, f"the database{where}: {str(getattr(error, 'orig', None) or error).strip()}"
    raise error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tsg-admin", description="Operate a Triton Service Groups installation.", epilog=CODES)
    flags.add(parser)
    parser.set_defaults(run=None, help=parser.print_help)
    nouns = parser.add_subparsers(metavar="NOUN")

    def noun(name: str, text: str) -> Callable[..., argparse.ArgumentParser]:
        of_noun = nouns.add_parser(name, help=text, description=text, epilog=CODES)
        of_noun.set_defaults(help=of_noun.print_help)
        verbs = of_noun.add_subparsers(metavar="VERB")

        def verb(word: str, what: str, run: Run) -> argparse.ArgumentParser:
            of_verb = verbs.add_parser(word, help=what, description=what, epilog=CODES)
            of_verb.add_argument("--json", action="store_true", help="print JSON")
            of_verb.set_defaults(run=run)
            return of_verb

        return verb

    of_db = noun("db", "the database")
    to = of_db("upgrade", "make the tables, or upgrade them to the newest revision", _db_upgrade)
    to.add_argument("--revision", choices=("0001", "head"), default="head", help="0001: the tables of 2018, for its rows to be loaded into")
    of_db("seed", "load the development data: one account, six templates, six groups", _db_seed)
    of_accounts = noun("accounts", "the accounts that may use the service")
    add = of_accounts("add", "enable an account of Triton", _accounts_add)
    add.add_argument("name", type=login, help="the account's login in Triton")
    add.add_argument("triton_uuid", type=triton_uuid, help="the account's UUID in Triton")
    of_accounts("list", "list the accounts", _accounts_list)
    which = "the account's login or UUID in Triton, or its id here"
    enable = of_accounts("enable", "enable a disabled account; its groups are checked at once", _accounts_enable)
    enable.add_argument("account", metavar="NAME_OR_UUID", help=which)
    what = "disable an account (running processes notice within seconds); its instances stay, and are not replaced when they die"
    disable = of_accounts("disable", what, _accounts_disable)
    disable.add_argument("account", metavar="NAME_OR_UUID", help=which)
    of_keys = noun("keys", "private keys, and the sealing keys")
    of_keys("generate", "print a new value for TSG_SECRET_KEYS", _keys_generate)
    what = "seal all private keys again with the first key of TSG_SECRET_KEYS, also those in clear text; can be repeated"
    of_keys("reseal", what, _keys_reseal)
    what = "give an account a new management key, here and in CloudAPI, while the service runs; repeat it if it is interrupted"
    rotate = of_keys("rotate", what, _keys_rotate)
    rotate.add_argument("account", metavar="ACCOUNT", help=which)
    groups.add_groups(noun("groups", "the groups of all accounts"))
    groups.add_jobs(noun("jobs", "the Nomad jobs of groups, with TSG_SCALER=nomad"))
    return parser


def _db_upgrade(given: argparse.Namespace, chosen: Settings) -> Report:
    database = connected(chosen)
    with database.read() as connection:
        if not schema.holds_unicode(connection):
            raise Conflict(NOT_UTF8)
        if in_the_way := takeover.obstacles(connection):
            raise Conflict(
                "the database cannot be upgraded yet, nothing was changed\n\n" + "\n\n".join(in_the_way) + "\n\nThen repeat the command."
            )
    with database.engine.connect() as connection:
        schema.upgrade(connection, given.revision)
        connection.commit()
    text = "the database is up to date" if given.revision == "head" else f"the database is at revision {given.revision}"
    return Report(text, {"revision": given.revision})


def _db_seed(_given: argparse.Namespace, chosen: Settings) -> Report:
    connected(chosen).transact(seed.load)
    text = f"the development data is there: account {seed.ACCOUNT_NAME}, {len(seed.TEMPLATES)} templates, {len(seed.GROUPS)} groups"
    return Report(text, {"account": seed.ACCOUNT_NAME, "templates": len(seed.TEMPLATES), "groups": len(seed.GROUPS)})


def _accounts_add(given: argparse.Namespace, chosen: Settings) -> Report:
    def add(connection: Connection) -> Account:
        if accounts.get_by_triton_uuid(connection, given.triton_uuid) is None and accounts.is_disabled(connection, given.triton_uuid):
            raise Conflict(f"the account {given.triton_uuid} is disabled; enable it with: tsg-admin accounts enable {given.triton_uuid}")
        return accounts.insert_account(connection, given.name, given.triton_uuid)

    account = connected(chosen).transact(add)
    return Report(f"account {account.name} ({account.triton_uuid}) is enabled", account._replace(enabled=True)._asdict())


def _accounts_list(_given: argparse.Namespace, chosen: Settings) -> Report:
    with connected(chosen).read() as connection:
        found = accounts.list_all(connection)
    rows = [
        (
            account.name,
            account.triton_uuid,
            "enabled" if account.enabled else "disabled",
            "registered" if account.has_registered_key else "none yet",
        )
        for account in found
    ]
    return Report(table(("NAME", "TRITON UUID", "STATE", "MANAGEMENT KEY"), rows), [account._asdict() for account in found])


def _accounts_enable(given: argparse.Namespace, chosen: Settings) -> Report:
    def enable(connection: Connection) -> Account:
        account = one_account(connection, given.account, enabled=False)
        accounts.mark_enabled(connection, account, enabled=True)
        group_state.mark_all_due(connection, account.id)
        return account

    account = connected(chosen).transact(enable)
    return Report(f"account {account.name} ({account.triton_uuid}) is enabled", account._replace(enabled=True)._asdict())


def _accounts_disable(given: argparse.Namespace, chosen: Settings) -> Report:
    def disable(connection: Connection) -> Account:
        account = one_account(connection, given.account, enabled=True)
        accounts.mark_enabled(connection, account, enabled=False)
        return account

    account = connected(chosen).transact(disable)
    return Report(f"account {account.name} ({account.triton_uuid}) is disabled", account._replace(enabled=False)._asdict())


def _keys_generate(_given: argparse.Namespace, _chosen: Settings) -> Report:
    key = keys.make_secret_key()
    return Report(key, {"key": key})


def _keys_reseal(_given: argparse.Namespace, chosen: Settings) -> Report:
    sealer = _sealer(chosen)
    database = connected(chosen)
    with database.read() as connection:
        materials = [(*one, accounts.replace_material) for one in accounts.list_key_materials(connection)]
        found = materials + [(*one, notifications.replace_secret) for one in notifications.list_secrets(connection)]
    sealed = failed = 0
    for key_id, material, replace in found:
        if sealer.is_under_first(material) or key_id == seed.KEY_ID:  # development's is no key
            continue
        try:
            anew = sealer.seal(sealer.open(material, row=key_id), row=key_id)
        except keys.SealError as error:
            say(f"tsg-admin: key {key_id} is unchanged: {error}")
            failed += 1
            continue
        with database.read() as connection:
            # One that was replaced or sealed meanwhile is somebody else's work.
            sealed += replace(connection, key_id, material, anew)
    left = len(found) - sealed - failed
    text = f"{_number(sealed, 'key')} sealed again, {_number(left, 'key')} unchanged"
    return Report(text, {"sealed": sealed, "left": left, "failed": failed}, code=FAILED if failed else DONE)


def _keys_rotate(given: argparse.Namespace, chosen: Settings) -> Report:
    sealer = _sealer(chosen)
    database = connected(chosen)
    with database.read() as connection:
        account = one_account(connection, given.account, enabled=True)
    clouds = CloudAPI(chosen.triton_url, Timeouts(chosen.cloudapi_connect_timeout, chosen.cloudapi_read_timeout), chosen.triton_trust)
    fingerprint = Rotation(database, clouds, sealer, key_name=chosen.key_name).rotate(account)
    text = f"account {account.name} has the management key {chosen.key_name}, {fingerprint}"
    return Report(text, {"account": account.name, "key_name": chosen.key_name, "fingerprint": fingerprint})


def _sealer(chosen: Settings) -> keys.Sealer:
    if not chosen.secret_keys:
        raise settings.SettingsError({"TSG_SECRET_KEYS": f"is needed; {values.HOW_TO_MAKE_A_KEY}"})
    return keys.Sealer(chosen.secret_keys)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
