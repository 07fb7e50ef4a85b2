"""Who sends requests, and where to: the profiles of `triton`, and the environment.

`triton` refuses a profile with a field that it does not know, so the service's URL is in a file of our own beside them: `tsg.json`,
`{"NAME OF A PROFILE": {"url": "https://..."}}`.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tsg_client.errors import Misconfigured

#: The profile that is made of the environment.
ENV = "env"
#: Ours, beside Triton's `config.json`.
FILE = "tsg.json"

_NAME = re.compile(r"[a-z][a-z0-9_.-]*\Z")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_TSG_URL = ("TRITON_TSG_URL", "SDC_TSG_URL", "TSG_URL")


@dataclass(frozen=True)
class Profile:
    """An account of a data center, its key, and the service there. What is not known is None."""

    name: str
    account: str | None = None
    key_id: str | None = None
    #: CloudAPI's.
    url: str | None = None
    #: The service's.
    tsg_url: str | None = None
    user: str | None = None
    insecure: bool = False
    roles: tuple[str, ...] = ()
    act_as: str | None = None
    #: A key's text, or the path of its file.
    key_material: str | None = field(default=None, repr=False)

    def with_options(self, **given: Any) -> "Profile":
        """With these fields instead of its own, where they are not None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


class Profiles:
    """The profiles of a user. `environ` and `home` default to the process's own."""

    def __init__(self, environ: Mapping[str, str] | None = None, home: Path | None = None) -> None:
        self._environ = os.environ if environ is None else environ
        config = self._environ.get("XDG_CONFIG_HOME")
        self.folder = Path(config) / "triton" if config else (home or Path.home()) / ".triton"

    def names(self) -> list[str]:
        """The names of those in files, and `env` where the environment has one."""
        found = sorted(file.stem for file in (self.folder / "profiles.d").glob("*.json"))
        return [*([ENV] if self._env().account else []), *found]

    def current(self) -> str:
        """The name of the profile that is used when none is given."""
        return self._environ.get("TRITON_PROFILE") or str(_read(self.folder / "config.json").get("profile") or ENV)

    def get(self, name: str | None = None) -> Profile:
        """The profile of this name, or the current one. `Misconfigured` when there is none, or it can't be used."""
        name = name or self.current()
        if name == ENV:
            return self._env()
        if not _NAME.match(name):
            raise Misconfigured(f"{name!r} is no name of a profile")
        file = self.folder / "profiles.d" / f"{name}.json"
        if not file.exists():
            known = ", ".join(self.names()) or "none"
            raise Misconfigured(f"there is no profile {name!r} in {self.folder}; there are: {known}")
        row = _read(file)
        wrong = [key for key in ("account", "keyId", "url") if not isinstance(row.get(key), str)]
        if wrong:
            raise Misconfigured(f"the profile {file} has no {' and no '.join(wrong)}")
        return Profile(
            name=name,
            account=row["account"],
            key_id=row["keyId"],
            url=row["url"],
            tsg_url=self._urls().get(name) or self._first(*_TSG_URL),
            user=row.get("user") or None,
            insecure=bool(row.get("insecure")),
            roles=tuple(row.get("roles") or ()),
            act_as=row.get("actAsAccount") or None,
            key_material=self._first("TRITON_KEY_MATERIAL", "SDC_KEY_MATERIAL"),
        )

    def set_url(self, name: str, url: str | None) -> None:
        """Write down where the service of a profile is, or forget it."""
        urls = {key: value for key, value in self._urls().items() if key != name} | ({name: url} if url else {})
        _write(self.folder / FILE, {key: {"url": value} for key, value in sorted(urls.items())})

    def set_current(self, name: str) -> None:
        """Make this profile the current one. `triton` remembers the one before, for its `profile set -`."""
        self.get(name)
        row = _read(self.folder / "config.json")
        if row.get("profile") != name:
            _write(self.folder / "config.json", {**row, "profile": name, "oldProfile": row.get("profile", ENV)})

    def create(self, profile: Profile) -> None:
        """Make a profile: with the fields that `triton` knows, and the service's URL in our own file."""
        if not _NAME.match(profile.name) or profile.name == ENV:
            raise Misconfigured(f"{profile.name!r} is no name of a profile: a letter, then letters, digits, '_', '.' and '-', all small")
        file = self.folder / "profiles.d" / f"{profile.name}.json"
        if file.exists():
            raise Misconfigured(f"there is a profile {profile.name} already")
        row: dict[str, Any] = {"url": profile.url, "account": profile.account, "keyId": profile.key_id}
        _write(file, row | ({"insecure": True} if profile.insecure else {}))
        if profile.tsg_url:
            self.set_url(profile.name, profile.tsg_url)

    def _urls(self) -> dict[str, str]:
        rows = _read(self.folder / FILE)
        return {name: row["url"] for name, row in rows.items() if isinstance(row, dict) and isinstance(row.get("url"), str)}

    def _env(self) -> Profile:
        return Profile(
            name=ENV,
            account=self._first("TRITON_ACCOUNT", "SDC_ACCOUNT"),
            key_id=self._first("TRITON_KEY_ID", "SDC_KEY_ID"),
            url=self._first("TRITON_URL", "SDC_URL"),
            tsg_url=self._first(*_TSG_URL),
            user=self._first("TRITON_USER", "SDC_USER"),
            insecure=self._is_insecure(),
            act_as=self._first("TRITON_ACT_AS"),
            key_material=self._first("TRITON_KEY_MATERIAL", "SDC_KEY_MATERIAL"),
        )

    def _is_insecure(self) -> bool:
        """By node-triton's switch or by triton-go's."""
        if self._environ.get("SDC_TESTING"):
            return True
        for name in ("TRITON_TLS_INSECURE", "SDC_TLS_INSECURE", "TRITON_SKIP_TLS_VERIFY"):
            text = self._environ.get(name)
            if text:
                if text.lower() not in _BOOLEANS:
                    raise Misconfigured(f"{name} must be true, false, 1 or 0")
                return _BOOLEANS[text.lower()]
        return False

    def _first(self, *names: str) -> str | None:
        return next((value for name in names if (value := self._environ.get(name))), None)


