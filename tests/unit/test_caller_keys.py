"""What is remembered of callers, and for how long."""

import pytest

from shared.clients.keys import generate
from shared.clients.signature import load_public
from tsg_api.auth import caller_keys
from tsg_api.auth.caller_keys import PAIR_SECONDS, Verified, VerifiedHeaders


@pytest.fixture(scope="module")
def verified() -> Verified:
    return Verified(("demo", None, "key"), load_public(generate().public_line))


def test_a_pair_of_headers_goes_when_its_date_is_of_no_more_use(verified: Verified) -> None:
    now = [1000.0]
    pairs = VerifiedHeaders(now=lambda: now[0])
    for second in range(100):
        pairs.put("signature", str(second), verified)
    assert pairs.get("signature", "0") == verified
    now[0] += PAIR_SECONDS
    pairs.put("signature", "100", verified)
    assert len(pairs) == 1
    assert pairs.get("signature", "0") is None
    assert pairs.get("signature", "100") == verified


def test_of_many_pairs_the_newest_are_remembered(verified: Verified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_keys, "MOST_PAIRS", 3)
    pairs = VerifiedHeaders()
    for second in range(5):
        pairs.put("signature", str(second), verified)
    assert len(pairs) == 3
    assert pairs.get("signature", "1") is None
    assert pairs.get("signature", "4") == verified
