"""The app for another WSGI server than tsg-api: `granian --interface wsgi tsg_api.wsgi:app`, `gunicorn tsg_api.wsgi:app`.

The settings are those of the environment. To import this module is to start: each process of the server imports it for itself. The port,
the processes and their end are the server's; `TSG_HTTP_THREADS` says how many threads each process has, so that its connections fit.
"""

import atexit
import os
import sys
import threading
from contextlib import ExitStack

from shared import log
from shared.runtime import diagnostics, monitor, program, settings
from tsg_api.wiring import App, assembled

_log = log.get(__name__)


def _start() -> App:
    try:
        chosen = settings.load(os.environ)
    except settings.SettingsError as error:
        sys.exit(f"tsg_api.wsgi: {error}")
    if chosen.dev_mode and not chosen.dev_mode_anywhere:
        sys.exit("tsg_api.wsgi: TSG_DEV_MODE: lets in everybody who reaches this server; set TSG_DEV_MODE_ANYWHERE=1 if that is meant")
    log.configure(chosen.log_level, chosen.log_format)
    program.warn_of_not_used(chosen)
    if chosen.dev_mode:
        _log.warning("development_mode", meaning="every request is taken for the seeded account's")
    stopping = threading.Event()
    opened = ExitStack()
    made, healthy = opened.enter_context(assembled(chosen, stopping))
    opened.callback(diagnostics.start(chosen, "tsg_api.wsgi").stop)
    try:
        opened.enter_context(monitor.serving(monitor.listen(chosen), healthy))
    except monitor.PortTaken as error:
        _log.warning("not_monitored", error=str(error), meaning="another process of this server has the port")
    opened.callback(stopping.set)
    opened.callback(healthy.drain)
    atexit.register(opened.close)
    _log.info("assembled", process=os.getpid())
    return made


app = _start()
