#!/usr/bin/env bash
# Installs what is missing, then trains the tiny model: bash jobs/quickstart.sh [key=value ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash jobs/install.sh
export PATH="$PWD/.venv/bin:$PATH" # torch looks for ninja there
exec python -m mixed_r1_ray.main conf=quickstart "$@"
