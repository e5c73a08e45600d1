"""Servers that misbehave: each fault gives its code, nothing hangs, nobody learns a password, and then it works."""

from __future__ import annotations

import logging
import random
import string
import time
from urllib.parse import quote

import pytest

from streamingvlm.core.errors import StreamingVLMError
from streamingvlm.sources.live import LiveHub
from streamingvlm.sources.reader import left_behind
from support.fault_server import (
    Fault,
    FaultServer,
    describes,
    garbage,
    half_packet,
    half_reply,
    reset,
    silent,
    status,
    wrong_length,
)
from support.live import watch

#: Fault -> the codes that are right for it.
RTSP: dict[str, tuple[Fault, set[str]]] = {
    "silent": (silent(), {"timeout"}),
    "silent behind OPTIONS": (silent("OPTIONS"), {"timeout"}),
    "silent behind DESCRIBE": (silent("DESCRIBE"), {"timeout"}),
    "silent behind SETUP": (silent("SETUP"), {"timeout"}),
    "no frame behind PLAY": (silent("PLAY"), {"timeout", "stalled"}),
    "401": (status(401), {"auth"}),
    "403": (status(403), {"auth"}),
    "404": (status(404), {"not_found"}),
    "500": (status(500), {"refused"}),
    "503": (status(503), {"refused"}),
    "half a reply": (half_reply(), {"ended", "format"}),
    "half a reply, then silent": (half_reply(close=False), {"timeout"}),
    "half a packet": (half_packet(), {"ended", "no_video"}),
    "half a packet, then silent": (half_packet(close=False), {"timeout", "stalled"}),
    "reset": (reset(), {"ended", "refused", "format"}),
    "reset behind PLAY": (reset("PLAY"), {"ended", "no_video"}),
    "a body that is too short": (wrong_length(100_000), {"ended", "format"}),
    "garbage": (garbage(), {"format"}),
    "only sound": (describes(), {"no_video"}),
    "an unknown codec": (describes("video", "NONSENSE/90000"), {"codec", "timeout", "stalled"}),
}
HTTP: dict[str, tuple[Fault, set[str]]] = {
    "silent": (silent(), {"timeout"}),
    "silent behind the headers": (silent("GET"), {"timeout"}),
    "401": (status(401), {"auth"}),
    "403": (status(403), {"auth"}),
    "404": (status(404), {"not_found"}),
    "500": (status(500), {"refused"}),
    "503": (status(503), {"refused"}),
    "half a reply": (half_reply(), {"ended", "refused", "format"}),
    "half a packet": (half_packet(), {"ended", "format", "refused"}),
    "reset": (reset(), {"ended"}),
    "a body that is too short": (wrong_length(1 << 20), {"ended", "format", "refused", "no_video"}),
    "a body that is too long": (wrong_length(20), {"ended", "format"}),
}


@pytest.mark.parametrize("name", RTSP)
def test_rtsp(name: str) -> None:
    check("rtsp", *RTSP[name])


@pytest.mark.parametrize("name", HTTP)
def test_http(name: str) -> None:
    check("http", *HTTP[name])


def check(flavour: str, fault: Fault, codes: set[str]) -> None:
    with FaultServer(flavour, fault) as server:  # type: ignore[arg-type]
        with watch(server.url(), io_timeout=0.3, first_frame=1.5) as watched:
            watched.wait(lambda: sum(bool(one.code) for one in watched.statuses) >= 2)
            assert watched.close() < 1.0
        assert {one.code for one in watched.statuses[1:]} <= codes
        assert not watched.steps
        assert all(one.reason and "\n" not in one.reason for one in watched.statuses[1:])
    deadline = time.monotonic() + 3
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left_behind()


def test_garbage_of_a_web_server_is_no_video() -> None:
    with FaultServer("http", garbage()) as server, watch(server.url()) as watched:
        watched.wait(lambda: any(one.code for one in watched.statuses), 5.0)
        assert {one.code for one in watched.statuses if one.code} <= {"format", "no_video"}


@pytest.mark.parametrize("flavour", ["rtsp", "http"])
def test_a_port_where_nobody_listens(flavour: str) -> None:
    with FaultServer(flavour, refuses=True) as server, watch(server.url()) as watched:  # type: ignore[arg-type]
        watched.wait_status("connecting", "refused", 2.0)


def test_a_host_that_is_not_known() -> None:
    with watch("rtsp://no.such.host.invalid/live") as watched:
        watched.wait_status("connecting", "dns", 6.0)


def test_a_locked_account_is_not_tried_again_at_once() -> None:
    patience = {"ladder": ((0.05, 1), (0.6, 100)), "refused_wait": 0.6}
    with FaultServer("rtsp", status(401)) as server, watch(server.url(), **patience) as watched:
        watched.wait_status("connecting", "auth")
        time.sleep(0.3)
        assert watched.statuses[-1].retry_in == pytest.approx(0.6)
        assert server.connections == 1
        watched.wait(lambda: server.connections == 2, 2.0)


def test_what_hangs_does_not_pile_up() -> None:
    patience = {"io_timeout": 30.0, "first_frame": 0.15, "ladder": ((0.01, 1000),), "left_behind": 2}
    with FaultServer("rtsp", silent()) as server, watch(server.url(), **patience) as watched:
        most = 0
        while server.connections < 8:
            most = max(most, left_behind())
            time.sleep(0.005)
        assert most <= 2
        assert {one.code for one in watched.statuses[1:]} == {"timeout"}
        assert watched.close() < 1.0


def logins(count: int) -> list[tuple[str, str]]:
    draw = random.Random(7)
    letters = string.ascii_letters + string.digits + string.punctuation + "éß "
    return [
        ("u" + "".join(draw.choices(string.ascii_letters, k=5)), "".join(draw.choices(letters, k=draw.randint(6, 20))))
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_no_password_is_ever_told(
    count: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    faults = [
        status(401),
        status(404),
        half_reply(),
        garbage(),
        reset(),
        status(401, 'WWW-Authenticate: Digest realm="c", nonce="1"\r\n'),
    ]
    for number, (user, password) in enumerate(logins(count)):
        for flavour in ("rtsp", "http"):
            with FaultServer(flavour, faults[number % len(faults)]) as server:  # type: ignore[arg-type]
                secret = f"{quote(user, safe='')}:{quote(password, safe='')}@"
                url = server.url().replace("//", f"//{secret}", 1) + "?token=" + quote(password, safe="")
                with watch(url) as watched:
                    watched.wait(lambda: any(one.code for one in watched.statuses))
            texts = [watched.told(), repr(watched.source), repr(vars(watched.source)), watched.source.name]
            texts += [repr(watched.source.hub), repr(watched.source.hub.source), caplog.text, *capfd.readouterr()]
            for form in {password, quote(password), quote(password, safe="")}:
                assert not any(form in text for text in texts), (flavour, password)


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://u:s3cr3t/x@127.0.0.1/live",
        "rtsp://u:s3cr3t#x@127.0.0.1/live",
        "rtsp://u:s3cr3t@:99/live",
        "rtsp://u:s3cr3t@127.0.0.1:s3cr3t/live",
        "rtsp://u:s3cr3t@127.0.0.1:99999/",
        "rtsp://u:s3cr3t@[::1/live",
        "rtsp://u:s3cr3t@ho st/live",
        "http://u:s3cr3t@/x",
    ],
)
def test_a_url_that_cannot_be_read_shows_no_password(url: str) -> None:
    with pytest.raises(StreamingVLMError) as raised:
        LiveHub(url)
    error: BaseException | None = raised.value
    while error is not None:
        assert "s3cr3t" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
