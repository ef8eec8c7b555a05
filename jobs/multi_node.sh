#!/usr/bin/env bash
# Makes a Ray cluster with token authentication out of several machines, one command on each:
#   bash jobs/multi_node.sh head ADDRESS [ray start options]            on the first; ADDRESS is its own
#   bash jobs/multi_node.sh worker HEAD ADDRESS [ray start options]     on each other one; HEAD is the first's address
#   bash jobs/multi_node.sh stop                                        on each, at the end: ends all of Ray on it
#   RAY_AUTH_TOKEN_PATH=FILE   the token, the same on all machines [~/.ray/auth_token; the head makes it when missing]
#   RAY_PORT=6379              of the head
# With --block among the options it stays in the foreground. Everything else: docs/cluster.md
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 2; }
usage() { sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

interface_of() { # ADDRESS: the network interface that has it
  ip -o -4 address show | awk -v address="$1" '{ split($4, parts, "/") } parts[1] == address { print $2; exit }'
}

settle_environment() { # ADDRESS: what every process of this node inherits
  local interface
  interface=$(interface_of "$1")
  [[ -n $interface ]] || fail "no interface of this machine has the address $1; there are: $(hostname -I)"
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token
  export VLLM_HOST_IP=$1 RAY_worker_niceness=0
  export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}
  if [[ $1 == 127.* ]]; then export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0; fi # else Ray takes the outer address
}

make_token() {
  if [[ ! -s $token ]]; then
    mkdir -p "$(dirname "$token")"
    (umask 077 && python3 -c 'import secrets; print(secrets.token_hex(32))' >"$token")
    say "made $token; copy it to every other machine, and keep it to yourself: it allows to run anything here"
  fi
  chmod 600 "$token"
}

token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
port=${RAY_PORT:-6379}
role=${1:-}
case $role in
  head)
    [[ $# -ge 2 ]] || usage
    address=$2
    shift 2
    make_token
    settle_environment "$address"
    say "head at $address:$port; the others: bash jobs/multi_node.sh worker $address ADDRESS"
    exec ray start --head --node-ip-address="$address" --port="$port" --dashboard-host=127.0.0.1 \
      --disable-usage-stats "$@"
    ;;
  worker)
    [[ $# -ge 3 ]] || usage
    head=$2 address=$3
    shift 3
    [[ -s $token ]] || fail "$token is missing: copy it from the head (scp $head:$token $token)"
    chmod 600 "$token"
    settle_environment "$address"
    exec ray start --address="$head:$port" --node-ip-address="$address" --disable-usage-stats "$@"
    ;;
  stop) exec ray stop ;;
  *) usage ;;
esac
