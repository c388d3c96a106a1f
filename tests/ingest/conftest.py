"""Fixtures of this folder: a real Kafka (tests/helpers/kafka.py), an authority for certificates."""

import pytest
import trustme

from tests.helpers.kafka import broker

__all__ = ["broker"]


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()
