"""A line between the campaign and each evaluation that runs on somebody else's executor.

An executor returns a result in the end, and nothing before. Over this line an evaluation reports
its progress and hears whether to go on; and because a line breaks when either end dies, the
campaign knows at once that a worker was lost, and an evaluation whose campaign has ended, however
it ended, ends too.

Both ends prove that they know a secret of the run (HMAC, `multiprocessing.connection`) before
anything is unpickled.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

CONNECT_SECONDS = 5.0  # until a host is taken for unreachable
HANDSHAKE_SECONDS = 30.0


@dataclass(frozen=True)
class Address:
    """Where the campaign listens.

    Attributes:
        hosts: Names and numbers it may be reached by; tried in this order.
        port: TCP port.
        machine: Its own host name: there, the loopback address does.
        secret: Of this run.
    """

    hosts: tuple[str, ...]
    port: int
    machine: str
    secret: bytes


@dataclass(frozen=True)
class Message:
    """What came over a line.

    Attributes:
        token: Which evaluation's.
        line: The line it came over, to answer on.
        content: ("hello",), ("report", step, readings), ("bye",), or ("broken",) where it ended.
    """

    token: str
    line: Connection
    content: tuple[object, ...]


class Switchboard:
    """The campaign's end of all lines: what comes over any of them goes to one queue.

    Args:
        messages: Takes each `Message`.
        local: Whether all workers are on this machine: then no other may connect.
    """

    def __init__(self, messages: queue.SimpleQueue[object], *, local: bool) -> None:
        self._messages = messages
        self._server = socket.create_server(("127.0.0.1" if local else "", 0), backlog=128)
        machine = socket.gethostname()
        hosts = ("127.0.0.1",) if local else _own_addresses(machine)
        port = self._server.getsockname()[1]
        self.address = Address(hosts, port, machine, os.urandom(32))
        self._lines: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, name="lifelines", daemon=True).start()

    def close(self) -> None:
        """Break all lines: every evaluation at their other ends stops."""
        with self._lock:
            self._closed = True
            lines, self._lines = list(self._lines), set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._server.close()
        for line in lines:
            hang_up(line)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(peer,), name="lifeline", daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        peer.settimeout(None)
        keep_alive(peer)
        line = Connection(peer.detach())
        token: str | None = None
        try:
            deliver_challenge(line, self.address.secret)
            answer_challenge(line, self.address.secret)
            with self._lock:
                if self._closed:
                    return
                self._lines.add(line)
            while True:
                token, *content = line.recv()
                self._messages.put(Message(token, line, tuple(content)))
        except (EOFError, OSError, AuthenticationError):
            if token is not None:
                self._messages.put(Message(token, line, ("broken",)))
        finally:
            with self._lock:
                self._lines.discard(line)
            with suppress(OSError):
                line.close()


def connect(address: Address) -> Connection | None:
    """The worker's end of a line; None where the campaign cannot be reached."""
    here = ("127.0.0.1",) if socket.gethostname() == address.machine else ()
    for host in (*here, *address.hosts):
        try:
            peer = socket.create_connection((host, address.port), CONNECT_SECONDS)
        except OSError:
            continue
        peer.settimeout(None)
        keep_alive(peer)
        line = Connection(peer.detach())
        try:
            answer_challenge(line, address.secret)
            deliver_challenge(line, address.secret)
        except (EOFError, OSError, AuthenticationError):  # somebody else listens there
            line.close()
            continue
        return line
    return None


def hang_up(line: Connection) -> None:
    """Close a line so that a thread that reads from it wakes up, too."""
    with suppress(OSError, ValueError):
        end = socket.socket(fileno=os.dup(line.fileno()))
        with end:
            end.shutdown(socket.SHUT_RDWR)


def keep_alive(peer: socket.socket) -> None:
    """Have the system notice a machine that is gone without a word, within two minutes."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _own_addresses(machine: str) -> tuple[str, ...]:
    """What other machines may reach this one by."""
    found = []
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # nothing is sent: this asks for the way out
        found.append(probe.getsockname()[0])
    found += [socket.getfqdn(), machine]
    return tuple(dict.fromkeys(found))
