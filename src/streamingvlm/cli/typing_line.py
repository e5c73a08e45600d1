"""Typing under a live view: the terminal's mode, the thread that reads keys, and the one that does what is asked.

The terminal is put back as it was however the command ends, and while it is suspended. Keys are read in a thread of
their own and never wait for the engine: what a line asks for is done in another one.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..core.errors import OptionError, StreamingVLMError
from .line_editor import MAX_LINE, KeyDecoder, LineEditor

if TYPE_CHECKING:
    from ..runtime.runtime import Stream
    from ..runtime.talk import Ask
    from ..sinks.prompt_line import PromptLine
    from .typed import TypedLine

#: Lines that were typed and wait to be done; one more is refused.
TYPED_LINES = 16
#: Seconds that the end waits for a thread.
JOIN = 1.0
#: Seconds after which a thread in the background looks whether the terminal is its own again.
LOOK = 0.2
#: A pasted text comes between marks from the first on, as it is from the second on.
BEGIN, END = b"\x1b[?2004h", b"\x1b[?2004l"
#: Around a suspension; the view has hidden the cursor.
LEAVE, COME_BACK = END + b"\x1b[?25h", b"\x1b[?25l" + BEGIN


def can_type(sources: Sequence[str]) -> bool:
    """Whether a person can type here: at a terminal that is ours, and is none of the ``sources``."""
    try:
        import termios  # noqa: F401
    except ImportError:  # Windows
        return False
    return not {"-", "/dev/stdin"} & {*sources} and all(
        stream is not None and not stream.closed and stream.isatty() and _ours(stream.fileno())
        for stream in (sys.stdin, sys.stdout)
    )


@contextmanager
def typing(stream: Stream, prompt: PromptLine) -> Iterator[None]:
    """Let a person type to ``stream`` under a view that draws ``prompt``. For the main thread, once at a time."""
    doer = Doer(stream, prompt)
    with key_mode(sys.stdin.fileno(), sys.stdout.fileno()):
        keys = KeyReader(sys.stdin.fileno(), Typist(prompt, doer.put))
        prompt.start()
        try:
            yield
        finally:
            keys.stop()
            doer.stop()
            prompt.stop()


@contextmanager
def key_mode(keys: int, screen: int) -> Iterator[None]:
    """Let terminal ``keys`` give every key at once and draw none, and ``screen`` mark what is pasted.

    Interrupts stay keys. While the process is suspended, and afterwards, the terminal is as it was before.
    """
    import termios
    import tty

    before = termios.tcgetattr(keys)

    def leave(code: bytes) -> None:
        with suppress(OSError, termios.error):  # the terminal may be gone
            # At once: what is still to be drawn may never be taken.
            termios.tcsetattr(keys, termios.TCSANOW, before)
            os.write(screen, code)

    def enter(code: bytes) -> None:
        with suppress(OSError, termios.error):
            if _ours(keys):
                tty.setcbreak(keys, termios.TCSANOW)
                os.write(screen, code)

    def suspend(*_: object) -> None:
        if _ours(keys):
            leave(LEAVE)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # To this thread, which is stopped here; where nobody could wake us the system does not stop us at all.
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
        resume()

    def resume(*_: object) -> None:
        signal.signal(signal.SIGTSTP, suspend)
        enter(COME_BACK)

    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTSTP, signal.SIGCONT)}
    try:
        if handlers[signal.SIGTSTP] != signal.SIG_IGN:  # without job control nothing would wake us again
            signal.signal(signal.SIGTSTP, suspend)
            signal.signal(signal.SIGCONT, resume)
        enter(BEGIN)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if _ours(keys):
            leave(END)


def _ours(terminal: int) -> bool:
    """Whether the process may read a terminal and set its mode: in the background it would be stopped."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False


