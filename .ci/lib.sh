# Sourced by the scripts here and in benches/: free ports, child processes that are waited for and stopped by pid.
# shellcheck shell=bash disable=SC2034  # the variables are for the scripts

# An ordinary user's PATH on Debian has no nginx.
PATH=$PATH:/usr/sbin

module=${URLPROXY_MODULE:-${CARGO_TARGET_DIR:-$PWD/target}/release/liburlproxy.so}
demo_tool=${CARGO_TARGET_DIR:-$PWD/target}/release/examples/demo_tool

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_built() { # FILE...
    local file
    for file; do
        [[ -e $file ]] || die "$file is not there: use make, which builds it first"
    done
}

now_ms() { say $((${EPOCHREALTIME//[^0-9]/} / 1000)); }

wait_until() { # SECONDS COMMAND...: false when the command still failed after that time
    local deadline=$(($(now_ms) + $1 * 1000))
    shift
    until "$@"; do
        (($(now_ms) < deadline)) || return 1
        sleep 0.02
    done
}

# Below the range that the kernel hands out to clients, so that none of their ports can get in between.
ports_given=" "
free_port() { # VARIABLE
    local port
    while port=$((20000 + RANDOM % 12000)); do
        [[ $ports_given == *" $port "* ]] && continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    ports_given+="$port "
    printf -v "$1" %s "$port"
}

children=()
start() { # LOG COMMAND...: in the background; its pid is then in $child
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    children+=("$child")
}

is_alive() { kill -0 "$1" 2>/dev/null; }
is_gone() { ! is_alive "$1"; }

stop() { # PID...
    local pid
    for pid; do kill "$pid" 2>/dev/null || true; done
    for pid; do
        wait_until 5 is_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}
stop_children() { stop "${children[@]}"; }

redis_port=
redis() { redis-cli -h 127.0.0.1 -p "$redis_port" "$@"; }

# The process id is asked for so that no other Redis that happens to have the port is ever written to.
is_our_redis() { redis info server 2>/dev/null | tr -d '\r' | grep -x "process_id:$redis_pid" >/dev/null; }

start_redis() { # DIRECTORY: a private one that keeps nothing; its port is then in $redis_port
    free_port redis_port
    start "$1/redis.log" redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$1" --save '' --appendonly no
    redis_pid=$child
    wait_until 10 is_our_redis || die "redis-server did not start: $(tail -n 3 "$1/redis.log")"
}

start_tool() { # NAME DIRECTORY: its address is then in $tool
    start "$2/$1.log" "$demo_tool" --name "$1" --port-file "$2/$1.port"
    wait_until 10 test -s "$2/$1.port" || die "demo tool $1 did not start: $(tail -n 3 "$2/$1.log")"
    tool=127.0.0.1:$(<"$2/$1.port")
}

nginx_answers() { curl -s -o /dev/null --max-time 1 "$1"; }

start_nginx() { # DIRECTORY URL: runs DIRECTORY/nginx.conf in the foreground until URL answers anything; pid in $nginx_pid
    # Its log can only be given by -e before the configuration is read: without, it would try Debian's.
    nginx -t -q -p "$1/" -e error.log -c nginx.conf || die "nginx refuses $1/nginx.conf"
    start "$1/nginx.out" nginx -p "$1/" -e error.log -c nginx.conf -g 'daemon off;'
    nginx_pid=$child
    wait_until 10 nginx_answers "$2" || die "nginx does not answer at $2"
}

# Root's workers would become `nobody`, who cannot read below root's home directory.
nginx_user() { ((EUID != 0)) || say 'user root;'; }

# Debian's nginx would keep these under /var/lib/nginx, where only root may write.
nginx_temp_paths() {
    local kind
    for kind in client_body proxy fastcgi uwsgi scgi; do say "${kind}_temp_path tmp_$kind;"; done
}
