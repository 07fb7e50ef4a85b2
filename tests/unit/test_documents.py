"""The documents: made ones are up to date, links lead somewhere, and the commands that are named exist."""

import argparse
import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from dev import reference
from dev.sim.cloudapi import catalog
from dev.sim.cloudapi.knobs import Knobs
from dev.sim.common.wanted import is_uuid
from dev.sim.nomad.knobs import Knobs as NomadKnobs
from shared.cli import admin
from tsg_client.cli.main import root

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("**/*.md"))]
PROGRAMS = set(tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["scripts"])

#: A word of a command that is not spelt out: a placeholder, an option, the end of it.
NO_WORD = re.compile(r"[^a-z-]|^-")


def ids(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(TOP)) for page in pages]


def anchors(page: Path) -> set[str]:
    """As code hosts make them of headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def commands(page: Path) -> set[str]:
    """Lines of shell blocks, and what stands in code with an argument: what a reader would type."""
    text = page.read_text()
    blocks = re.findall(r"```(?:sh|shell|bash|console)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return {*lines, *(span for span in spans if " " in span or span.startswith("dev/"))}


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_the_page_of_settings_is_the_one_that_the_settings_make() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run dev/docs"


def test_the_table_of_fields_is_the_one_that_the_fields_make() -> None:
    text = reference.TEMPLATES.read_text()
    assert text == reference.templates_page(text), "run dev/docs"
    assert reference.templates_page(text.replace("| `affinity` |", "| `affinities` |")) == text


def test_the_table_of_policies_is_the_one_that_their_fields_make() -> None:
    text = reference.AUTOSCALING.read_text()
    assert text == reference.autoscaling_page(text), "run dev/docs"


def test_the_tables_of_settings_are_those_that_their_fields_make() -> None:
    text = reference.ROLLOUTS.read_text()
    assert text == reference.rollouts_page(text), "run dev/docs"


def test_the_guide_through_the_code_names_files_and_functions_that_there_are() -> None:
    """Where a file has a row of its own, the functions of that row are in it."""
    guide = (TOP / "docs/architecture.md").read_text().partition("## Follow a POST in the code")[2].partition("\n## ")[0]
    sources = {
        str(file.relative_to(TOP)): file.read_text() for room in ("shared", "tsg_api", "tsg_workers") for file in (TOP / room).rglob("*.py")
    }
    rows = re.findall(r"^\| `(\S+)` \| (`.+?`) \|", guide, flags=re.MULTILINE)
    places = [(sources[file], name) for file, names in rows for name in re.findall(r"\w+", names)]
    everything = "".join(sources.values())
    places += [(everything, name) for span in re.findall(r"`([\w.]+)`", guide) if not span.endswith(".py") for name in span.split(".")]
    assert len(rows) >= 10
    assert not [name for text, name in places if not re.search(rf"(def|class) {name}\b", text)]
    assert not [file for file in re.findall(r"`([\w/]+\.py)`", guide) if not any(f"/{known}".endswith(f"/{file}") for known in sources)]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and to.suffix == ".md" and anchor not in anchors(to)):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_command_that_is_named_exists(page: Path) -> None:
    unknown = []
    for command in commands(page):
        words = command.split()
        while words and re.fullmatch(r"[A-Z_]+=\S*|sudo|exec|\.venv/bin/", words[0]):
            words.pop(0)
        if not words:
            continue
        program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
        if re.fullmatch(r"dev/[a-z/-]+", program):
            unknown += [] if (TOP / program).exists() else [command]
        elif program == "tsg":
            unknown += [] if is_command(shlex.split(re.split(" [#>]", command)[0])[1:]) else [command]
        elif re.fullmatch(r"tsg-[a-z]+", program):
            unknown += [] if program in PROGRAMS and not (program == "tsg-admin" and stray_verb(rest)) else [command]
    assert unknown == []


def is_command(words: list[str]) -> bool:
    """Has `tsg` such a noun and verb, with such options and so many arguments?"""
    command: click.Command = root
    context = click.Context(root, info_name="tsg")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        if found is None:
            return False
        command = found
    try:
        command.make_context("tsg", words or ["-h"])
    except click.MissingParameter:
        return False
    except (click.BadParameter, click.exceptions.Exit):
        return True  # a placeholder where a number stands, or a noun alone
    except click.UsageError:
        return False
    return True


def test_a_command_of_tsg_that_does_not_exist_would_be_seen() -> None:
    assert is_command(["group", "scale", "web", "-1", "-w"])
    assert is_command(["groups", "-H"])
    assert is_command(["group"])
    for wrong in ("grop ls", "group lst", "group ls --lnog", "group get -j", "group get a b"):
        assert not is_command(wrong.split())


def stray_verb(words: list[str]) -> bool:
    """Is there a noun or a verb among these that tsg-admin does not have?"""
    parser = admin._parser()
    for word in words:
        choices = verbs(parser)
        if not choices or NO_WORD.search(word):
            return False
        if word not in choices:
            return True
        parser = choices[word]
    return False


def test_a_command_that_does_not_exist_would_be_seen() -> None:
    assert stray_verb(["accounts", "remove", "joe"])
    assert stray_verb(["tables"])
    assert not stray_verb(["accounts", "disable", "joe"])
    assert not stray_verb(["--json", "accounts"])
    assert not stray_verb(["keys", "VERB"])


def test_the_tests_that_a_promise_names_are_there() -> None:
    """In docs/reliability.md, a file in backticks is followed by the names of its tests."""
    source, named = "", 0
    for word in re.findall(r"`([^`\n]+)`", (TOP / "docs" / "reliability.md").read_text().partition("## The soak")[0]):
        if re.fullmatch(r"(e2e|integration)/[\w/]+\.py", word):
            source = (TOP / "tests" / word).read_text()
        elif re.fullmatch(r"[a-z_0-9]{20,}", word):
            assert f"def test_{word}(" in source, word
            named += 1
    assert named > 20


def test_the_page_of_the_simulators_has_their_catalogue_and_all_knobs() -> None:
    page = (TOP / "docs" / "simulators.md").read_text()
    offers, knobs, of_nomad = ([line.split("|") for line in part.splitlines() if line.startswith("| `")] for part in page.split("## Knobs"))
    named = [[cell.strip(" `") for cell in row[1:3]] for row in offers if is_uuid(row[1].strip(" `"))]
    assert named == [[offer.id, offer.name] for offer in (*catalog.PACKAGES, *catalog.IMAGES, *catalog.NETWORKS, *catalog.VOLUMES)]
    for rows, known in ((knobs, Knobs()), (of_nomad, NomadKnobs())):
        assert {row[1].strip(" `"): json.loads(row[2].strip(" `")) for row in rows} == known.to_json()
