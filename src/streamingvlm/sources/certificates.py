"""Whether a server's certificate is trusted: what FFmpeg is told to check, and why it was refused."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping

#: FFmpeg's option, and its names for the file of the authorities that are trusted.
CHECK = "tls_verify"
AUTHORITIES = ("ca_file", "cafile")
#: What can be done about a certificate that is not trusted.
ADVICE = "the source option tls_verify=0 accepts any, ca_file=FILE trusts those in FILE"


def checks(options: Mapping[str, str]) -> bool:
    """Whether FFmpeg checks certificates with these options."""
    return options.get(CHECK, "0") not in ("", "0")


def with_authorities(options: Mapping[str, str]) -> dict[str, str]:
    """The same with this machine's authorities, where certificates are checked and nobody says by which file.

    The TLS library inside PyAV does not know where they are. A system without such a file has them elsewhere, where
    that library finds them or refuses every certificate.
    """
    file = ssl.get_default_verify_paths().cafile
    if file is None or not checks(options) or any(name in options for name in AUTHORITIES):
        return dict(options)
    return {**options, AUTHORITIES[0]: file}


def client_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """For a connection of our own that checks what FFmpeg checks. OSError if the file of authorities cannot be read."""
    if not checks(options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    return ssl.create_default_context(cafile=next((options[name] for name in AUTHORITIES if name in options), None))


def distrust(host: str, port: int, options: Mapping[str, str], timeout: float) -> str:
    """Why FFmpeg refuses the certificate of a server, on one line; "" if that is not what is wrong.

    FFmpeg only tells that there is no connection. One more connection, of up to twice ``timeout`` seconds, tells more.
    """
    if not checks(options) or "http_proxy" in options:
        return ""
    try:
        with (
            socket.create_connection((host, port), timeout) as plain,
            client_context(options).wrap_socket(plain, server_hostname=options.get("verifyhost", host)),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted: {' '.join(error.verify_message.split())}; {ADVICE}"
    except (OSError, ValueError):  # no certificate has come, or there is no such file
        return ""
