"""Text that is safe where it is shown.

Words are those of a model, names and titles those of a file's author: whatever is shown goes through
:func:`printable`, whatever is written as JSON through :func:`json_text`.
"""

from __future__ import annotations

import json
import re
from typing import Any

#: Embeddings, overrides and isolates: they turn what stands behind them round, also outside of the words.
_DIRECTIONS = "\u202a-\u202e\u2066-\u206f"
#: What terminals and players obey (C0, DEL, C1), and halves of surrogate pairs, which no file can hold.
_CONTROLS = "\x00-\x1f\x7f-\x9f\ud800-\udfff"
_DIRECTION, _CONTROL = re.compile(f"[{_DIRECTIONS}]"), re.compile(f"[{_CONTROLS}]")
_ESCAPED = re.compile(f"[{_DIRECTIONS}{_CONTROLS}\u2028\u2029]")


def printable(text: str) -> str:
    """``text`` as one line that is safe on a screen and in a subtitle.

    White space of any kind becomes single spaces, a control character or half a surrogate pair the replacement
    character; marks that change the direction of writing go. All that can be seen stays.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(_DIRECTION.sub("", text).split()))


def json_text(value: Any) -> str:
    """``value`` as one line of JSON that is safe on a screen: what :func:`printable` replaces is escaped, not lost."""
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
