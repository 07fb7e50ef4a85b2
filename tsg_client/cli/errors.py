"""Errors as `triton` prints them, `tsg group get: error (ResourceNotFound): ...`, and exit statuses as it documents them."""

import errno
import os
import sys
import traceback
from pathlib import Path

import click

DONE, FAILED, USAGE, NOT_FOUND, INTERRUPTED = 0, 1, 2, 3, 130

#: Options that belong before the noun.
_GLOBAL = {"-p", "--profile", "-a", "--account", "-u", "--user", "-r", "--role", "-k", "--keyId", "-U", "--url", "--tsg-url", "-i", "-v"}


def run(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command to its exit status."""
    status = DONE
    if sys.stdout is None:  # it was closed before tsg began
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    try:
        status = _run(command, sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.UsageError as error:
        status = _show_usage(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        status = INTERRUPTED
    except OSError as error:
        # A reader who has seen enough needs no word. Python would complain of the output once more at its end.
        if status == DONE and not isinstance(error, BrokenPipeError):
            click.echo(f"tsg: {click.style('error', fg='red')} (Output): the output can't be written: {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    return status


def _run(command: click.Command, arguments: list[str]) -> int:
    color = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
    with command.make_context("tsg", list(arguments), color=color) as ctx:
        try:
            command.invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            return _show(ctx, error)
    return DONE


def _show(ctx: click.Context, error: Exception) -> int:
    from tsg_client.errors import Invalid, NotFound, ServiceFailed, TsgError  # noqa: PLC0415 - it is loaded where it is raised

    path, verbose = ctx.find_root().meta.get("tsg.command", "tsg"), bool(ctx.params.get("verbose"))
    if verbose:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if not isinstance(error, TsgError):
        shown = "" if verbose else "; -v shows where"
        click.echo(f"{path}: error (Internal): a fault of tsg: {type(error).__name__}: {error}{shown}", err=True)
        return FAILED
    lines = [f"{path}: {click.style('error', fg='red')} ({error.code}): {printable(str(error))}"]
    if isinstance(error, Invalid) and len(error.fields) > 1:
        lines[0] = f"{path}: {click.style('error', fg='red')} ({error.code}): {len(error.fields)} fields are wrong"
        lines += [f"    {printable(one.field)}: {one.code}: {printable(one.message)}" for one in error.fields]
    if isinstance(error, ServiceFailed) and error.request_id:
        lines.append(f"    the operator finds it by the request id {error.request_id}")
    click.echo("\n".join(lines), err=True)
    return NOT_FOUND if isinstance(error, NotFound) else FAILED


def _show_usage(error: click.UsageError) -> int:
    path = error.ctx.command_path if error.ctx else "tsg"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return USAGE
    message = error.format_message()
    if isinstance(error, click.NoSuchOption) and error.option_name in _GLOBAL:
        message = f"{error.option_name} goes before the command: tsg {error.option_name} ... {path.partition(' ')[2]}"
    click.echo(f"{path}: {click.style('error', fg='red')} (Usage): {message}", err=True)
    if error.ctx:
        click.echo(f"{error.ctx.get_usage()}\n{path} -h says more", err=True)
    return USAGE


def printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(one if one.isprintable() or one == "\n" else " " for one in text)
