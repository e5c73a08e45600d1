#!/usr/bin/env bash
# The plug-in under lmms-eval's own evaluator, in an environment of its own: bash scripts/lmms_job.sh [FOLDER]
# FOLDER: where the environment is made, and used again the next time (default: build/lmms-venv).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/lmms-venv}
python=$folder/bin/python
pip=("$python" -m pip install -q --disable-pip-version-check)

install() {
    [[ -x $python ]] || "${PYTHON:-python3}" -m venv "$folder" || return 1
    # torch comes first and pinned: left to itself pip takes the newest build, with gigabytes of CUDA packages.
    "${pip[@]}" "$(grep '^torch==' constraints.txt)" || return 1
    "${pip[@]}" -r scripts/lmms/requirements.txt || return 1
    "${pip[@]}" --no-deps lmms-eval==0.7.3
}

if ! install; then
    echo "lmms-eval cannot be installed here; the plug-in is tested against a stub of its interface alone" >&2
    exit 0
fi
# Installed, not put on the path: lmms-eval finds the model by the package's entry point.
"${pip[@]}" --no-deps .
# Nothing of this comes from a hub.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=tests
HF_HOME=$(mktemp -d) && export HF_HOME
trap 'rm -rf "$HF_HOME"' EXIT
"$python" scripts/lmms/check.py
