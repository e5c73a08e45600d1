"""Certificates that were made here, as cameras make their own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path, *, host: str = "127.0.0.1") -> Path:
    """A self-signed certificate for ``host`` (an address) with its key, in one file; the test skips without openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    key, path = folder / f"{host}.key", folder / f"{host}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(path), "-days", "2", "-subj", f"/CN={host}"]
    command += ["-addext", f"subjectAltName=IP:{host}"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path
