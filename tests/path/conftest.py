"""Fixtures of this folder: a real Kafka (tests/helpers/kafka.py)."""

from tests.helpers.kafka import brokers

__all__ = ["brokers"]
