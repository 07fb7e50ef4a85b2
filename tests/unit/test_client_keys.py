"""The client's keys: read from files of ssh-keygen and held by a real ssh-agent, they sign what the service verifies."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.clients import keys, signature
from tsg_client.errors import NoKey
from tsg_client.keys import agent, keyring
from tsg_client.keys.key import IsEncrypted, Key, read
from tsg_client.signer import Signer

KINDS = {
    "rsa": ["-t", "rsa", "-b", "2048"],
    "ecdsa-256": ["-t", "ecdsa", "-b", "256"],
    "ecdsa-384": ["-t", "ecdsa", "-b", "384"],
    "ecdsa-521": ["-t", "ecdsa", "-b", "521"],
    "ed25519": ["-t", "ed25519"],
}
#: Forms that ssh-keygen writes besides its own, which an Ed25519 key has not.
FORMS = [(kind, form) for kind in KINDS for form in ("RFC4716", "PEM", "PKCS8") if kind != "ed25519" or form == "RFC4716"]
PASSPHRASE = "correct horse"


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed")
    assert found
    return found


def keygen(file: Path, *options: str, passphrase: str = "") -> Path:
    subprocess.run([program("ssh-keygen"), "-q", *options, "-N", passphrase, "-C", "of a test", "-f", file], check=True)
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A key of a kind and form, perhaps with the passphrase."""
    folder = tmp_path_factory.mktemp("keys")

    def make(kind: str, form: str = "RFC4716", *, locked: bool = False) -> Path:
        file = folder / f"{kind}-{form}{'-locked' if locked else ''}"
        if not file.exists():
            keygen(file, *KINDS[kind], "-m", form, passphrase=PASSPHRASE if locked else "")
        return file

    return make


