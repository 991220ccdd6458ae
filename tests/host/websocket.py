"""As much of the websocket protocol (RFC 6455) as a test server needs: it speaks in whole frames to one browser."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
from typing import BinaryIO

KEY_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE = 1, 2, 8


def accept_key(key: str) -> str:
    """The answer to the header Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + KEY_SUFFIX).encode()).digest()).decode()


class Websocket:
    """The server's end of an open connection."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader, self._writer, self._lock = reader, writer, threading.Lock()

    def send(self, kind: int, body: bytes) -> None:
        """kind: TEXT or BINARY."""
        length = len(body)
        if length < 126:
            size = bytes([length])
        elif length < 1 << 16:
            size = b"\x7e" + struct.pack(">H", length)
        else:
            size = b"\x7f" + struct.pack(">Q", length)
        with self._lock:
            self._writer.write(bytes([0x80 | kind]) + size + body)
            self._writer.flush()

    def receive(self) -> bytes | None:
        """The next message of the browser; None when it has gone."""
        head = self._reader.read(2)
        if len(head) < 2 or head[0] & 0x0F == CLOSE:
            return None
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._reader.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._reader.read(8))
        mask = self._reader.read(4)
        return bytes(byte ^ mask[index % 4] for index, byte in enumerate(self._reader.read(length)))
