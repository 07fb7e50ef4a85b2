"""tsg-admin: the operator's command."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import alembic.command
import alembic.config
import psycopg2
import sqlalchemy.exc
from sqlalchemy import Connection

from shared import accounts, db, keys, log, seed, settings
from shared.errors import ServiceError
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
    except (settings.SettingsError, ServiceError, LookupError) as error:
        print(f"tsg-admin: {error}", file=sys.stderr)
        return 2 if isinstance(error, settings.SettingsError) else 1
    except (sqlalchemy.exc.DBAPIError, psycopg2.Error) as error:
        print(f"tsg-admin: the database: {str(getattr(error, 'orig', None) or error).strip()}", file=sys.stderr)
        return 1


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest revision."""
    alembic.command.upgrade(_alembic(connection), "head")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tsg-admin", description="Look after a Triton Service Groups installation.")
    settings.add_arguments(parser)
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
    of_db("upgrade", "make the tables, or bring them to the newest revision", _db_upgrade)
    of_db("seed", "load the development data: one account, six templates, six groups", _db_seed)
    of_accounts = noun("accounts", "the accounts that may use the service")
    add = of_accounts("add", "enable an account of Triton", _accounts_add)
    add.add_argument("name", help="the account's login in Triton")
    add.add_argument("triton_uuid", help="the account's UUID in Triton")
    of_accounts("list", "list the accounts", _accounts_list)
    of_keys = noun("keys", "the keys that private keys are sealed with")
    of_keys("generate", "print a new value for TSG_SECRET_KEYS", _keys_generate)
    return parser


def _db_upgrade(_given: argparse.Namespace, chosen: Settings) -> int:
    with _connected(chosen).engine.connect() as connection:
        upgrade(connection)
        connection.commit()
    print("the database is up to date")
    return 0


def _db_seed(_given: argparse.Namespace, chosen: Settings) -> int:
    _connected(chosen).transact(seed.load)
    print(f"the development data is there: account {seed.ACCOUNT_NAME}, {len(seed.TEMPLATES)} templates, {len(seed.GROUPS)} groups")
    return 0


def _accounts_add(given: argparse.Namespace, chosen: Settings) -> int:
    account = _connected(chosen).transact(lambda connection: accounts.add(connection, given.name, given.triton_uuid))
    print(f"account {account.name} ({account.triton_uuid}) is enabled")
    return 0


def _accounts_list(_given: argparse.Namespace, chosen: Settings) -> int:
    with _connected(chosen).read() as connection:
        for account in accounts.listed(connection):
            state = "enabled" if account.enabled else "disabled"
            key = "key registered" if account.has_registered_key else "no key yet"
            print(f"{account.name}\t{account.triton_uuid}\t{state}\t{key}")
    return 0


def _keys_generate(_given: argparse.Namespace, _chosen: Settings) -> int:
    print(keys.make_secret_key())
    return 0


def _connected(chosen: Settings) -> db.Database:
    return db.connect(chosen.database_url, pool_size=1)


def _alembic(connection: Connection) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", "shared:migrations")
    config.attributes["connection"] = connection
    return config


if __name__ == "__main__":
    sys.exit(main())
