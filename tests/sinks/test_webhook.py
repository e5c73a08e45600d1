"""Webhooks arrive signed and in order, or are given up as told; nothing waits for them and no secret gets out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.core.errors import OptionError
from streamingvlm.core.events import (
    Alert,
    Answered,
    Closed,
    Commentary,
    Delta,
    Event,
    Gap,
    Resumed,
    SourceStatus,
    StreamOpened,
)
from streamingvlm.sinks import webhook
from streamingvlm.sinks.limits import WEBHOOK_EVENTS
from streamingvlm.sinks.webhook import Webhook, is_public, verify
from support.receiver import Behaviour, Receiver, drip, hang_up, no_http, receiver, sleep

SECRET = "topsecret"


def gap(number: int) -> Gap:
    return Gap(number, number + 1, "timeout", id=f"k3f9-{number}", wall=1.0)


def hook(server: Receiver | str, **options: Any) -> Webhook:
    options = {"allow_private": True, "retries": (0.01, 0.01), "timeout": 2.0, **options}
    return Webhook(server if isinstance(server, str) else server.url, SECRET, **options)


def finish(sink: Webhook) -> tuple[int, int, int]:
    sink.close()
    assert sink.wait(10)
    return sink.deliveries.delivered, sink.deliveries.failed, sink.deliveries.dropped


def test_a_signed_record_arrives() -> None:
    with receiver() as server:
        sink = hook(server)
        sink.write(StreamOpened("door", ""))
        sink.write(gap(7))
        assert finish(sink) == (1, 0, 0)
    (request,) = server.requests
    assert request.path == "/hook?token=tokensecret"
    assert json.loads(request.body) == {
        "type": "stream.gap",
        "id": "k3f9-7",
        "wall": "1970-01-01T00:00:01.000Z",
        "start": 7,
        "end": 8,
        "reason": "timeout",
        "stream": "door",
    }
    assert request.headers["Webhook-Id"] == "k3f9-7"
    assert request.headers["Content-Type"] == "application/json"
    stamp = request.headers["Webhook-Timestamp"]
    assert abs(int(stamp) - time.time()) < 5
    signed = hmac.new(SECRET.encode(), f"k3f9-7.{stamp}.".encode() + request.body, hashlib.sha256).digest()
    assert request.headers["Webhook-Signature"] == "v1," + base64.b64encode(signed).decode()


def test_the_example_of_the_standard() -> None:
    """Taken from the specification's own test vector."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'
    assert verify(secret, headers, body, now=1614265330)
    assert not verify(secret, headers, body, now=1614265330 + 301)


@pytest.mark.parametrize(
    "change",
    [
        lambda headers, body: ("other", headers, body),
        lambda headers, body: (SECRET, headers, body + b" "),
        lambda headers, body: (SECRET, {**headers, "Webhook-Id": "k3f9-8"}, body),
        lambda headers, body: (SECRET, {**headers, "Webhook-Timestamp": "1"}, body),
        lambda headers, body: (SECRET, {**headers, "Webhook-Timestamp": str(int(time.time()) + 9)}, body),
        lambda headers, body: (SECRET, {**headers, "Webhook-Timestamp": "now"}, body),
        lambda headers, body: (SECRET, {**headers, "Webhook-Signature": ""}, body),
        lambda headers, body: (SECRET, {**headers, "Webhook-Signature": "v1,\xe9"}, body),
        lambda _, body: (SECRET, {}, body),
    ],
)
def test_a_receiver_detects_what_was_not_sent_so(change: Callable[..., tuple[str, dict[str, str], bytes]]) -> None:
    with receiver() as server:
        sink = hook(server)
        sink.write(gap(7))
        finish(sink)
    (request,) = server.requests
    assert verify(SECRET, request.headers, request.body)
    assert verify(SECRET, {name.upper(): value for name, value in request.headers.items()}, request.body)
    assert not verify(*change(request.headers, request.body))