def usable(profile: Profile) -> Profile:
    """The same profile, if requests can be sent by it. `Misconfigured` says what is missing, and how to give it."""
    if profile.act_as:
        raise Misconfigured("tsg can't act as another account (TRITON_ACT_AS, actAsAccount): the service knows the signer's own alone")
    missing = {
        "the account (-a, TRITON_ACCOUNT)": profile.account,
        "the key's fingerprint (-k, TRITON_KEY_ID)": profile.key_id,
        "the service's URL (--tsg-url, TRITON_TSG_URL, tsg profile set-url)": profile.tsg_url,
    }
    lacks = [what for what, value in missing.items() if not value]
    if lacks:
        if profile.name == ENV and len(lacks) == len(missing):
            raise Misconfigured("no profile: make one (tsg profile create), choose one (tsg -p NAME), or set TRITON_ACCOUNT and the others")
        raise Misconfigured(f"the profile {profile.name} has no {', no '.join(what.removeprefix('the ') for what in lacks)}")
    return profile


def _write(file: Path, row: Mapping[str, Any]) -> None:
    """Replace a file at once, so that no reader sees a half of it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = file.with_name(f"{file.name}.new")
        draft.write_text(json.dumps(row, indent=4) + "\n")
        draft.replace(file)
    except OSError as error:
        raise Misconfigured(f"{file} can't be written: {error}") from None


def _read(file: Path) -> dict[str, Any]:
    """What a file has; nothing where there is none."""
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{file} can't be read: {error}") from None
    if not isinstance(found, dict):
        raise Misconfigured(f"{file} is no JSON object")
    return found
