"""Names of the streams of a command, of their files, and values that stand in the environment."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.errors import OptionError, OutputError

#: What stands for a stream's name in the path of an output.
STREAM = "{stream}"
#: What stands in braces in the path of an output; ``{{`` and ``}}`` are braces of the name itself.
_BRACES = re.compile(r"\{\{|\}\}|\{[^{}]*\}")
#: Characters of a name; longer ones are cut.
NAME_LIMIT = 60
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``text`` with ``${NAME}`` replaced by what the environment holds. OptionError if it holds nothing."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in environment:
            raise OptionError(f"${{{name}}} is not set in the environment")
        return environment[name]

    return _VARIABLE.sub(value, text)


def stream_names(sources: Sequence[str]) -> list[str]:
    """A name for each stream, of letters, digits, ``.``, ``_`` and ``-``: safe in the name of a file.

    ``sources``: their names, without passwords. Those that are the same get numbers, in order, so that the same command
    gives the same names.
    """
    names = [_plain(source) for source in sources]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(f"{name}-{seen[name]}" if name in repeated else name)
    return out if len(set(out)) == len(out) else [f"{number}-{name}" for number, name in enumerate(names, 1)]


def output_paths(paths: Sequence[Path], names: Sequence[str]) -> list[list[Path]]:
    """The files of every stream: ``{stream}`` in a path stands for its name, ``{{`` and ``}}`` for braces.

    OutputError if several would share one, or for anything else in braces.
    """
    for path in paths:
        found = _BRACES.findall(str(path))
        if unknown := [one for one in found if one not in (STREAM, "{{", "}}")]:
            raise OutputError(
                f"{path}: {unknown[0]} is unknown, only {STREAM} is known; a brace of the name is written {{{{ or }}}}"
            )
        if len(names) > 1 and STREAM not in found:
            raise OutputError(
                f"{path} would be written by {len(names)} streams; put {STREAM} into its name: "
                f"{path.with_name(f'{path.stem}-{STREAM}{path.suffix}')}"
            )

    def filled(path: Path, name: str) -> Path:
        meanings = {STREAM: name, "{{": "{", "}}": "}"}
        return Path(_BRACES.sub(lambda found: meanings[found[0]], str(path)))

    return [[filled(path, name) for path in paths] for name in names]


def _plain(source: str) -> str:
    name = Path(source).stem if Path(source).exists() else source
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("***@", "")).strip("-.")[:NAME_LIMIT].strip("-.") or "stream"
