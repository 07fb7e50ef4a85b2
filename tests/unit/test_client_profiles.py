"""Profiles: those of `triton` are read as `triton` reads them, and what is written is what it can read."""

import json
from pathlib import Path
from typing import Any

import pytest

from tsg_client.errors import Misconfigured
from tsg_client.profiles import Profile, Profiles, usable

PROD = {"url": "https://cloudapi.example.com", "account": "alice", "keyId": "aa:bb"}
OF_TSG = "https://tsg.example.com"


def profiles(tmp_path: Path, files: dict[str, Any] | None = None, **environ: str) -> Profiles:
    """Those of a user with these files, by their names under ~/.triton."""
    for name, content in (files or {}).items():
        file = tmp_path / ".triton" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return Profiles(environ, tmp_path)


def test_a_profile_of_triton_is_read(tmp_path: Path) -> None:
    row = {**PROD, "insecure": True, "user": "bob", "roles": ["a", "b"]}
    found = profiles(tmp_path, {"profiles.d/prod.json": row, "config.json": {"profile": "prod"}}, TRITON_TSG_URL=OF_TSG).get()
    assert found == Profile("prod", "alice", "aa:bb", PROD["url"], OF_TSG, "bob", insecure=True, roles=("a", "b"))


def test_the_option_goes_before_the_variable_and_that_before_the_file(tmp_path: Path) -> None:
    files = {f"profiles.d/{name}.json": {**PROD, "account": name} for name in ("one", "two", "three")} | {"config.json": {"profile": "one"}}
    assert profiles(tmp_path, files).get().account == "one"
    assert profiles(tmp_path, TRITON_PROFILE="two").get().account == "two"
    assert profiles(tmp_path, TRITON_PROFILE="two").get("three").account == "three"


def test_the_environment_is_a_profile_and_does_not_change_others(tmp_path: Path) -> None:
    environ = {"SDC_URL": "https://sdc", "SDC_ACCOUNT": "old", "TRITON_ACCOUNT": "new", "SDC_KEY_ID": "cc:dd", "SDC_TSG_URL": OF_TSG}
    known = profiles(tmp_path, {"profiles.d/prod.json": PROD}, **environ)
    assert known.get() == Profile("env", "new", "cc:dd", "https://sdc", OF_TSG)
    assert known.get("prod").account == "alice"
    assert known.names() == ["env", "prod"]


def test_xdg_config_home_hides_the_folder_of_home(tmp_path: Path) -> None:
    profiles(tmp_path, {"profiles.d/prod.json": PROD})
    with pytest.raises(Misconfigured, match="there is no profile 'prod'"):
        Profiles({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, tmp_path).get("prod")


@pytest.mark.parametrize(
    ("environ", "is_insecure"),
    [
        ({}, False),
        ({"TRITON_TLS_INSECURE": "1"}, True),
        ({"SDC_TLS_INSECURE": "true"}, True),
        ({"TRITON_TLS_INSECURE": "false"}, False),
        ({"TRITON_SKIP_TLS_VERIFY": "true"}, True),
        ({"SDC_TESTING": "anything"}, True),
    ],
)
def test_both_switches_of_tls_count(tmp_path: Path, environ: dict[str, str], is_insecure: bool) -> None:
    assert profiles(tmp_path, **environ).get().insecure is is_insecure


def test_a_switch_that_is_no_boolean_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="TRITON_TLS_INSECURE must be true, false, 1 or 0"):
        profiles(tmp_path, TRITON_TLS_INSECURE="yes").get()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("{", "can't be read"),
        ("[]", "is no JSON object"),
        ({"url": "https://x"}, "has no account and no keyId"),
        ({**PROD, "account": 5}, "has no account"),
    ],
)
def test_a_profile_that_is_broken_says_how(tmp_path: Path, file: Any, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        profiles(tmp_path, {"profiles.d/bad.json": file}).get("bad")


def test_what_is_missing_is_named_with_how_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no profile: make one"):
        usable(profiles(tmp_path).get())
    with pytest.raises(Misconfigured) as told:
        usable(profiles(tmp_path, TRITON_ACCOUNT="alice").get())
    assert "has no key's fingerprint (-k, TRITON_KEY_ID), no service's URL (--tsg-url, TRITON_TSG_URL, " in str(told.value)
    with pytest.raises(Misconfigured, match="act as another"):
        usable(profiles(tmp_path, TRITON_ACT_AS="bob", TRITON_ACCOUNT="alice").get())


def test_the_services_url_lies_beside_the_profiles_of_triton(tmp_path: Path) -> None:
    known = profiles(tmp_path, {"profiles.d/prod.json": PROD}, TSG_URL="https://of-the-environment")
    assert known.get("prod").tsg_url == "https://of-the-environment"
    known.set_url("prod", OF_TSG)
    known.set_url("dev", "https://dev")
    assert known.get("prod").tsg_url == OF_TSG, "that of a named profile goes before the environment's"
    assert json.loads((tmp_path / ".triton" / "profiles.d" / "prod.json").read_text()) == PROD, "triton knows no other field"
    assert json.loads((tmp_path / ".triton" / "tsg.json").read_text()) == {"dev": {"url": "https://dev"}, "prod": {"url": OF_TSG}}


def test_a_profile_that_is_made_has_no_field_that_triton_does_not_know(tmp_path: Path) -> None:
    known = profiles(tmp_path, {"config.json": {"profile": "old", "cacheDir": "cache"}})
    known.create(Profile("new", "alice", "aa:bb", "https://cloudapi", OF_TSG, insecure=True))
    made = json.loads((tmp_path / ".triton" / "profiles.d" / "new.json").read_text())
    assert made == {"url": "https://cloudapi", "account": "alice", "keyId": "aa:bb", "insecure": True}
    known.set_current("new")
    config = json.loads((tmp_path / ".triton" / "config.json").read_text())
    assert config == {"profile": "new", "oldProfile": "old", "cacheDir": "cache"}
    assert known.get().tsg_url == OF_TSG
    for name in ("new", "env", "../x", "Upper"):
        with pytest.raises(Misconfigured):
            known.create(Profile(name, "alice", "aa:bb", "https://cloudapi"))


def test_key_material_is_in_no_text_of_a_profile(tmp_path: Path) -> None:
    assert "secret" not in repr(profiles(tmp_path, TRITON_KEY_MATERIAL="secret").get())
