"""Fixtures of this folder: a real Kafka (tests/helpers/kafka.py)."""

from tests.helpers.kafka import broker, brokers

__all__ = ["broker", "brokers"]
