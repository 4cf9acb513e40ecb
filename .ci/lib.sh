# Sourced by the scripts of .ci, benches, examples, t and tests/e2e: free ports, and child processes that are stopped by pid.
# shellcheck shell=bash disable=SC2034  # the variables are for the scripts

# A regular user's PATH on Debian lacks nginx.
PATH=$PATH:/usr/sbin

built=$(realpath -m "${CARGO_TARGET_DIR:-target}")
module=$(realpath -m "${URLPROXY_MODULE:-$built/release/liburlproxy.so}")
demo_tool=$built/debug/examples/demo_tool

say() { printf '%s\n' "$*"; }
heading() { printf '\n== %s\n' "$1"; }
died=
die() {
    died="${0##*/}: $*"
    say "$died" >&2
    exit 1
}

need_built() { # FILE...
    local file
    for file; do
        [[ -e $file ]] || die "$file does not exist; use make, which builds it first"
    done
}

mirror_of() { # CODENAME: the mirror of a Debian release according to apt's own sources
    # shellcheck disable=SC2016  # apt's own placeholders
    apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v suite="Debian $1 main" '$1 " " $2 " " $3 == suite && !found++ { print $4 }'
}

# bindgen before 0.73 misplaces bit fields that follow another field, as in requests since nginx 1.29. As a bit field itself, that field
# is at the same place.
align_bit_fields() { # DIRECTORY of nginx's headers
    sed -i -E 's/^( +)in_port_t( +)port;$/\1unsigned \2port:16;/' "$1/src/http/ngx_http_request.h"
}

