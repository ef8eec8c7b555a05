#!/usr/bin/env bash
# Installs what is missing, then runs the tests: bash jobs/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash jobs/install.sh
export PATH="$PWD/.venv/bin:$PATH" # torch looks for ninja there
exec python -m pytest "$@"
