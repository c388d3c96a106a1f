"""TLSA records and certificates are matched as the case files say (cases/dane/README.case explains them)."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from libs.smtp.dane import Tlsa, authenticated, usable
from tests.smtp.certificates import HOST, NOW, issued

CASES = sorted((Path(__file__).parent / "cases/dane").glob("*.case"))


def record(text: str) -> Tlsa:
    """`3 1 1 leaf`."""
    numbers, _, of = text.rpartition(" ")
    usage, selector, matching = (int(number) for number in numbers.split())
    if of not in issued():
        return Tlsa(usage, selector, matching, bytes.fromhex(of.strip("-")))
    whole = issued()[of]
    key = whole.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    octets = whole.der if selector == 0 else key
    digests = {1: hashlib.sha256, 2: hashlib.sha512}
    return Tlsa(
        usage, selector, matching, digests[matching](octets).digest() if matching in digests else octets
    )


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases(path: Path) -> None:
    given_, wanted = path.read_text("utf-8").split("---\n")
    texts, shown = [], None
    for number, line in enumerate(given_.splitlines(), 1):
        word, _, rest = line.partition(" ")
        match word:
            case "#":
                pass
            case "tlsa":
                texts.append(rest)
            case "shows":
                shown = [issued()[each].der if each != "noise" else b"noise" for each in rest.split()]
            case _:
                raise ValueError(f"{path.name}:{number}: {word!r}; known are tlsa, shows")
    assert shown is not None
    fit = usable(record(text) for text in texts)
    yes = authenticated(fit, shown, (HOST, "office.example"), NOW)
    found = [f"usable {text}" for text in texts if record(text) in fit]
    assert [*found, "yes" if yes else "no"] == wanted.splitlines()


TLSA = st.builds(Tlsa, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=80))
NEAR = st.builds(
    Tlsa, st.integers(0, 4), st.integers(0, 2), st.integers(0, 3), st.sampled_from([32, 64]).map(bytes)
)


@given(st.lists(st.one_of(TLSA, NEAR), max_size=6), st.lists(st.binary(max_size=50), max_size=3))
def test_noise_authenticates_nobody(records: list[Tlsa], chain: list[bytes]) -> None:
    """Whatever stands in DNS and is shown: nothing raises, and chance is nobody's proof."""
    fit = usable(records)
    assert all(each.usage in (2, 3) for each in fit)
    assert not authenticated(fit, [*chain, issued()["leaf"].der], (HOST,), NOW)
    assert not authenticated(fit, [issued()["leaf"].der, *chain], (HOST,), NOW)
