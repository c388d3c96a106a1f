"""Dot-stuffing (RFC 5321 section 4.5.2): linear, over chunks of any cut, no other octet changed."""


class Stuffing:
    """`feed` each chunk of a content in order, then `end` once."""

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the last two octets before the next chunk; a content starts at a line's start

    def feed(self, chunk: bytes) -> bytes:
        """The octets to send for `chunk`."""
        if not chunk:
            return chunk
        stuffed = chunk.replace(b"\r\n.", b"\r\n..")
        if self._tail == b"\r\n" and chunk.startswith(b"."):
            stuffed = b"." + stuffed
        elif self._tail.endswith(b"\r") and chunk.startswith(b"\n."):
            stuffed = b"\n." + stuffed[1:]
        self._tail = chunk[-2:] if len(chunk) > 1 else self._tail[-1:] + chunk
        return stuffed

    def end(self) -> bytes:
        """The final dot, after a line end where the content has none."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"
