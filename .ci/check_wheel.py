"""The wheel must hold both packages, the marker for type checkers, the bundled model and the entry points."""

import configparser
import sys
import zipfile
from pathlib import Path

wheel = max(Path(sys.argv[1]).glob("streamingvlm-*.whl"), key=lambda path: path.stat().st_mtime)
archive = zipfile.ZipFile(wheel)
names = set(archive.namelist())
wanted = {"streamingvlm/__init__.py", "streamingvlm/py.typed", "streamingvlm/cli/__init__.py"}
wanted |= {"streamingvlm/kernels/native.cpp"}
wanted |= {f"streamingvlm/assets/arcade/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")}
wanted |= {f"arcade_streams/{name}" for name in ("__init__.py", "py.typed", "cli/clips.py", "worlds/source.py")}
if missing := sorted(wanted - names):
    sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
if unwanted := sorted(name for name in names if name.startswith("arcade_streams/recipe/")):
    sys.exit(f"{wheel.name} has what only makes the bundled model: {unwanted[0]} and {len(unwanted) - 1} more")

entries = configparser.ConfigParser(delimiters=("=",))
entries.optionxform = str  # names of entry points are not all small letters
(table,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
entries.read_string(archive.read(table).decode())
for group, known in {
    "console_scripts": {"streamingvlm"},
    "streamingvlm.sources": {"arcade"},
    "streamingvlm.tasks": {"arcade"},
    "streamingvlm.commands": {"record", "score", "demo", "eval.arcade", "eval.claims", "eval.proof"},
}.items():
    found = dict(entries[group]) if entries.has_section(group) else {}
    if missing := sorted(known - found.keys()):
        sys.exit(f"{wheel.name} lacks entry points of {group}: {', '.join(missing)}")
    for name, value in found.items():
        module = value.partition(":")[0].replace(".", "/")
        if not {f"{module}.py", f"{module}/__init__.py"} & names:
            sys.exit(f"{wheel.name}: the entry point {name} names {value}, which is not in it")
print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")
