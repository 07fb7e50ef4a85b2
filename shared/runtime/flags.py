"""The flags that every program has. Nothing is imported here that takes time: `--help` should not wait."""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    """Their values go to `settings.load_arguments`."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file with the sections of the 2018 service")
    parser.add_argument("--log-level", metavar="LEVEL", dest="TSG_LOG_LEVEL", help="DEBUG, INFO, WARN or ERROR (TSG_LOG_LEVEL)")
    parser.add_argument("--log-format", metavar="FORMAT", dest="TSG_LOG_FORMAT", help="auto, json or human (TSG_LOG_FORMAT)")
