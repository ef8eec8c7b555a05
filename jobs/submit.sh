#!/usr/bin/env bash
# Sends this checkout to a Ray cluster and runs it there: bash jobs/submit.sh conf=internvl_8b [key=value ...]
#   RAY_API_SERVER_ADDRESS=URL    the cluster's job server [http://127.0.0.1:8265: on the head, or by an ssh tunnel]
#   RAY_AUTH_TOKEN_PATH=FILE      the cluster's token [~/.ray/auth_token]
#   FORWARD="NAME ..."            further variables of this shell that the job gets, beside those listed below
#   SUBMIT="OPTION ..."           options of `ray job submit`: --no-wait, --submission-id=NAME
# Secrets do not travel with a job: its environment is shown to all who see the cluster. Put them on the nodes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $# -gt 0 ]] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

forwarded="HF_HOME HF_HUB_OFFLINE HF_ENDPOINT WANDB_BASE_URL WANDB_ENTITY NCCL_DEBUG NCCL_IB_HCA"
environment=$(
  # shellcheck disable=SC2086 # several names
  python3 - $forwarded ${FORWARD:-} <<'PYTHON'
import json, os, re, sys

secret = [name for name in sys.argv[1:] if re.search(r"(?i)token|key|secret|passw", name)]
if secret:
    sys.exit(f"error: {', '.join(secret)} would be shown to all who see the cluster; set it on the nodes instead")
print(json.dumps({
    "working_dir": ".",
    "py_modules": ["src/mixed_r1_ray"],
    # Patterns hold below the working directory and below the module alike.
    "excludes": ["/.git", "/.venv", "/runs", "/wandb", "/tests", "/build", "/dist"]
    + ["*." + end for end in "safetensors bin pt gguf parquet arrow zip tar gz jpg jpeg png".split()],
    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "600"}  # a run that is stopped finishes its step and writes a checkpoint
    | {name: os.environ[name] for name in sys.argv[1:] if name in os.environ},
}))
PYTHON
)
export RAY_AUTH_MODE=token
export RAY_API_SERVER_ADDRESS=${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}
# shellcheck disable=SC2086 # several options
exec ray job submit ${SUBMIT:-} --runtime-env-json "$environment" -- python -m mixed_r1_ray.main "$@"
