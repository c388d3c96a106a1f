"""Fixtures of this folder: a real Kafka (tests/helpers/kafka.py)."""

from tests.helpers.kafka import broker

__all__ = ["broker"]
