#!/usr/bin/env bash
# Checks what a GPU does with this project, in 8 minutes and without a network: bash jobs/gpu_check.sh [options]
# Needs an environment with a CUDA build of torch, vLLM, DeepSpeed and the rest (requirements.txt), its python first on the
# PATH. Options, what is measured and where the figures go: benchmarks/gpu_check.py --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

python=$(command -v python || command -v python3) || fail "no python on the PATH"
"$python" - <<'PYTHON' || fail "$python cannot use a GPU: install requirements.txt there, or put the right python first"
import importlib.util, sys
missing = [name for name in ("torch", "vllm", "deepspeed", "ray", "transformers") if importlib.util.find_spec(name) is None]
if missing:
    sys.exit(f"not installed: {', '.join(missing)}")
import torch
if not torch.cuda.is_available():
    sys.exit(f"torch {torch.__version__} finds no GPU")
print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, CUDA {torch.version.cuda}")
PYTHON
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
exec "$python" benchmarks/gpu_check.py "$@"
