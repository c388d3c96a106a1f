"""Ports and addresses of loopback for servers that cannot be given a socket."""

import secrets
import socket


def free_port(address: str = "127.0.0.1") -> int:
    """One that nobody has at this moment."""
    with socket.socket() as held:
        held.bind((address, 0))
        return int(held.getsockname()[1])


def free_address(port: int) -> str:
    """One of 127.53.0.0/16 where `port` is free for UDP and TCP: for clients that know one port only."""
    for _ in range(20):
        address = f"127.53.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            try:
                stream.bind((address, port))
                datagrams.bind((address, port))
            except OSError:
                continue
            return address
    raise OSError(f"port {port} is taken on every address that was tried")
