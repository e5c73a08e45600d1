"""A hub that is not there, refuses, is none, or says nothing: one line, in time. All servers are on loopback."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from streamingvlm import cli
from streamingvlm.core.errors import ModelError
from streamingvlm.models import hub
from streamingvlm.models.load import load_frontend, load_model
from support import tiny

NAME, COMMIT = "some/checkpoint", "0123456789abcdef0123456789abcdef01234567"
Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes | str | dict[str, Any] = b"", **headers: str) -> Answer:
    """One and the same answer to every request."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
    kind = "application/json" if isinstance(body, dict) else "text/html" if isinstance(body, str) else "text/plain"

    def write(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for key, value in {"content-type": kind, "content-length": str(len(content)), **headers}.items():
            request.send_header(key.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content)

    return write


@contextmanager
def serving(get: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            get(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, no token, and little patience."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub, "CONNECT", 0.5)
    monkeypatch.setattr(hub, "READ", 0.5)
    for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let that be the hub."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def refused(match: str, within: float = 6.0) -> None:
    began = time.monotonic()
    with pytest.raises(ModelError, match=match) as error:
        load_model(NAME, device="cpu")
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < within


def test_a_hub_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        refused("does not answer")


def test_the_waiting_is_short_enough() -> None:
    from importlib import reload

    assert reload(hub).CONNECT + hub.READ < 30


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    use(monkeypatch, url)
    refused("network")


def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://nowhere.invalid")
    refused("network")


NOT_FOUND = {"x_error_code": "RepoNotFound"}
ANSWERS = [
    (answer(404, {"error": "Repository not found"}, **NOT_FOUND), "not found"),
    (answer(404, {"error": "no"}), "not found"),
    (answer(401, {"error": "Repository not found"}, **NOT_FOUND), "no such checkpoint, or refuses it"),
    (answer(401, {"error": "Invalid username or password."}), "refuses it"),
    (answer(403, {"error": "gated"}, x_error_code="GatedRepo"), "gated"),
    (answer(401, {"error": "gated"}, x_error_code="GatedRepo"), "gated"),
    (answer(403, {"error": "forbidden"}), "refuses it"),
    (answer(200, "<html>Hello</html>"), "not a hub"),
    (answer(404, "<html>Not found</html>"), "not a hub"),
    (answer(502, "<html>Bad gateway</html>"), "not a hub|fails"),
    (answer(200, {"hello": "world"}), "not a hub"),
    (answer(200, b"[1, 2]"), "not a hub"),
    (answer(200, b"null"), "not a hub"),
    (answer(500, {"error": "broken"}), r"fails \(500\)"),
    (answer(503, {"error": "busy"}, retry_after="3600"), r"fails \(503\)"),
    (answer(429, {"error": "slow"}, retry_after="3600"), "refuses more requests"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("get", "match"), ANSWERS, ids=range(len(ANSWERS)))
def test_what_the_hub_says_is_said(get: Answer, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(get) as url:
        use(monkeypatch, url)
        refused(match)


def test_a_bad_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--model", "bad--name/x..y"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


class Hub:
    """A hub with one checkpoint; what is asked for first is served as ``change`` says."""

    def __init__(self, folder: Path) -> None:
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.hang_in: str | None = None
        self.wait = threading.Event()

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if path.startswith("/api/models/") and "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{number:040x}"}
                for number, (name, content) in enumerate(self.files.items())
            ]
            answer(200, json.dumps(entries).encode(), content_type="application/json")(request)
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.files]
            answer(200, {"id": NAME, "modelId": NAME, "sha": COMMIT, "siblings": siblings})(request)
        else:
            self._send(request, path.rpartition("/")[2])

    def _send(self, request: BaseHTTPRequestHandler, name: str) -> None:
        content = self.files[name]
        request.send_response(200)
        request.send_header("content-length", str(len(content)))
        request.send_header("etag", f'"{hash(name) & 0xFFFFFFFF:x}"')
        request.send_header("x-repo-commit", COMMIT)
        request.end_headers()
        if request.command == "HEAD":
            return
        if name == self.hang_in:
            request.wfile.write(content[: len(content) // 2])
            request.wfile.flush()
            self.wait.wait(20)
        else:
            request.wfile.write(content)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub(tiny.write_checkpoint("qwen2_5_vl", tmp_path / "served"))
    with serving(served) as url:
        use(monkeypatch, url)
        yield served
        served.wait.set()


def test_a_checkpoint_of_a_hub_is_fetched_and_kept(
    here: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_model(NAME, device="cpu").parameters > 0
    use(monkeypatch, "http://nowhere.invalid")
    with caplog.at_level(logging.WARNING, "streamingvlm"):
        load_frontend(NAME)
    assert "what was downloaded before is used" in caplog.text
    assert here.files


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_hub_that_falls_silent_in_the_middle(here: Hub, name: str) -> None:
    here.hang_in = name
    refused("does not answer")
    here.wait.set()
    here.hang_in = None
    assert load_model(NAME, device="cpu").parameters > 0


@pytest.mark.parametrize(("ending", "match"), [("gguf", "only GGUF files"), ("bin", r"no \*.safetensors")])
def test_a_checkpoint_without_safetensors_is_not_downloaded(here: Hub, ending: str, match: str) -> None:
    here.files[f"model.{ending}"] = here.files.pop("model.safetensors")
    refused(match)


def test_the_hubs_library_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY
    use(monkeypatch, "http://nowhere.invalid")
    refused("network")
    assert _http._GLOBAL_CLIENT_FACTORY is before
