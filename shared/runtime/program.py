"""How each of our programs begins that goes on running: with its settings, and its log."""

import argparse
import os
import sys
import threading
from types import TracebackType

from shared import log
from shared.lines import say
from shared.runtime import process, settings
from shared.runtime.settings import Settings
from shared.runtime.signals import survive_hangup

_log = log.get(__name__)

#: The exit code for a wrong command line, argparse's own, and for wrong settings.
USAGE = 2


def begin(name: str, given: argparse.Namespace, *, needs_keys: bool = True) -> Settings:
    """The settings, of flags that went through `flags.add`, of the environment and of a file. Exits with `USAGE` where they are wrong."""
    process.prepare()
    survive_hangup()
    try:
        chosen = settings.load_arguments(given, os.environ, needs_keys=needs_keys)
    except settings.SettingsError as error:
        # Not to the log: how that is to be written is a setting.
        say(f"{name}: {error}")
        sys.exit(USAGE)
    log.configure(chosen.log_level, chosen.log_format)
    _log_what_is_not_caught()
    for server, is_unverified in (("cloudapi", chosen.triton_skip_verify), ("nomad", chosen.nomad.skip_verify)):
        if is_unverified:
            _log.warning("certificates_not_verified", server=server)
    warn_of_not_used(chosen)
    return chosen


def _log_what_is_not_caught() -> None:
    """Log what ends a thread or the process: Python would write it to standard error, and wait for as long as nobody reads there."""

    def crash(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        _log.critical("process_failed", exc_info=error)

    def fail(failed: threading.ExceptHookArgs) -> None:
        _log.error("thread_failed", thread=failed.thread.name if failed.thread else None, exc_info=failed.exc_value)

    sys.excepthook, threading.excepthook = crash, fail


def warn_of_not_used(chosen: Settings) -> None:
    """Tell the operator of settings that have no effect any more, and what to do instead."""
    for name in chosen.not_used:
        _log.warning("setting_not_used", setting=name, meaning=settings.NOT_USED[name])
