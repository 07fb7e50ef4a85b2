"""Key pairs, fingerprints, and what is sealed at rest."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.clients import keys
from shared.clients.keys import Sealer, SealError

OLD, NEW, FOREIGN = b"o" * 32, b"n" * 32, b"f" * 32
ROW, OTHER_ROW = "1d32f239-81e2-4e35-a258-a5649dc4e6f3", "6f873d02-172c-418f-8416-4da2b50d5c53"
MATERIAL = "private material"

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture(scope="module")
def pair() -> keys.KeyPair:
    return keys.generate()


def parts(sealed: str) -> tuple[str, str, bytes]:
    version, key_id, text = sealed.split(".")
    return version, key_id, base64.b64decode(text)


# Sealing


@given(st.text(), st.text())
def test_what_was_sealed_for_a_row_opens_for_it(material: str, row: str) -> None:
    sealer = Sealer([NEW])
    assert sealer.open(sealer.seal(material, row=row), row=row) == material


def test_sealed_material_is_not_to_be_read() -> None:
    sealed = Sealer([NEW]).seal(MATERIAL, row=ROW)
    assert MATERIAL not in sealed
    assert MATERIAL.encode() not in parts(sealed)[2]


def test_the_same_material_never_looks_the_same_twice() -> None:
    sealer = Sealer([NEW])
    assert sealer.seal(MATERIAL, row=ROW) != sealer.seal(MATERIAL, row=ROW)


def test_material_copied_into_another_row_does_not_open() -> None:
    sealer = Sealer([NEW])
    with pytest.raises(SealError, match="another row"):
        sealer.open(sealer.seal(MATERIAL, row=ROW), row=OTHER_ROW)


@given(st.data())
def test_material_with_any_bit_changed_does_not_open(data: st.DataObject) -> None:
    sealer = Sealer([NEW])
    version, key_id, raw = parts(sealer.seal(MATERIAL, row=ROW))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError, match="was changed"):
        sealer.open(f"{version}.{key_id}.{base64.b64encode(changed).decode()}", row=ROW)


@pytest.mark.parametrize("length", [0, 1, 11, 12, 27])
def test_material_that_was_cut_off_does_not_open(length: int) -> None:
    sealer = Sealer([NEW])
    version, key_id, raw = parts(sealer.seal(MATERIAL, row=ROW))
    with pytest.raises(SealError, match="was changed"):
        sealer.open(f"{version}.{key_id}.{base64.b64encode(raw[:length]).decode()}", row=ROW)


@given(st.text())
def test_whatever_stands_in_the_row_either_opens_or_is_told_to_be_wrong(text: str) -> None:
    sealer = Sealer([NEW])
    _, key_id, _ = parts(sealer.seal(MATERIAL, row=ROW))
    for stored in (text, f"v1.{key_id}.{text}", f"v2.{key_id}.{text}"):
        if not stored.startswith("-----BEGIN "):
            with pytest.raises(SealError):
                sealer.open(stored, row=ROW)


def test_the_first_key_seals_and_every_key_opens() -> None:
    sealed_before = Sealer([OLD]).seal(MATERIAL, row=ROW)
    rotated = Sealer([NEW, OLD])
    assert rotated.open(sealed_before, row=ROW) == MATERIAL
    sealed_now = rotated.seal(MATERIAL, row=ROW)
    assert Sealer([NEW]).open(sealed_now, row=ROW) == MATERIAL
    with pytest.raises(SealError):
        Sealer([OLD]).open(sealed_now, row=ROW)


def test_material_under_a_key_that_was_taken_away_is_told_by_the_id_of_that_key() -> None:
    sealed = Sealer([FOREIGN]).seal(MATERIAL, row=ROW)
    with pytest.raises(SealError, match=parts(sealed)[1]):
        Sealer([NEW, OLD]).open(sealed, row=ROW)


def test_without_a_key_nothing_is_sealed_and_nothing_opens_but_clear_text(pair: keys.KeyPair) -> None:
    with pytest.raises(SealError, match="TSG_SECRET_KEYS"):
        Sealer([]).seal(MATERIAL, row=ROW)
    with pytest.raises(SealError):
        Sealer([]).open(Sealer([NEW]).seal(MATERIAL, row=ROW), row=ROW)
    assert Sealer([]).open(pair.private_pem, row=ROW) == pair.private_pem


def test_a_pem_of_2018_passes_as_it_is() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()
    assert Sealer([NEW]).open(pem, row=ROW) == pem
    assert keys.of_pem(pem) == keys.of_private_key(private)


def test_a_new_secret_key_is_one_that_the_settings_take() -> None:
    first, second = keys.make_secret_key(), keys.make_secret_key()
    assert len(base64.urlsafe_b64decode(first)) == 32
    assert first != second


# Pairs


def test_a_pair_is_had_again_from_its_private_half(pair: keys.KeyPair) -> None:
    assert keys.of_pem(pair.private_pem) == pair


def test_a_new_pair_has_2048_bits(pair: keys.KeyPair) -> None:
    private = serialization.load_pem_private_key(pair.private_pem.encode(), password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    assert private.key_size == 2048


def test_two_pairs_are_two(pair: keys.KeyPair) -> None:
    assert keys.generate().fingerprint != pair.fingerprint


def test_a_pair_shows_its_fingerprint_and_not_its_private_half(pair: keys.KeyPair) -> None:
    assert f"{pair} {pair!r} {[pair]}" == " ".join([f"KeyPair({pair.fingerprint})"] * 2 + [f"[KeyPair({pair.fingerprint})]"])


@pytest.mark.parametrize(
    "text", ["", "no private key: development data", "-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----\n"]
)
def test_what_is_no_private_key_is_told_without_being_repeated(text: str) -> None:
    with pytest.raises(SealError) as caught:
        keys.of_pem(text)
    assert str(caught.value) == "the material is not a private key"


def test_a_private_key_under_a_passphrase_is_told(pair: keys.KeyPair) -> None:
    private = serialization.load_pem_private_key(pair.private_pem.encode(), password=None)
    locked = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"passphrase")
    )
    with pytest.raises(SealError, match="not a private key"):
        keys.of_pem(locked.decode())


def test_a_key_that_is_not_rsa_is_told() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(SealError, match="not an RSA key"):
        keys.of_pem(pem.decode())


# Fingerprints


def test_the_fingerprint_of_a_known_key_is_known() -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f comment"
    assert keys.fingerprint(line) == "0f:a2:0a:d7:38:3e:65:45:08:6b:63:84:1c:ff:dc:ba"


@needs_ssh_keygen
@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_a_fingerprint_is_the_one_that_ssh_keygen_tells(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a comment", "-f", file], check=True)
    assert keys.fingerprint(file.with_suffix(".pub").read_text()) == told_by_ssh_keygen(file.with_suffix(".pub"))


@needs_ssh_keygen
def test_ssh_keygen_knows_our_pairs(pair: keys.KeyPair, tmp_path: Path) -> None:
    file = tmp_path / "id.pub"
    file.write_text(pair.public_line)
    assert told_by_ssh_keygen(file) == pair.fingerprint


def told_by_ssh_keygen(file: Path) -> str:
    told = subprocess.run(["ssh-keygen", "-l", "-E", "md5", "-f", file], check=True, capture_output=True, text=True).stdout
    return told.split()[1].removeprefix("MD5:")
