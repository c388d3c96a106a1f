"""Chunks to messages: what completes, what breaks, and the lowest offset that is still needed."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.log.contract import Record
from libs.mail.codec import encode
from libs.mail.records import Trace
from services.verify.assemble import END_S, Abort, Assemblies, Budget, Chunk, Complete, Part, read


def trace(chunks: int) -> Trace:
    return Trace(chunks, "office.example", "192.0.2.1", "client.example", "bob@sender.example")


def record(headers: Sequence[tuple[str, bytes]], value: bytes | None = b"x") -> Record:
    return Record("content", 0, 7, b"id1", value, headers, 1.0)


def feed(
    assemblies: Assemblies, chunks: Sequence[tuple[int, Trace | None]]
) -> tuple[Complete | None, list[Part]]:
    """(what the last chunk gave, all parts let go); offsets 10, 11, ..."""
    complete, freed = None, list[Part]()
    for offset, (number, last) in enumerate(chunks, 10):
        complete, parts = assemblies.add(b"id1", offset, Chunk(number, last), b"%d" % number, 0.0)
        freed += parts
    return complete, freed


def test_chunks_in_order_make_a_message() -> None:
    """The parts of an id, in order, with the trace of the last one; nothing is let go before its time."""
    complete, freed = feed(Assemblies(), [(0, None), (1, None), (2, trace(3))])
    assert complete == Complete("id1", 10, (b"0", b"1", b"2"), trace(3))
    assert freed == []


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        ([(1, trace(2))], "chunk missing"),
        ([(0, None), (2, trace(3))], "chunk missing"),
        ([(0, None), (0, None), (1, trace(2))], "chunk repeated"),
        ([(0, None), (1, None), (1, trace(2))], "chunk repeated"),
        ([(0, None), (1, trace(3))], "chunks miscounted"),
        ([(0, None), (2, None), (1, None), (2, trace(3))], "chunk missing"),
        ([(-1, trace(1))], "chunk missing"),
    ],
)
def test_gaps_and_repeats_break_an_assembly(chunks: list[tuple[int, Trace | None]], why: str) -> None:
    """A broken assembly is complete without parts at its last chunk, and lets go of everything it held."""
    complete, freed = feed(Assemblies(), chunks)
    assert complete is not None
    assert (complete.broken, complete.parts) == (why, ())
    assert len(freed) == len(chunks)


def test_an_unreadable_chunk_breaks_its_assembly_only() -> None:
    """An error in one id's chunk says nothing about its neighbours."""
    assemblies = Assemblies()
    assemblies.add(b"id1", 10, Chunk(0, None, "no room"), b"", 0.0)
    assemblies.add(b"id2", 11, Chunk(0, None), b"a", 0.0)
    first, _ = assemblies.add(b"id1", 12, Chunk(1, trace(2)), b"b", 0.0)
    second, _ = assemblies.add(b"id2", 13, Chunk(1, trace(2)), b"b", 0.0)
    assert first is not None
    assert second is not None
    assert (first.broken, second.broken) == ("no room", "")


def test_an_abort_chunk_ends_an_assembly() -> None:
    """A session that ended without a message lets go of what it sent."""
    assemblies = Assemblies()
    assemblies.add(b"id1", 10, Chunk(0, None), b"a", 0.0)
    assert assemblies.drop(b"id1") == (b"a",)
    assert assemblies.drop(b"id1") == ()
    assert assemblies.needed(20) == 20


def test_the_lowest_offset_needed() -> None:
    """The first chunk of the oldest message that is open or without a verdict; broken ones need nothing."""
    assemblies = Assemblies()
    assert assemblies.needed(5) == 5
    assemblies.add(b"id1", 10, Chunk(0, None), b"a", 0.0)
    assemblies.add(b"id2", 11, Chunk(0, trace(1)), b"b", 0.0)
    assemblies.evaluate(b"id3", 12)
    assert assemblies.needed(13) == 10
    assemblies.add(b"id1", 13, Chunk(5, None), b"a", 0.0)
    assert assemblies.needed(14) == 11
    assemblies.done(b"id2")
    assert assemblies.needed(14) == 12
    assemblies.done(b"id3")
    assert assemblies.needed(14) == 14


def test_an_assembly_ends_after_half_an_hour() -> None:
    """What is not complete by then is let go; its late last chunk finds a gap."""
    assemblies = Assemblies()
    assemblies.add(b"id1", 10, Chunk(0, None), b"a", 0.0)
    assert assemblies.expire(END_S - 1) == (0, ())
    assert assemblies.expire(END_S) == (1, (b"a",))
    complete, _ = assemblies.add(b"id1", 20, Chunk(1, trace(2)), b"b", END_S)
    assert complete is not None
    assert complete.broken == "chunk missing"


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ([("index", b"0")], Chunk(0, None)),
        ([("index", b"12"), ("trace", encode(trace(13)))], Chunk(12, trace(13))),
        ([("index", b"0"), ("by", b"deliver")], None),
        ([("abort", b"1")], Abort()),
        ([], Chunk(-1, None, "no index")),
        ([("index", b"-1")], Chunk(-1, None, "no index")),
        ([("index", b"9" * 10)], Chunk(-1, None, "no index")),
    ],
)
def test_reading_a_record(headers: list[tuple[str, bytes]], wanted: Chunk | Abort | None) -> None:
    """The headers say what a record is; those of deliver are stepped over."""
    assert read(record(headers)) == wanted


def test_an_unreadable_trace_is_an_error_of_its_chunk() -> None:
    """A trace of another version breaks the assembly, and nothing else."""
    got = read(record([("index", b"0"), ("trace", b"\xc1")]))
    assert isinstance(got, Chunk)
    assert got.error
    assert got.trace is None


@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 3), st.sampled_from([None, 1, 2, 3])),
        max_size=30,
    )
)
def test_whatever_comes_every_octet_is_let_go_once(events: list[tuple[bytes, int, int | None]]) -> None:
    """Parts taken equal parts let go plus parts still held: the budget comes out even."""
    assemblies = Assemblies()
    taken = given_back = 0
    for offset, (key, number, chunks) in enumerate(events):
        last = None if chunks is None else trace(chunks)
        complete, freed = assemblies.add(key, offset, Chunk(number, last), b"x", 0.0)
        taken += 1
        given_back += len(freed) + (len(complete.parts) if complete else 0)
        assert assemblies.needed(offset + 1) <= offset + 1
    given_back += len(list(assemblies.parts()))
    assert given_back == taken


def test_the_budget() -> None:
    """There is room up to the limit, and again after something was given back."""
    budget = Budget(10)
    assert budget.take(6)
    assert not budget.take(5)
    assert budget.take(4)
    budget.give(6)
    assert budget.take(5)
