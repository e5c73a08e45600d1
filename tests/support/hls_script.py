"""A live playlist that does what a test says: pieces of one second that are added, left out, late, or of another size.

::

    with MediaServer(folder) as server, HlsScript(folder) as playlist:
        playlist.play(4)                     # one piece a second from now on, in a thread
        open_source(server.url("/live.m3u8"))

Frame ``i`` shows ``level(i)``: see :mod:`support.media`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from . import media

#: Frames a piece and a second.
RATE = 10


def write_pieces(
    folder: Path, count: int, *, first: int = 0, size: tuple[int, int] = (128, 96), tag: str = "", clock: float = 0.0
) -> None:
    """Pieces ``first`` to ``first + count`` of one encoder as ``{tag}{i}.ts``; ``clock``: its own, at piece 0."""
    frames = range(first * RATE, (first + count) * RATE)
    media.write_clip(
        folder / f"{tag}whole.m3u8",
        container="hls",
        width=size[0],
        height=size[1],
        count=len(frames),
        stamps=[clock + frame / RATE for frame in frames],
        levels=list(frames),
        grain=12,
        options={
            "hls_time": "1",
            "hls_list_size": "0",
            "start_number": str(first),
            "hls_segment_filename": str(folder / f"{tag}%d.ts"),
        },
    )


class HlsScript:
    """Writes ``live.m3u8`` into ``folder``, with a window of so many pieces.

    :meth:`add` adds a piece at once, :meth:`play` one after the other at their pace, each ``late`` seconds later than
    it should be.
    """

    def __init__(self, folder: Path, *, window: int = 4) -> None:
        self.path, self.window = folder / "live.m3u8", window
        self.entries: list[str] = []
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, *names: str, cut: bool = False, end: bool = False) -> None:
        """Pieces by their names; ``cut``: the first of them is behind a discontinuity; ``end``: nothing follows."""
        for name in names:
            self.entries.append(("#EXT-X-DISCONTINUITY\n" if cut else "") + f"#EXTINF:1.0,\n{name}")
            cut = False
        first = max(len(self.entries) - self.window, 0)
        head = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n"
        text = head + "\n".join(self.entries[first:]) + "\n" + ("#EXT-X-ENDLIST\n" if end else "")
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.path)

    def play(self, names: Sequence[str], late: Sequence[float] = ()) -> None:
        """Add one piece a second, the first one now."""

        def run() -> None:
            began = time.monotonic()
            for index, name in enumerate(names):
                due = began + index + (late[index] if index < len(late) else 0.0)
                if self._stopped.wait(max(due - time.monotonic(), 0)):
                    return
                self.add(name)

        self._thread = threading.Thread(target=run, name="hls-script", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No piece follows by itself."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(5)

    def __enter__(self) -> HlsScript:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
