"""A checkpoint that is evaluated, and where what it says is kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..core.policy import make_policy
from ..models.base import Model
from ..models.hub import BUNDLED, find_checkpoint
from ..models.load import load_model


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is ready to run. ``name``: what it is called in the metrics."""

    name: str
    path: str
    model: Model
    fingerprint: str

    @staticmethod
    def load(
        path: str | None,
        *,
        name: str = "",
        device: str | None = None,
        dtype: str | None = None,
        weights: str | None = None,
    ) -> Checkpoint:
        """Load a folder or hub id (None: the bundled model). ModelError if that cannot be."""
        model = load_model(path, device=device, dtype=dtype, weights=weights)
        shown = f"bundled ({BUNDLED.name})" if path is None else path
        return Checkpoint(name or shown, shown, model, fingerprint_of(find_checkpoint(path)))

    def records(self, folder: Path, policy: str) -> Path:
        """Where under ``folder`` the words under one policy are, however the policy was asked for."""
        digest = hashlib.sha256(repr(make_policy(policy, self.model.defaults.policy)).encode()).hexdigest()
        return folder / f"{policy.partition(':')[0]}-{digest[:8]}-{self.fingerprint[:8]}"


def fingerprint_of(folder: Path) -> str:
    """Of the contents of a checkpoint's files, but for what tells how it was trained."""
    digest = hashlib.sha256()
    files = [path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")]
    for file in sorted(path for path in files if path.name != "training.json"):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
