"""One headless Chromium, driven over a pipe with its DevTools protocol. No port, no library."""

import itertools
import json
import os
import select
import subprocess
import time
from contextlib import contextmanager

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60  # seconds for one answer


class Page:
    """A page of the browser: `go` to an address, `run` an expression, and see what it asked for and complained of."""

    def __init__(self, reader, writer):
        self._reader, self._writer, self._rest, self._ids, self._session = reader, writer, b"", itertools.count(1), {}
        self.events = []
        targets = self.send("Target.getTargets")["targetInfos"]
        (target,) = [t["targetId"] for t in targets if t["type"] == "page"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        """Call a method of the protocol and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params, **self._session}
        data = json.dumps(message).encode() + b"\0"
        while data:  # a pipe takes a long message in parts
            data = data[os.write(self._writer, data) :]
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def _receive(self):
        ends = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reader], [], [], max(0, ends - time.monotonic()))
            data = os.read(self._reader, 1 << 20) if ready else b""
            assert data, "Chromium does not answer"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def go(self, url):
        """Open an address and wait until the page is loaded."""
        self.events.clear()
        self.send("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def run(self, expression):
        """The value of a JavaScript expression, or of the promise that it gives."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]["exception"]["description"]
        return result["result"].get("value")

    def wait_for(self, expression):
        """Wait until a JavaScript expression is true."""
        ends = time.monotonic() + PATIENCE
        while not self.run(f"!!({expression})"):
            assert time.monotonic() < ends, f"never true: {expression}"
            time.sleep(0.05)

    def complaints(self):
        """Exceptions and errors that the page left in the console since `go`."""
        thrown = [e["params"]["exceptionDetails"] for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        entries = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        return thrown + [entry for entry in entries if entry["level"] == "error"]

    def requests(self):
        """Addresses that the page asked for since `go`, without those inside itself."""
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:"))]


@contextmanager
def page_of(program, folder):
    """A `Page` of a new browser, whose profile is in `folder`; the browser ends with the block."""
    (to_child, writer), (reader, from_child) = _high_pipe(), _high_pipe()
    command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(  # Chromium reads from file descriptor 3 and writes to 4
        ["bash", "-c", f'exec "$@" 3<&{to_child} 4>&{from_child}', "bash", *command],
        pass_fds=(to_child, from_child), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=os.environ | {"HOME": str(folder)},
    )  # fmt: skip
    try:
        os.close(to_child), os.close(from_child)
        yield Page(reader, writer)
    finally:
        os.close(writer)  # the browser ends when its pipe is closed
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(reader)


def _high_pipe():
    """A pipe (read, write) with numbers above 4, which bash could otherwise overwrite."""
    import fcntl  # Windows has none; the tests are marked

    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high
