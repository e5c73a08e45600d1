"""The wheel must hold the package, its marker for type checkers, and the bundled model."""

import sys
import zipfile
from pathlib import Path

wheel = max(Path(sys.argv[1]).glob("streamingvlm-*.whl"), key=lambda path: path.stat().st_mtime)
names = set(zipfile.ZipFile(wheel).namelist())
wanted = {"streamingvlm/__init__.py", "streamingvlm/py.typed", "streamingvlm/cli/__init__.py"}
wanted |= {f"streamingvlm/assets/arcade/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")}
missing = sorted(wanted - names)
if missing:
    sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")
