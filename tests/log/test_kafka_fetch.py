"""Our fetch request and the reading of its answer are octet for octet what aiokafka's own classes make."""

from aiokafka.protocol import fetch

from libs.log.kafka_fetch import fetch_request, fetched

BROKER = {1: (4, 17)}  # the versions of Fetch that Kafka 4 speaks
PARTITIONS = [
    # partition, error, end, last stable offset, log start, aborted transactions, preferred replica, batches
    (0, 0, 2**40, 7, 3, None, -1, b""),
    (1, 6, -1, -1, -1, [], -1, None),
    (2, 0, 9, 9, 0, [(1, 2), (3, 4)], 1, b"cut off"),
]


def test_a_request() -> None:
    offsets = {number: 2**40 + number for number in range(12)}
    theirs = fetch.FetchRequest(
        900, 1, 8 * 2**20, 0, [("content", [(number, offset, 2**20) for number, offset in offsets.items()])]
    )
    ours = fetch_request("content", offsets, wait_ms=900, each=2**20, total=8 * 2**20)
    assert ours.prepare(BROKER).encode() == theirs.prepare(BROKER).encode()


def test_an_answer() -> None:
    octets = fetch.FetchResponse_v11(0, 0, 0, [("content", PARTITIONS), ("queue", [])]).encode()
    answer = (
        fetch_request("content", {}, wait_ms=0, each=1, total=1).prepare(BROKER).RESPONSE_TYPE.decode(octets)
    )
    assert answer.topics == [
        ("content", [(0, 0, 2**40, b""), (1, 6, -1, b""), (2, 0, 9, b"cut off")]),
        ("queue", []),
    ]
    found = fetched(answer, "content", "content", {0: 5, 1: 6, 2: 9})
    assert [(part.code, part.end, part.position, part.records) for part in found.values()] == [
        (0, 2**40, 5, []),
        (6, -1, 6, []),
        (0, 9, 9, []),
    ]