@pytest.mark.parametrize(
    ("behaviours", "requests", "delivered", "said"),
    [
        ([500, 200], 2, True, "it answers HTTP 500"),
        ([503, 429, 204], 3, True, "it answers HTTP 503"),
        ([408, 200], 2, True, "it answers HTTP 408"),
        ([500], 3, False, "it answers HTTP 500"),
        ([404, 200], 1, False, "it answers HTTP 404"),
        ([401, 200], 1, False, "it answers HTTP 401"),
        ([lambda handler: handler.answer(302, Location="/other")], 1, False, "it redirects (HTTP 302)"),
        ([lambda handler: handler.answer(307, Location="http://127.0.0.1:1/")], 1, False, "it redirects (HTTP 307)"),
        ([hang_up, 200], 2, True, "it cannot be reached"),
        ([no_http, 200], 2, True, "it does not speak HTTP"),
        ([sleep(1.0), 200], 2, True, "it does not answer in time"),
        ([drip, 200], 2, True, "it does not answer in time"),
    ],
)
def test_what_is_sent_again(behaviours: list[Behaviour], requests: int, delivered: bool, said: str) -> None:
    problems: list[str] = []
    with receiver(*behaviours) as server:
        sink = hook(server, on_problem=problems.append, timeout=0.2)
        sink.write(gap(1))
        if requests > 1:
            server.wait(requests)
        assert finish(sink) == (delivered, not delivered, 0)
    assert len(server.requests) == requests
    assert all(verify(SECRET, request.headers, request.body) for request in server.requests)
    assert len({request.headers["Webhook-Id"] for request in server.requests}) == 1
    (line,) = problems
    assert line.startswith(f"webhook http://127.0.0.1:{server.port}: {said}")
    assert "secret" not in line
    assert "\n" not in line


def test_a_refused_event_takes_nothing_from_those_behind() -> None:
    with receiver(400, 500, 200) as server:
        sink = hook(server)
        for number in (1, 2, 3):
            sink.write(gap(number))
        server.wait(4)
        assert finish(sink) == (2, 1, 0)
    assert [request.headers["Webhook-Id"] for request in server.requests] == ["k3f9-1", "k3f9-2", "k3f9-2", "k3f9-3"]


def test_a_dead_server_that_comes_back() -> None:
    problems: list[str] = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sink = hook(f"http://127.0.0.1:{port}/", retries=[0.05] * 100, on_problem=problems.append)
    sink.write(gap(1))
    time.sleep(0.2)
    with receiver(port=port) as server:
        server.wait(1)
        assert finish(sink) == (1, 0, 0)
    assert problems == [f"webhook http://127.0.0.1:{port}: it cannot be reached (Connection refused)"]


def test_a_fault_that_nobody_foresaw_is_told_and_takes_no_other_event() -> None:
    told: list[str] = []

    def say(line: str) -> None:
        told.append(line)
        raise BrokenPipeError(32, "the terminal is gone")

    with receiver(500, 500, 500, 200) as server:
        sink = hook(server, on_problem=say)
        sink.write(gap(1))
        sink.write(gap(2))
        assert finish(sink) == (1, 1, 0)
        assert "HTTP 500" in told[0]
    with receiver() as server:
        sink = hook(server, on_problem=told.append)
        sink.write(Gap(0.0, 1.0, "x", id="a-1", wall=1e300))
        sink.write(gap(2))
        assert finish(sink) == (1, 1, 0)
    assert "OverflowError" in told[-1] or "ValueError" in told[-1]