class KeyReader:
    """Reads the bytes of terminal ``keys`` in a thread and hands them to ``typist``."""

    def __init__(self, keys: int, typist: Typist) -> None:
        self._keys, self._typist = keys, typist
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="streamingvlm-keys", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        os.write(self._waker, b".")
        self._thread.join(JOIN)
        if not self._thread.is_alive():
            os.close(self._wake)
            os.close(self._waker)

    def _run(self) -> None:
        try:
            while True:
                patience = self._typist.patience
                ready, _, _ = select.select([self._keys, self._wake], [], [], patience)
                if self._wake in ready:
                    return
                if not ready:
                    self._typist.rest()
                elif not _ours(self._keys):
                    if select.select([self._wake], [], [], LOOK)[0]:
                        return
                elif not (data := os.read(self._keys, MAX_LINE)):
                    return  # hung up
                else:
                    self._typist.feed(data)
        except OSError:
            return  # the terminal is gone


class Typist:
    """Makes lines of bytes, shows them in ``prompt`` as they grow, and hands them to ``enter``."""

    def __init__(self, prompt: PromptLine, enter: Callable[[str], None]) -> None:
        self._prompt, self._enter = prompt, enter
        self._decoder, self._editor = KeyDecoder(), LineEditor()

    @property
    def patience(self) -> float | None:
        """Seconds to wait for more before :meth:`rest`; None: for ever."""
        return self._decoder.patience

    def rest(self) -> None:
        """Nothing more has come."""
        self._decoder.flush()

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        for key in self._decoder.feed(data):
            line = self._editor.feed(key)
            if line is not None:
                self._prompt.show("", 0)
                self._enter(line)
            elif self._editor.full:
                self._prompt.say([f"a line has at most {MAX_LINE} characters"], "yellow")
        self._prompt.show(self._editor.text, self._editor.cursor)


class Doer:
    """Does what lines ask of ``stream``, one after the other, in a thread that may wait for the engine's."""

    def __init__(self, stream: Stream, prompt: PromptLine) -> None:
        self._stream, self._prompt = stream, prompt
        self._lines: queue.Queue[str | None] = queue.Queue(TYPED_LINES)
        self._asked: deque[Ask] = deque(maxlen=2 * TYPED_LINES)
        self._thread = threading.Thread(target=self._run, name="streamingvlm-typed", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Take a line; never waits."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._complain(f"{TYPED_LINES} lines wait already; type it again in a moment")

    def stop(self) -> None:
        """Do no more; what is being done may go on behind this."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(JOIN if not self._stream.ended else 0.1)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._prompt.say([])
                self._do(line)
            except StreamingVLMError as error:
                self._complain(str(error))
            except Exception as error:  # a fault of ours: the stream goes on, and somebody can tell us
                self._complain(f"{type(error).__name__}: {error}")

    def _do(self, line: str) -> None:
        from .typed import parse_line

        wish = parse_line(line)
        if wish is not None:
            self._obey(wish)

    def _obey(self, wish: TypedLine) -> Any:
        from . import typed

        stream = self._stream
        match wish:
            case typed.AskLine(text=text):
                self._asked.append(stream.ask(text))
            case typed.InstructLine(text=text):
                version = stream.instruct(text)
                self._prompt.say([f"instruction {version} holds from the next step on"])
            case typed.RuleLine(spec=spec):
                stream.add_rule(spec)
            case typed.UnruleLine(name=name):
                stream.remove_rule(name)
            case typed.CancelLine(number=number):
                self._cancel(number)
            case typed.RebaseLine(shown=shown):
                stream.rebase(shown)
            case typed.HelpLine():
                self._prompt.say(typed.HELP)
            case typed.QuitLine():
                stream.stop()

    def _cancel(self, number: int | None) -> None:
        asked = [one for one in self._asked if not one.done and number in (None, one.number)]
        if not asked:
            raise OptionError("no question is open" if number is None else f"no question {number} is open")
        asked[-1].cancel()

    def _complain(self, text: str) -> None:
        from ..sinks.text import printable

        self._prompt.say([printable(text)], "yellow")