@pytest.fixture
def ssh_agent(tmp_path: Path) -> Iterator[Path]:
    """The socket of an ssh-agent that holds nothing."""
    path = tmp_path / "agent"
    told = subprocess.run([program("ssh-agent"), "-s", "-a", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"SSH_AGENT_PID=(\d+)", told)
    assert found
    try:
        yield path
    finally:
        os.kill(int(found[1]), signal.SIGTERM)


def add(socket: Path, file: Path) -> None:
    subprocess.run([program("ssh-add"), "-q", file], env={**os.environ, "SSH_AUTH_SOCK": str(socket)}, check=True)


def line(file: Path) -> str:
    return file.with_name(f"{file.name}.pub").read_text()


def fingerprint(file: Path) -> str:
    return keys.fingerprint(line(file))


def verify(key: Key, public_line: str, *, only_date: bool = False) -> None:
    """See a request signed by the key as the service sees it."""
    headers = Signer("alice", key, user="bob").headers("GET", "/v1/tsg/groups?a=b%20c", only_date=only_date)
    credentials = signature.parse(headers["Authorization"])
    assert (credentials.account, credentials.user, credentials.key) == ("alice", "bob", keys.fingerprint(public_line))
    assert credentials.signs_only_date == only_date
    text = signature.signed_text(credentials, "GET", "/v1/tsg/groups?a=b%20c", {"date": headers["Date"]})
    signature.verify(credentials, signature.load_public(public_line), text)


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_key_of_a_file_signs(made: Callable[..., Path], kind: str, form: str) -> None:
    file = made(kind, form)
    key = read(file.read_text())
    assert key.fingerprint == fingerprint(file)
    verify(key, line(file))
    verify(key, line(file), only_date=True)
    verify(read(file.read_text(), "a passphrase that it does not need"), line(file))


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_key_with_a_passphrase_signs(made: Callable[..., Path], kind: str, form: str) -> None:
    file = made(kind, form, locked=True)
    verify(read(file.read_text(), PASSPHRASE), line(file))
    for wrong in (None, "wrong"):
        with pytest.raises(IsEncrypted):
            read(file.read_text(), wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_an_agent_signs(made: Callable[..., Path], ssh_agent: Path, kind: str) -> None:
    file = made(kind)
    add(ssh_agent, file)
    (key,) = agent.held(ssh_agent)
    assert (key.fingerprint, key.comment) == (fingerprint(file), "of a test")
    for _ in range(20):  # the numbers of an ECDSA signature differ in length
        verify(key, line(file))


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(NoKey, match="no private key"):
        read(text)


def test_a_dsa_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dsa"
    subprocess.run([program("openssl"), "dsaparam", "-noout", "-genkey", "-out", file, "1024"], check=True, capture_output=True)
    with pytest.raises(NoKey, match="neither RSA"):
        read(file.read_text())


class Home:
    """A ~/.ssh with these files."""

    def __init__(self, path: Path) -> None:
        self.path = path / "ssh"
        self.path.mkdir()

    def take(self, file: Path, name: str, *, public: bool = True, private: bool = True) -> Path:
        if private:
            shutil.copy(file, self.path / name)
        if public:
            shutil.copy(file.with_name(f"{file.name}.pub"), self.path / f"{name}.pub")
        return self.path / name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Home(tmp_path)


def test_a_key_is_found_by_either_fingerprint_among_others(home: Home, made: Callable[..., Path]) -> None:
    home.take(made("rsa"), "id_rsa")
    ours = home.take(made("ed25519"), "work")
    (home.path / "broken.pub").write_text("ssh-rsa not-base64\n")
    (home.path / "config").write_text("Host *\n")
    wanted = fingerprint(made("ed25519"))
    for form in (wanted, f"MD5:{wanted}", wanted.upper(), keys.sha256_fingerprint(line(made("ed25519")))):
        found = keyring.find(form, home=home.path)
        assert (found.key.fingerprint, found.place) == (wanted, str(ours))


def test_a_private_key_without_its_public_half_is_found_by_its_name(home: Home, made: Callable[..., Path]) -> None:
    home.take(made("rsa"), "my.id_rsa", public=False)
    home.take(made("ed25519"), "other", public=False)
    assert keyring.find(fingerprint(made("rsa")), home=home.path).place.endswith("my.id_rsa")
    with pytest.raises(NoKey, match="is neither in"):
        keyring.find(fingerprint(made("ed25519")), home=home.path)


def test_the_agent_goes_before_a_file_with_a_passphrase(home: Home, made: Callable[..., Path], ssh_agent: Path) -> None:
    file = home.take(made("rsa", locked=True), "id_rsa")
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return PASSPHRASE

    wanted = fingerprint(made("rsa", locked=True))
    verify(keyring.find(wanted, home=home.path, socket=ssh_agent, ask=ask).key, line(file))
    assert asked == [str(file)]
    subprocess.run(
        [program("ssh-add"), "-q", file],
        env={**os.environ, "SSH_AUTH_SOCK": str(ssh_agent), "SSH_ASKPASS": str(_askpass(home.path)), "SSH_ASKPASS_REQUIRE": "force"},
        check=True,
    )
    found = keyring.find(wanted, home=home.path, socket=ssh_agent, ask=ask)
    assert found.place == "the ssh-agent"
    verify(found.key, line(file))
    assert len(asked) == 1


def _askpass(folder: Path) -> Path:
    file = folder / "askpass"
    file.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    file.chmod(0o700)
    return file


def test_a_passphrase_is_asked_three_times_at_most(home: Home, made: Callable[..., Path]) -> None:
    file = home.take(made("rsa", locked=True), "id_rsa")
    answers = iter(["wrong", "wrong", PASSPHRASE])
    verify(keyring.find(fingerprint(file), home=home.path, ask=lambda _name: next(answers)).key, line(file))
    with pytest.raises(NoKey, match="no passphrase of 3"):
        keyring.find(fingerprint(file), home=home.path, ask=lambda _name: "wrong")
    with pytest.raises(NoKey, match="needs a passphrase, and there is no terminal to ask: ssh-add "):
        keyring.find(fingerprint(file), home=home.path)


def test_a_key_is_taken_from_the_environment_as_text_or_path(home: Home, made: Callable[..., Path]) -> None:
    file = made("rsa", "PEM")
    for material in (file.read_text(), str(file)):
        found = keyring.find(fingerprint(file), home=home.path, material=material)
        assert "TRITON_KEY_MATERIAL" in found.place
        verify(found.key, line(file))
    with pytest.raises(NoKey, match=r"has the key .*, not "):
        keyring.find(fingerprint(made("ed25519")), home=home.path, material=str(file))
    with pytest.raises(NoKey, match="neither a key nor the path of one"):
        keyring.find(fingerprint(file), home=home.path, material="/nowhere/at-all")


def test_what_was_in_the_way_is_said(home: Home, made: Callable[..., Path], tmp_path: Path) -> None:
    home.take(made("rsa"), "id_rsa", private=False)
    with pytest.raises(NoKey) as told:
        keyring.find(fingerprint(made("rsa")), home=home.path, socket=tmp_path / "gone")
    assert "id_rsa.pub is its public half alone" in str(told.value)
    assert "can't be asked: No such file or directory" in str(told.value)
    assert "ssh-add FILE" in str(told.value)
    with pytest.raises(NoKey, match="SSH_AUTH_SOCK is not set"):
        keyring.find(fingerprint(made("ed25519")), home=home.path)
    with pytest.raises(NoKey, match="is no fingerprint"):
        keyring.find("id_rsa", home=home.path)