def test_retry_after_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Webhook, "_pause", lambda _, seconds: waits.append(seconds) or True)
    with receiver(lambda handler: handler.answer(429, Retry_After="17"), 500, 200) as server:
        sink = hook(server, retries=(1.0, 5.0))
        sink.write(gap(1))
        server.wait(3)
        finish(sink)
    assert waits[0] == 17
    assert 4 <= waits[1] <= 6


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("17", 17),
        ("0", 0),
        ("999999999", 300),
        ("-1", 0),
        ("1e3", 0),
        ("soon", 0),
        ("", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Sat, 28 Nov 2026 12:00:30 GMT", 30),
        ("Sat, 28 Nov 2099 12:00:30 GMT", 300),
        ("Sat, 99 Nov 2026 12:00:30 GMT", 0),
    ],
)
def test_when_a_server_wants_it_again(told: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook.time, "time", lambda: 1795867200.0)
    assert webhook._retry_after(told) == seconds


@pytest.mark.parametrize(
    ("kinds", "sent"),
    [
        (None, ["source.status", "stream.gap", "rule.alert", "answer.done", "stream.closed"]),
        (["commentary.done"], ["commentary.done"]),
        (["stream.resumed", "rule.alert"], ["rule.alert", "stream.resumed"]),
        ([], []),
    ],
)
def test_kinds(kinds: list[str] | None, sent: list[str]) -> None:
    events: list[Event] = [
        StreamOpened("door", ""),
        SourceStatus("running"),
        Delta(0, 1, "a"),
        Commentary(0, 1, "a"),
        gap(1),
        Alert("fall", "raised", 1, 2.0, 2.0),
        Answered(1, None, "cancelled"),
        Resumed(3.0, 1.0),
        Closed(),
    ]
    with receiver() as server:
        sink = hook(server, **({} if kinds is None else {"kinds": kinds}))
        for event in events:
            sink.write(event)
        finish(sink)
    assert [json.loads(request.body)["type"] for request in server.requests] == sent
    identities = [request.headers["Webhook-Id"] for request in server.requests]
    assert len(set(identities)) == len(identities), "also where an event has no id"


def test_what_is_left_when_nobody_waits_any_more_is_lost() -> None:
    with receiver(sleep(3)) as server:
        sink = hook(server, timeout=3.0)
        for number in range(4):
            sink.write(gap(number))
        server.wait(1)
        sink.close()
        assert not sink.wait(0.05)
        assert sink.loss == ""
        sink.give_up()
        assert sink.deliveries.dropped == 4
        assert sink.loss == f"4 of 4 events did not reach http://127.0.0.1:{server.port}"


def test_what_has_not_arrived_is_known_to_a_later_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "DRAIN", 0.2)
    mark = tmp_path / "webhook"
    with receiver(200, 400, 500) as server:
        sink = hook(server, mark=mark, retries=(0.01, 30.0))
        assert sink.settled is None
        for number in range(1, 5):
            sink.write(gap(number))
        server.wait(4)
        assert sink.settled == "k3f9-2", "what is refused is done with"
        assert finish(sink) == (1, 3, 0)
        assert sink.settled == "k3f9-2", "there was no time for the others"
    with receiver() as server:
        sink = hook(server, mark=mark)
        assert sink.settled == "k3f9-2"
        sink.go_on("door", [gap(3), gap(4)])
        assert finish(sink) == (2, 0, 0)
        assert sink.settled == "k3f9-4"
        assert [json.loads(request.body)["stream"] for request in server.requests] == ["door", "door"]
    mark.write_bytes(b"")
    assert hook("http://127.0.0.1:1/", mark=mark).settled == "", "a loss of power leaves an empty file"


def test_nobody_waits_for_a_server_that_hangs() -> None:
    with receiver(sleep(30)) as server:
        sink = hook(server, timeout=20.0)
        sink.write(gap(0))
        server.wait(1)
        began = time.monotonic()
        for number in range(1, WEBHOOK_EVENTS + 11):
            sink.write(gap(number))
        sink.close()
        assert time.monotonic() - began < 1.0
        assert not sink.wait(0.1)
        assert time.monotonic() - began < 1.5
        assert sink.deliveries.dropped == 10
        assert sink._events[0] == gap(11)


