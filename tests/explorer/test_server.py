"""`explore` as a command: its server answers this machine alone, and its file needs nothing else."""

import http.client
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import numpy as np
import pytest

from tinyflamingo import cli
from tinyflamingo.checkpoint import save_checkpoint
from tinyflamingo.errors import UserError
from tinyflamingo.explorer import build, server
from tinyflamingo.model.config import FlamingoConfig
from tinyflamingo.training.presets import get_preset
from tinyflamingo.variants.ablations import AllPreviousXattnConfig, UngatedXattnConfig
from tinyflamingo.variants.plain_resamplers import MLPConfig
from tinyflamingo.variants.registry import in_form, untrained
from tinyflamingo.variants.vit import ViTConfig


@pytest.fixture(scope="module")
def port():
    """The port of a server that serves "the page"."""
    with server.Server(0) as running:
        running.page = b"the page"
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


def answer(port, path="/", host=None, method="GET"):
    """(status, body, headers) of one request. host: the header Host; {port} in it is the port."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.putrequest(method, path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host.format(port=port))
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())


@pytest.mark.parametrize("path", ["/", "/?x=1"])
@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}"])
def test_the_page_is_at_the_root(port, host, path):
    status, body, headers = answer(port, path, host)
    assert (status, body) == (200, b"the page") and headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "host", [None, "", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example"]
)
def test_another_host_name_is_refused(port, host):
    status, body, _ = answer(port, "/", host)
    assert status == 403 and b"page" not in body


@pytest.mark.parametrize("path", ["/x", "/flamingo.js", "/../cli.py", "/%2e%2e/cli.py", "/etc/passwd", "http://a/"])
def test_there_is_no_other_path(port, path):
    status, body, _ = answer(port, path, "localhost:{port}")
    assert status == 404 and b"page" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(port, method):
    assert answer(port, "/", "localhost:{port}", method)[0] == 501


def test_head_has_no_body(port):
    status, body, headers = answer(port, "/", "localhost:{port}", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "8")


def test_it_listens_on_this_machine_alone(port):
    with server.Server(0) as running:
        assert running.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_one_line_and_nothing_is_built(monkeypatch, capsys):
    monkeypatch.setattr(build, "build_page", lambda *_: pytest.fail("built for nothing"))
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["explore", "--port", str(port), "--no-browser"]) == 2
    expected = f"port {port} is taken by another program: choose another --port, or --port 0 for any free one"
    assert capsys.readouterr().err == f"tinyflamingo: {expected}\n"


@pytest.mark.parametrize("port", ["65536", "99999999999"])
def test_a_port_that_does_not_exist_is_one_line(port, capsys):
    assert cli.main(["explore", "--port", port]) == 2
    assert capsys.readouterr().err == f"tinyflamingo: --port {port}: a port is a number from 0 to 65535\n"


@contextmanager
def explore(*arguments, **more):
    """The command in a process of its own, with its first line. The process ends with the block."""
    command = [sys.executable, "-m", "tinyflamingo", "explore", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.posix
def test_the_command_serves_the_page_until_ctrl_c():
    """It ends as other commands do: one line, exit code 130."""
    with explore("--port", "0", "--no-browser") as (process, line):
        port = int(re.fullmatch(r"the explorer is at http://127\.0\.0\.1:(\d+)/; stop it with Ctrl-C\n", line)[1])
        assert answer(port, "/", "localhost:{port}")[1] == build.build_page()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (130, "", "tinyflamingo: stopped\n")


def test_the_command_says_in_one_line_that_its_port_is_taken():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with explore("--port", str(port), "--no-browser") as (process, line):
            err = process.communicate(timeout=20)[1]
    assert (process.returncode, line) == (2, "")
    assert err.startswith(f"tinyflamingo: port {port} is taken by another program") and err.count("\n") == 1


def test_a_browser_that_goes_away_leaves_no_traceback():
    """A reader who reloads a page of 6 MB while it is under way closes the connection."""
    with explore("--port", "0", "--no-browser") as (process, line):
        port = int(re.search(r":(\d+)/", line)[1])
        for _ in range(3):
            with closing(socket.create_connection(("127.0.0.1", port))) as connection:
                connection.sendall(f"GET / HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n".encode())
                connection.recv(10)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes at once
        assert answer(port, "/", "localhost:{port}")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == "tinyflamingo: stopped\n"


@pytest.mark.posix
def test_the_command_opens_the_browser(tmp_path):
    """BROWSER is a program that writes its argument into a file, and then never ends."""
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/opened.part\nmv {tmp_path}/opened.part {tmp_path}/opened\nsleep 2\n'
    )
    browser.chmod(0o755)
    with explore("--port", "0", env=os.environ | {"BROWSER": f"{browser} %s"}) as (_, line):
        url = re.search(r"http:\S+(?=;)", line)[0]
        port = int(url.split(":")[2].strip("/"))
        for _ in range(200):
            if (tmp_path / "opened").exists():
                break
            threading.Event().wait(0.05)
        assert (tmp_path / "opened").read_text() == f"{url}\n"
        assert answer(port, "/", "localhost:{port}")[0] == 200  # although the browser has not ended


# ---------------------------------------------------------------- the file


def test_the_file_is_the_page_and_asks_for_nothing(tmp_path, capsys):
    assert cli.main(["explore", "--out", str(tmp_path / "e.html")]) == 0
    page = (tmp_path / "e.html").read_text(encoding="utf-8")
    assert page.encode() == build.build_page()
    assert "e.html: open it in a browser" in capsys.readouterr().out
    assert not re.search(r"<(script|img|link|iframe)[^>]*\b(src|href)=(?!\"data:,\")", page)
    assert build.POLICY in page and page.index("<head>") < page.index(build.POLICY) < page.index("<script")
    assert page.count("window.TINYFLAMINGO = ") == 1


@pytest.mark.parametrize("option", [["--port", "0"], ["--no-browser"]])
def test_options_of_the_server_are_refused_with_a_file(option, tmp_path, capsys):
    assert cli.main(["explore", "--out", str(tmp_path / "e.html"), *option]) == 2
    assert "--out writes a file and starts no server" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys):
    assert cli.main(["explore", "--out", str(tmp_path / "no" / "e.html")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err


def test_the_page_names_its_checkpoint(tmp_path):
    packed = build.pack()
    assert packed["sha256"] in (build.shipped_checkpoint() / build.CARD).read_text()
    assert packed["info"] | {"name": "shipped", "preset": "toy", "world": "tinyworld"} == packed["info"]
    assert (
        packed["gateLog"][-1]["step"] == get_preset("toy").flamingo.steps - 1
        and len(packed["gateLog"]) <= build.MOMENTS
    )


REFUSED = {
    "vision": ViTConfig,
    "resampler": MLPConfig,
    "xattn": UngatedXattnConfig,
    "xattn ": AllPreviousXattnConfig,
}


@pytest.mark.parametrize("part", REFUSED)
def test_a_model_that_the_page_cannot_compute_is_one_line(part, tmp_path, tokenizer, capsys):
    import dataclasses

    config, name = FlamingoConfig(), part.strip()
    other = dataclasses.replace(config, **{name: in_form(getattr(config, name), REFUSED[part])})
    save_checkpoint(untrained(np.random.default_rng(0), other, tokenizer), tmp_path)
    assert cli.main(["explore", "--checkpoint", str(tmp_path), "--out", str(tmp_path / "e.html")]) == 2
    err = capsys.readouterr().err
    assert f"its {name} is of kind" in err and err.count("\n") == 1 and not (tmp_path / "e.html").exists()


def test_numbers_too_large_for_the_packed_type_are_refused(tmp_path, tokenizer):
    model = untrained(np.random.default_rng(0), FlamingoConfig(), tokenizer)
    model.params["xattn_0"]["w_q"][0, 0] = 1e6
    save_checkpoint(model, tmp_path)
    assert build.pack(tmp_path, "float32")["index"]
    with pytest.raises(UserError, match="params/xattn_0/w_q has numbers that are too large for float16"):
        build.pack(tmp_path)
