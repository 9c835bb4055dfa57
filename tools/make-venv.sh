#!/usr/bin/env bash
# Make a virtual environment: make-venv.sh PYTHON FOLDER. Debian's Python comes without the module for it.
set -euo pipefail
python=$1 folder=$2
[ -x "$folder/bin/python" ] && exit 0
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "JiVS needs Python 3.11 or newer; say PYTHON=..." >&2; exit 2; }
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  sudo=""; [ "$(id -u)" -eq 0 ] || sudo="sudo"
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv
fi
"$python" -m venv "$folder"
