"""Moments, by the database's clock alone: no machine's own matters."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Interval, func, literal


def ahead(seconds: float) -> ColumnElement[datetime]:
    """This many seconds from now."""
    return func.now() + literal(timedelta(seconds=seconds), Interval())


def ago(seconds: float) -> ColumnElement[datetime]:
    """This many seconds before now."""
    return func.now() - literal(timedelta(seconds=seconds), Interval())
