"""Where passwords stand in locators, and that they stay there."""

from __future__ import annotations

import logging
import traceback
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.core.errors import SourceError
from streamingvlm.core.events import SourceStatus
from streamingvlm.sources.inputs import input_of
from streamingvlm.sources.live import LiveHub
from streamingvlm.sources.live_options import LiveOptions
from streamingvlm.sources.redact import Address, redact

HARD = "p@ss:/?#[]%"
#: Tries once, on a port that nobody listens on.
ONCE = LiveOptions(ladder=((60.0, 1),))


def address(url: str, **given: str) -> tuple[str, str, str]:
    found = Address.of(url, **given)
    return found.user, found.password, found.place


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rtsp://cam/1", ("", "", "cam")),
        ("rtsp://cam:8554/1", ("", "", "cam:8554")),
        ("rtsp://u@cam/1", ("u", "", "cam")),
        ("rtsp://u:w@cam/1", ("u", "w", "cam")),
        ("rtsp://u:p@ss@cam/1", ("u", "p@ss", "cam")),
        ("rtsp://u:a:b@cam/a@b", ("u", "a:b", "cam")),
        (f"rtsp://u:{quote(HARD, safe='')}@[::1]:554/1?x=1", ("u", HARD, "[::1]:554")),
        ("rtsp://us%40er:100%@cam", ("us@er", "100%", "cam")),
        ("RTSP://:w@cam/", ("", "w", "cam")),
    ],
)
def test_user_and_password_are_found(url: str, expected: tuple[str, str, str]) -> None:
    assert address(url) == expected
    given = Address.of(url)
    assert Address.of(given.url) == given, "what FFmpeg is given means the same"


def test_what_is_given_by_itself_goes_before_the_url() -> None:
    assert address("rtsp://a:b@cam/1", user="u", password=HARD) == ("u", HARD, "cam")
    assert address("rtsp://a:b@cam/1", password="c") == ("a", "c", "cam")


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://",
        "rtsp:///1",
        f"rtsp://u:{HARD}@cam/1",
        "rtsp://u:hunter22/x@cam/1",
        "rtsp://cam:port/1",
        "rtsp://c:99999",
    ],
)
def test_a_url_that_cannot_be_understood_is_one_line_without_what_it_holds(url: str) -> None:
    with pytest.raises(SourceError) as caught:
        Address.of(url)
    text = str(caught.value)
    assert "\n" not in text
    assert not [part for part in ("p@ss", "hunter22", HARD) if part in text]
    assert ("percent-encoded" in text) == ("@" in url)


def test_parameters_that_are_secret_are_hidden_and_others_are_not() -> None:
    found = Address.of("http://cam/video.cgi?user=joe&pwd=hunter22&channel=2")
    assert found.name == "http://cam/video.cgi?user=joe&pwd=***&channel=2"
    assert "hunter22" in found.secrets
    assert redact("failed: pwd=hunter22", found.secrets) == "failed: pwd=***"


@pytest.mark.parametrize(
    ("rest", "shown"),
    [
        ("user=joe&password=hunter22&channel=1&stream=0.sdp?real", "user=joe&password=***&channel=1&stream=0.sdp?real"),
        ("user=joe_password=hunter22_channel=1_stream=0.sdp", "user=joe_password=***"),
        ("user=joe_password=hunt_er22_channel=1/x", "user=joe_password=***/x"),
        ("live;pwd=hunter22;x=1", "live;pwd=***;x=1"),
        ("cgi?loginuse=joe&loginpas=hunter22", "cgi?loginuse=joe&loginpas=***"),
        ("cgi?token=a/b?hunter22&x=1", "cgi?token=***&x=1"),
    ],
)
def test_cameras_take_them_in_the_path_too(rest: str, shown: str) -> None:
    found = Address.of(f"rtsp://cam/{rest}")
    assert found.name == f"rtsp://cam/{shown}"
    assert found.url.endswith(rest), "FFmpeg needs them"
    assert "er22" not in redact(f"failed: {found.url}", found.secrets)
    if "_channel" not in rest:
        return
    password = rest.partition("password=")[2].partition("_channel")[0]
    assert redact(f"{password} is wrong", found.secrets) == "*** is wrong", "it is known where the next one begins"


def test_headers_are_secret_too() -> None:
    source = input_of("http://cam/1", options={"headers": "Authorization: Bearer hunter22"})
    assert "hunter22" not in repr(source)
    assert redact("sent Authorization: Bearer hunter22", source.secrets) == "sent ***"


#: Anything that a person may type; long enough not to stand in a sentence by chance.
word = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["Cc", "Cs", "Zs"]), min_size=4)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(user=word, password=word, encoded=st.booleans())
def test_no_text_that_leaves_here_holds_the_password(user: str, password: str, encoded: bool) -> None:
    password += "~x7"  # or it may stand in any text by chance
    if encoded:
        url, given_ = f"rtsp://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:1/live", {}
    else:
        url, given_ = "rtsp://127.0.0.1:1/live", {"user": user, "password": password}
    source = input_of(url, **given_)
    split = urlsplit(source.url)
    assert (unquote(split.username or ""), unquote(split.password or "")) == (user, password)
    assert source.name == "rtsp://***@127.0.0.1:1/live"
    told = [repr(source), repr(Address.of(url, given_.get("user"), given_.get("password"))), source.name]
    forms = (password, quote(password, safe=""))
    told.append(redact(f"cannot open {source.url}", source.secrets))
    for text in told:
        assert not [form for form in forms if form in text]


@pytest.mark.parametrize("password", [HARD, "hunter22", "ünï%41"])
def test_a_source_that_fails_tells_no_password(password: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hub = LiveHub("rtsp://127.0.0.1:1/live", user="joe", password=password, live=ONCE)
    source = hub.subscribe()
    told = []
    for item in source:
        told.append(item)
        if isinstance(item, SourceStatus) and item.code:
            source.close()
    assert [item.code for item in told if isinstance(item, SourceStatus)] == ["", "refused"]
    texts = [*map(repr, told), hub.name, source.name, caplog.text, repr(hub.source)]
    assert not [text for text in texts for form in (password, quote(password, safe="")) if form in text]


def test_an_error_that_is_raised_holds_no_password_in_its_chain() -> None:
    hub = LiveHub("lavfi:nothing=hunter22")
    with pytest.raises(SourceError) as caught:
        list(hub.subscribe())
    assert "Invalid argument" in str(caught.value)
    text = "".join(traceback.format_exception(caught.value))
    assert "av.error" not in text, "PyAV's words have the URL"
