"""The files of the console's pages: how much a browser loads, and that all of it is in the package."""

import gzip
import re
from pathlib import Path

from tsg_client.console import pages

FOLDER = Path(pages.__file__).parent / "static"
#: Bytes that a browser may load for all of the pages together, and that they may have in the package.
LOADED, KEPT = 65_000, 150_000


def test_the_pages_are_light() -> None:
    paths = [f"{pages.BASE}/{file.name}" for file in FOLDER.iterdir()]
    loaded = [page for path in paths if (page := pages.find(path, "gzip, deflate, br"))]
    assert sum(len(page.body) for page in loaded) < LOADED
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < KEPT
    for path, page in zip(paths, loaded, strict=True):
        plain = pages.find(path, "gzip;q=0")
        assert plain
        assert gzip.decompress(page.body) == plain.body
        assert "Content-Encoding" not in plain.headers


def test_all_that_a_file_asks_for_is_there() -> None:
    asked = set()
    for file in FOLDER.iterdir():
        text = file.read_text()
        asked |= set(re.findall(r'(?:from |import\()"\./([\w.]+)"', text)) | set(re.findall(r'(?:href|src)="/console/([\w.]+)"', text))
    assert asked > {"main.js", "base.css", "icon.svg", "group.js"}
    assert asked == {file.name for file in FOLDER.iterdir()} - {"index.html"}


def test_a_page_is_found_by_its_path_and_nothing_else_is() -> None:
    index = pages.find("/console")
    assert index is not None
    assert index == pages.find("/console/") == pages.find("/console/index.html")
    assert [pages.find(path) for path in ("/", "/console/../pages.py", "/console/pages.py", "/console//main.js", "/x/main.js")] == [
        None
    ] * 5