def test_what_waits_at_the_end_is_sent() -> None:
    with receiver(sleep(0.2), 200) as server:
        sink = hook(server)
        for number in range(50):
            sink.write(gap(number))
        assert finish(sink) == (50, 0, 0)
        sink.write(gap(51))
    assert [request.headers["Webhook-Id"] for request in server.requests] == [f"k3f9-{n}" for n in range(50)]


def test_the_end_does_not_wait_for_a_dead_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "DRAIN", 0.3)
    monkeypatch.setattr(webhook, "DRAIN_RETRY", 0.05)
    with receiver(500) as server:
        sink = hook(server, retries=webhook.RETRIES)
        for number in range(4):
            sink.write(gap(number))
        server.wait(1)
        began = time.monotonic()
        delivered, failed, dropped = finish(sink)
        assert (delivered, failed + dropped) == (0, 4)
        assert failed
        assert 0.2 < time.monotonic() - began < 2.0
    assert len(server.requests) > 2, "the pause of a second before the next try was cut short"


def test_nothing_is_started_for_nothing() -> None:
    before = threading.active_count()
    sink = hook("http://127.0.0.1:1/")
    sink.write(StreamOpened("door", ""))
    sink.close()
    assert sink.wait(0)
    assert threading.active_count() == before


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1", "fec0::1", "::10.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    if "%" not in address:
        with pytest.raises(OptionError, match="not public"):
            Webhook(f"https://{host}/tokensecret", SECRET)
        Webhook(f"https://{host}/", SECRET, allow_private=True)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_an_address_that_swallows_everything_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As IPv6 does on many networks: nothing is refused, nothing answers."""
    real = socket.create_connection

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        if address[0] == "10.255.255.1":
            time.sleep(timeout)
            raise TimeoutError
        return real(address, timeout)

    monkeypatch.setattr(webhook.socket, "create_connection", connect)
    monkeypatch.setattr(webhook._Target, "addresses", lambda _: ["10.255.255.1", "127.0.0.1"])
    with receiver() as server:
        sink = hook(server, timeout=0.6)
        sink.write(gap(1))
        server.wait(1)
        assert finish(sink) == (1, 0, 0)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://door.example/x", "door.example"),
        ("https://door.example:443/x", "door.example"),
        ("https://door.example:8443/x", "door.example:8443"),
        ("http://door.example/x", "door.example"),
        ("http://door.example:443/x", "door.example:443"),
        ("https://[2606:2800:21f:cb07::1]/x", "[2606:2800:21f:cb07::1]"),
    ],
)
def test_the_host_is_named_as_browsers_do(url: str, host: str) -> None:
    """Some servers do not know themselves by the name of their scheme's own port."""
    one, other = socket.socketpair()
    with one, other:
        connection = webhook._Connection(webhook._Target.of(url, False), 1.0, None)
        connection.sock = one
        connection.request("POST", "/x", b"{}")
        head = other.recv(4096).decode()
    assert f"\r\nHost: {host}\r\n" in head


