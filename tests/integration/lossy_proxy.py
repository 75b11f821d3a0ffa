"""A proxy before an S3 endpoint that loses answers: the request is carried out, its answer never arrives."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class LossyProxy:
    """Forwards whole requests as they are, one a connection.

    :param lose: of PUTs whose path ends like this the first answer is lost.
    :param lost: the paths whose answers were.
    """

    target: tuple[str, int]
    lose: str = ""
    port: int = 0
    lost: list[str] = field(default_factory=list)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed: the end
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self.target, 10) as server:
            client.settimeout(10)
            server.settimeout(10)
            request = _message(client)
            method, _, rest = request.partition(b" ")
            path = rest.partition(b" ")[0].partition(b"?")[0].decode()
            # One request a connection, in both directions.
            server.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            answer = b""
            while chunk := server.recv(65_536):
                answer += chunk
            if method == b"PUT" and self.lose and path.endswith(self.lose):
                self.lost.append(path)
                self.lose = ""
                return
            client.sendall(answer)


def _message(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (chunk := client.recv(65_536)):
            return data
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    if b"100-continue" in head.lower():
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    found = _LENGTH.search(head)
    while found and len(body) < int(found[1]):
        if not (chunk := client.recv(65_536)):
            break
        body += chunk
    return re.sub(rb"\r\n[Ee]xpect: [^\r]*", b"", head) + b"\r\n\r\n" + body


@contextlib.contextmanager
def lossy_proxy(host: str, port: int) -> Iterator[LossyProxy]:
    """Run one on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = LossyProxy((host, port), port=listener.getsockname()[1])
        threading.Thread(target=proxy.serve, args=(listener,), daemon=True).start()
        yield proxy
