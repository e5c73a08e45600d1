"""Certificates that were made here: checked over https, not checked for cameras, and what is told of it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamingvlm.sources.certificates import distrust, with_authorities
from streamingvlm.sources.inputs import input_of
from support.certificates import make_certificate
from support.fault_server import FaultServer, status
from support.http_media import LiveHls, MediaServer
from support.live import watch


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(tmp_path: Path, certificate: Path) -> Iterator[MediaServer]:
    with MediaServer(tmp_path, certificate=certificate) as server:
        yield server


@pytest.mark.parametrize("path", ["/mjpeg", "/live.ts"])
def test_a_certificate_of_nobody_is_refused_over_https(server: MediaServer, path: str) -> None:
    with watch(server.url(path)) as watched:
        watched.wait_status("connecting", "tls")
        assert not watched.formats
        reason = watched.statuses[-1].reason
    assert "its certificate is not trusted: self-signed certificate" in reason
    assert "tls_verify=0" in reason
    assert "ca_file=FILE" in reason
    assert "\n" not in reason


@pytest.mark.parametrize("how", ["tls_verify", "ca_file", "cafile", "environment"])
def test_ways_to_trust_it(server: MediaServer, certificate: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"tls_verify": {"tls_verify": "0"}, "environment": {}}.get(how, {how: str(certificate)})
    if how == "environment":
        monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(certificate))
    with watch(server.url("/live.ts"), options=options) as watched:
        watched.wait_steps(1)


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    other = make_certificate(tmp_path, host="127.0.0.2")
    with (
        MediaServer(tmp_path, certificate=other) as server,
        watch(server.url("/live.ts"), options={"ca_file": str(other)}) as watched,
    ):
        watched.wait_status("connecting", "tls")
        assert "127.0.0.1" in watched.statuses[-1].reason
        assert not watched.formats


@pytest.mark.slow
def test_a_playlist_over_https(server: MediaServer, tmp_path: Path, certificate: Path) -> None:
    with LiveHls(tmp_path / "hls"):
        with watch(server.url("/hls/live.m3u8"), no_frame=4.0) as refused:
            refused.wait_status("connecting", "tls")
        with watch(server.url("/hls/live.m3u8"), no_frame=4.0, options={"ca_file": str(certificate)}) as watched:
            watched.wait_steps(2)


@pytest.mark.parametrize(
    ("options", "code"), [({}, "not_found"), ({"tls_verify": "0"}, "not_found"), ({"tls_verify": "1"}, "tls")]
)
def test_a_camera_has_a_certificate_of_its_own(certificate: Path, options: dict[str, str], code: str) -> None:
    with (
        FaultServer("rtsp", status(404), certificate=certificate) as server,
        watch(server.url(), options=options) as watched,
    ):
        watched.wait_status("connecting", code)
        assert ("self-signed" in watched.statuses[-1].reason) == (code == "tls")
        assert bool(server.requests) == (code == "not_found")


@pytest.mark.parametrize(
    ("locator", "options", "checked"),
    [
        ("https://host/x", {}, True),
        ("https://host/x", {"tls_verify": "0"}, False),
        ("http://host/x", {}, False),
        ("rtsps://host/x", {}, False),
        ("rtsps://host/x", {"tls_verify": "1"}, True),
        ("rtmps://host/x", {}, False),
    ],
)
def test_what_is_checked(locator: str, options: dict[str, str], checked: bool) -> None:
    source = input_of(locator, options=options)
    assert source.options["tls_verify"] == str(int(checked)), "whatever the default of this FFmpeg is"
    file = ssl.get_default_verify_paths().cafile
    assert source.options.get("ca_file") == (file if checked else None)


def test_a_file_that_is_given_goes_before_that_of_the_machine() -> None:
    assert input_of("https://host/x", options={"cafile": "mine"}).options.get("ca_file") is None
    assert with_authorities({"tls_verify": "1", "ca_file": "mine"}) == {"tls_verify": "1", "ca_file": "mine"}


def test_why_a_certificate_is_refused(server: MediaServer, certificate: Path) -> None:
    def why(**options: str) -> str:
        return distrust("127.0.0.1", server.port, {"tls_verify": "1", **options}, 1.0)

    assert "self-signed" in why()
    assert why(tls_verify="0") == ""
    assert why(ca_file=str(certificate)) == ""
    assert why(ca_file="/no/such/file") == ""
    assert why(http_proxy="http://127.0.0.1:1") == "", "there may be no direct way"
    server.kill()
    assert why() == ""
