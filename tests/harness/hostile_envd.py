"""Runs as root in a guest and takes the guest agent's place: eth0 moves to a network namespace of its own, where this
answers on envd's port as a hostile guest would. Python's standard library only."""
import ctypes
import gzip
import http.server
import os
import socketserver
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
PORT = 49983
EMPTY_ENTRIES = b"\x0a\x00" * 16_000_000
PACKED_ENTRIES = gzip.compress(EMPTY_ENTRIES)
ANNOUNCES_32_MIB = b"\x00\x02\x00\x00\x00"


class Hostile(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):  # pylint: disable=invalid-name
        self.answer(204, {})

    def do_POST(self):  # pylint: disable=invalid-name
        if self.headers.get("Transfer-Encoding") == "chunked":
            while (size := int(self.rfile.readline(), 16)) > 0:
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/ListDir"):
            self.answer(200, {"Content-Type": "application/proto", "Content-Encoding": "gzip"}, PACKED_ENTRIES)
        elif self.path.endswith("/List"):
            self.answer(200, {"Content-Type": "application/proto"}, EMPTY_ENTRIES)
        elif self.path.endswith("/Start"):
            self.send_response(200)
            self.send_header("Content-Type", "application/connect+proto")
            self.send_header("Content-Length", "1000000000")
            self.end_headers()
            self.wfile.write(ANNOUNCES_32_MIB)
            self.wfile.flush()
            time.sleep(600)
        else:
            self.answer(204, {})


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 512


def run(*words):
    subprocess.run(words, check=True)


def main():
    ready_read, ready_write = os.pipe()
    moved_read, moved_write = os.pipe()
    child = os.fork()
    if child == 0:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            sys.exit("unshare")
        os.write(ready_write, b"x")
        os.read(moved_read, 1)
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", "169.254.0.21/30", "dev", "eth0")
        run("ip", "link", "set", "eth0", "up")
        run("ip", "route", "add", "default", "via", "169.254.0.22")
        Server(("0.0.0.0", PORT), Hostile).serve_forever()
    os.read(ready_read, 1)
    run("ip", "link", "set", "eth0", "netns", str(child))
    os.write(moved_write, b"x")
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
