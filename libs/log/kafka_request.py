"""A produce request whose batches are copied once (Kafka's protocol, Produce version 7).

aiokafka's own classes join each level of the request by itself: seven copies of every batch.
"""

from struct import Struct
from typing import Any

from aiokafka.protocol.api import Request
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7
from aiokafka.protocol.types import Int16, Int32, String

_BATCH = Struct("!ii")  # partition, octets of its batch
_text = String("utf-8").encode


class _Struct(ProduceRequest_v7):  # type: ignore[misc]
    def encode(self) -> bytes:
        parts = [
            _text(self.transactional_id),
            Int16.encode(self.required_acks),
            Int32.encode(self.timeout),
            Int32.encode(len(self.topics)),
        ]
        for topic, partitions in self.topics:
            parts += (_text(topic), Int32.encode(len(partitions)))
            for number, batch in partitions:
                parts += (_BATCH.pack(number, len(batch)), batch)
        return b"".join(parts)


class Produce(Request[_Struct]):  # type: ignore[misc]
    """What `request` asks, in fewer copies."""

    API_KEY = ProduceRequest.API_KEY

    def __init__(self, request: ProduceRequest) -> None:
        self._request = request

    def build(self, request_struct_class: type[_Struct]) -> Any:
        return self._request.build(request_struct_class)
