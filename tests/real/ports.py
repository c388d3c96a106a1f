"""Ports of loopback for servers that cannot be given a socket."""

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """One that nobody has at this moment."""
    with socket.socket() as held:
        held.bind((address, 0))
        return int(held.getsockname()[1])
