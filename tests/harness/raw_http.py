"""HTTP spoken by hand on a socket."""


def read_101(raw):
    """Reads the head of the answer to an upgrade, which must agree; what follows stays unread. Answers the socket."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = raw.recv(1)
        assert piece, head
        head += piece
    assert head.startswith(b"HTTP/1.1 101 "), head
    return raw
