"""A real Google Cloud Storage API for tests: fake-gcs-server, built once with Go, and a proxy that injects faults."""

import contextlib
import http.client
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.lanes import free_port, go_tool

BUCKET = "speech"


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """The URL of a fresh, empty server on the loopback interface with one bucket, ended afterwards."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = go_tool("GCS", "github.com/fsouza/fake-gcs-server", "v1.56.1")
    command = [str(server), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-public-host", f"127.0.0.1:{port}", "-external-url", url, "-log-level", "error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _make_bucket(url)
        yield url
    finally:
        process.kill()
        process.wait()


def _make_bucket(url: str) -> None:
    body = b'{"name": "%s"}' % BUCKET.encode()
    request = urllib.request.Request(
        f"{url}/storage/v1/b?project=test", body, {"Content-Type": "application/json"}, method="POST"
    )
    for _ in range(200):
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"fake-gcs-server did not come up at {url}")


@dataclass
class Rule:
    """Does `fault` to the next `times` requests that `matches` accepts; `hits` counts them.

    Faults: a status such as "503"; "reset" before, or "lost" after forwarding; "flipped" bits in the answer; "stalled".
    """

    fault: str
    matches: Callable[[str, str], bool]
    times: int = 1
    hits: int = 0


@dataclass
class FaultProxy:
    """A proxy in front of the server at `port`. Tests add rules and assert that each was hit."""

    port: int
    url: str = ""
    rules: list[Rule] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: str, method: str, part: str = "", times: int = 1) -> Rule:
        """A rule for requests of the method whose target holds `part`."""
        rule = Rule(fault, lambda verb, target: verb == method and part in target, times)
        self.rules.append(rule)
        return rule

    def fault_for(self, method: str, target: str) -> str | None:
        with self._lock:
            self.seen.append((method, target))
            for rule in self.rules:
                if rule.hits < rule.times and rule.matches(method, target):
                    rule.hits += 1
                    return rule.fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def _relay(self) -> None:
        body = self._body()
        fault = self.proxy.fault_for(self.command, self.path)
        if fault == "reset":
            return self._reset()
        if fault == "stalled":
            self.proxy.closing.wait(60)
            return self._reset()
        if fault is not None and fault.isdigit():
            return self._answer(int(fault), [], b'{"error": {"message": "injected"}}')
        status, headers, answer = self._forward(body)
        if fault == "lost":
            return self._answer(503, [], b'{"error": {"message": "injected after success"}}')
        if fault == "flipped":
            answer = bytes([answer[0] ^ 1]) + answer[1:]
        return self._answer(status, headers, answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _relay

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=30)
        try:
            dropped = ("transfer-encoding", "content-length", "connection")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args) -> None:
        """Quiet: the tests read `seen`."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up on an injected fault is no error of the proxy's."""


@contextlib.contextmanager
def fault_proxy(server_url: str) -> Iterator[FaultProxy]:
    """A proxy to the server; its `url` is what clients take for the server's."""
    proxy = FaultProxy(port=int(server_url.rpartition(":")[2]))
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