def test_what_is_lost_while_it_runs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is slow but well makes no other problem; a run may last for weeks."""
    monkeypatch.setattr(webhook, "WEBHOOK_EVENTS", 2)
    problems: list[str] = []
    with receiver(sleep(0.1), 200) as server:
        sink = hook(server, on_problem=problems.append)
        sink.write(gap(0))
        server.wait(1)
        for number in range(1, 8):
            sink.write(gap(number))
        assert finish(sink) == (3, 0, 5)
    assert problems == [
        f"webhook http://127.0.0.1:{server.port}: 5 events are lost so far: it is too slow, and only 2 wait"
    ]


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names stand for one answer after the other; what is connected to, all on this machine."""
    left, connected = list(answers), []
    real, look_up = socket.create_connection, socket.getaddrinfo

    def resolve(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        if host == "127.0.0.1":
            return look_up(host, port, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in left.pop(0)]

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(address[0])
        return real(("127.0.0.1", address[1]), timeout)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(webhook.socket, "create_connection", connect)
    return connected


def test_a_name_for_a_private_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []
    connected = resolving(monkeypatch, ["8.8.8.8", "169.254.169.254"], ["10.0.0.1"], ["127.0.0.1"])
    with receiver() as server:
        sink = hook(f"http://door.example:{server.port}/", allow_private=False, on_problem=problems.append)
        sink.write(gap(1))
        time.sleep(0.1)
        assert finish(sink) == (0, 1, 0)
    assert connected == []
    assert server.requests == []
    assert problems == [f"webhook http://door.example:{server.port}: {webhook.NOT_PUBLIC}"]


def test_a_name_is_resolved_once_for_check_and_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers otherwise the second time leads nowhere."""
    connected = resolving(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    monkeypatch.setattr(webhook, "is_public", lambda address: address != "127.0.0.1")
    with receiver() as server:
        sink = hook(f"http://door.example:{server.port}/", allow_private=False)
        sink.write(gap(1))
        server.wait(1)
        assert finish(sink) == (1, 0, 0)
    assert connected == ["8.8.8.8"]
    assert server.requests[0].headers["Host"] == f"door.example:{server.port}"


@pytest.mark.parametrize(
    ("url", "secret", "said"),
    [
        ("ftp://host/tokensecret", SECRET, "begins with https://"),
        ("https:///tokensecret", SECRET, "begins with https://"),
        ("tokensecret", SECRET, "begins with https://"),
        ("https://host:port/tokensecret", SECRET, "cannot be read"),
        ("https://[host/tokensecret", SECRET, "cannot be read"),
        (f"https://{'a' * 64}.example/tokensecret", SECRET, "cannot be read"),
        ("https://user:tokensecret@host/", SECRET, "no user and password"),
        ("https://host/toké/tokensecret", SECRET, "%XX"),
        ("https://host/a b/tokensecret", SECRET, "%XX"),
        ("https://host/", "", "needs a secret"),
        ("https://host/", "whsec_", "needs a secret"),
        ("https://host/", "whsec_topsecret!", "Base64"),
        ("https://host/", "topsecret\ud800", "cannot be read"),
    ],
)
def test_what_cannot_be_meant(url: str, secret: str, said: str) -> None:
    with pytest.raises(OptionError, match=said) as error:
        Webhook(url, secret)
    assert "topsecret" not in str(error.value)
    assert "tokensecret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_kinds_that_there_are_not() -> None:
    with pytest.raises(OptionError, match=r"cannot be sent commentary.delta, fire; it can be sent stream.opened"):
        Webhook("https://host/", SECRET, kinds=["rule.alert", "fire", "commentary.delta"])


@settings(max_examples=100, deadline=None)
@given(secret=st.text(min_size=8), path=st.text(min_size=8), host=st.text("a.:@[]%?#/\\ é", max_size=6))
def test_no_text_has_the_secret(secret: str, path: str, host: str) -> None:
    try:
        sink = Webhook(f"https://{host}/{path}", secret)
    except OptionError as error:
        text = str(error)
    else:
        text = f"{sink!r} {sink._target} {sink.deliveries!r}"
    assert path not in text
    assert secret not in text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=door", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (folder / "both.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return folder


def test_tls(certificate: Path) -> None:
    problems: list[str] = []
    with receiver(certificate=str(certificate / "both.pem")) as server:
        sink = hook(server, cafile=certificate / "cert.pem")
        sink.write(gap(1))
        server.wait(1)
        assert finish(sink) == (1, 0, 0)
        stranger = hook(server, on_problem=problems.append)
        stranger.write(gap(2))
        time.sleep(0.1)
        assert finish(stranger)[0] == 0
    assert len(server.requests) == 1
    assert problems == [
        f"webhook https://127.0.0.1:{server.port}: its certificate is refused (self-signed certificate)"
    ]
    with pytest.raises(OptionError, match="cannot read the certificates"):
        hook(server, cafile=certificate / "none.pem")
