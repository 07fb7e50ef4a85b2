"""Moments, by the database's clock alone: no machine's own matters."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Interval, cast, func


def ahead(seconds: float) -> ColumnElement[datetime]:
    """This many seconds from now."""
    return func.now() + _interval(seconds)


def ago(seconds: float) -> ColumnElement[datetime]:
    """This many seconds before now."""
    return func.now() - _interval(seconds)


def _interval(seconds: float) -> ColumnElement[timedelta]:
    # The server can't tell the type of a parameter that it has yet to get.
    return cast(timedelta(seconds=seconds), Interval())