now_ms() { say $((${EPOCHREALTIME//[^0-9]/} / 1000)); }

# Timeout in seconds for steps that must succeed, even on a busy machine.
patience=60

wait_until() { # SECONDS COMMAND...: false if the command still fails after that time
    local deadline=$(($(now_ms) + $1 * 1000))
    shift
    until "$@"; do
        (($(now_ms) < deadline)) || return 1
        sleep 0.02
    done
}

# Below the kernel's ephemeral range, so that no client takes the port first. Scripts that run at the same time get different ranges, as
# a port is free for all of them until a server listens.
first_port=${URLPROXY_FIRST_PORT:-20000}
port_count=${URLPROXY_PORT_COUNT:-12000}
ports_given=" "
free_port() { # a new port, in $port
    while port=$((first_port + RANDOM % port_count)); do
        [[ $ports_given == *" $port "* ]] && continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    ports_given+="$port "
}

children=()
start() { # LOG COMMAND...: in the background, with its pid in $child
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    child=$!
    children+=("$child")
}

is_gone() { ! kill -0 "$1" 2>/dev/null; }

stop() { # SECONDS PID...: terminates processes, and kills those still running after that time
    local seconds=$1 pid left=()
    shift
    for pid; do kill "$pid" 2>/dev/null || true; done
    for pid; do
        wait_until "$seconds" is_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    # The kernel may reuse these pids for other processes from now on.
    for pid in "${children[@]}"; do
        [[ " $* " == *" $pid "* ]] || left+=("$pid")
    done
    children=("${left[@]}")
}
stop_children() { stop 5 "${children[@]}"; }

redis() { redis-cli -h 127.0.0.1 -p "$redis_port" "$@"; }

# Checks the process id, so that no other Redis on this port is ever written to.
is_our_redis() { redis info server 2>/dev/null | tr -d '\r' | grep -x "process_id:$redis_pid" >/dev/null; }

start_redis() { # DIRECTORY: a private Redis without persistence, with its port in $redis_port
    free_port
    redis_port=$port
    start_redis_again "$1"
}
start_redis_again() { # DIRECTORY: on the same port, with the data saved there
    start "$1/redis.log" redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$1" --save '' --appendonly no
    redis_pid=$child
    wait_until "$patience" is_our_redis || die "redis-server did not start: $(tail -n 3 "$1/redis.log")"
}

start_tool() { # NAME DIRECTORY: with its address in $tool
    rm -f "$2/$1.port"
    start "$2/$1.log" "$demo_tool" --name "$1" --port-file "$2/$1.port"
    wait_until "$patience" test -s "$2/$1.port" || die "demo tool $1 did not start: $(tail -n 3 "$2/$1.log")"
    tool=127.0.0.1:$(<"$2/$1.port")
}

nginx_answers() { curl -s -o /dev/null --max-time 1 "$1"; }

# Runs DIRECTORY/nginx.conf, under COMMAND if given, and waits until URL answers; its pid is in $nginx_pid.
# Without -e nginx would first open Debian's log.
start_nginx() { # DIRECTORY URL [COMMAND...]
    local directory=$1 url=$2
    shift 2
    nginx -t -q -p "$directory/" -e error.log -c nginx.conf || die "nginx refuses $directory/nginx.conf"
    start "$directory/nginx.out" "$@" nginx -p "$directory/" -e error.log -c nginx.conf -g 'daemon off;'
    nginx_pid=$child
    wait_until "$patience" nginx_answers "$url" || die "nginx does not answer at $url: $(tail -n 3 "$directory/error.log")"
}

# As root, workers would run as `nobody`, which cannot read root's home directory.
nginx_user() { ((EUID != 0)) || say 'user root;'; }

# Debian's nginx has these under /var/lib/nginx, writable only for root.
nginx_temp_paths() {
    local kind
    for kind in client_body proxy fastcgi uwsgi scgi; do say "${kind}_temp_path tmp_$kind;"; done
}

# Copies the shipped configuration to DIRECTORY/, with snippets in DIRECTORY/urlproxy/: plain HTTP on one free port, $site_port, for all that
# port 443 serves, and other addresses and paths.
ship() { # DIRECTORY MAIN-FILE...
    local directory=$1 main
    shift
    free_port
    site_port=$port
    free_port
    mkdir -p "$directory/urlproxy"
    cp -r nginx-conf/snippets nginx-conf/lists "$directory/urlproxy/"
    grep -rl /usr/share/urlproxy/error "$directory/urlproxy" | xargs -r sed -i "s|/usr/share/urlproxy/error|$PWD/nginx-conf/error|"
    # All of a test's clients share its address.
    say '127.0.0.0/8 test;' >>"$directory/urlproxy/lists/unlimited-clients.conf"
    for main; do
        sed -e "s|redis://127.0.0.1:6379/|redis://127.0.0.1:$redis_port/|" \
            -e "s|/var/lib/urlproxy/|$directory/|" \
            -e "s|allow_backend |allow_backend 127.0.0.0/8 |" \
            -e "s|include urlproxy/snippets/listen-tls.conf;|listen 127.0.0.1:$site_port;|" \
            -e "s|include urlproxy/snippets/listen-tls-default.conf;|listen 127.0.0.1:$site_port default_server;|" \
            -e "s|listen 80\b|listen 127.0.0.1:$port|" \
            -e '/listen \[::\]:80\b/d; /^ *ssl_certificate/d' "nginx-conf/$main.conf" >"$directory/$main.conf"
    done
}

# The shipped sites of path mode and subdomain mode, in DIRECTORY; they are in $site, $admin and $list.
start_site() { # DIRECTORY [ADDRESS]: the address of the list, instead of a free port of 127.0.0.1
    local list_address=${2-}
    ship "$1" urlproxy proxymanager
    site=http://127.0.0.1:$site_port
    [[ $list_address ]] || {
        free_port
        list_address=127.0.0.1:$port
    }
    admin=http://$list_address
    list=$admin/list
    sed -i "s|listen 127.0.0.1:8081;|listen $list_address;|" "$1/proxymanager.conf"
    cat >"$1/nginx.conf" <<CONF
$(nginx_user)
load_module "$module";
worker_processes 2;
pid nginx.pid;
error_log error.log notice;
events { worker_connections 16384; }
http {
    access_log off;
    $(nginx_temp_paths)
    include urlproxy.conf;
    include proxymanager.conf;
}
CONF
    start_nginx "$1" "$site/"
}

status_of() { curl -s -o /dev/null -w '%{http_code}' --max-time 5 "$1" || true; }
