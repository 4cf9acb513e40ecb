#!/usr/bin/env bash
# What the module costs per request, against a static `upstream` in the same nginx: requests/s by wrk, then instructions
# by callgrind. Both sides set the same headers and keep connections alike; only the routing differs.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=.ci/lib.sh
. .ci/lib.sh
need_built "$module"

tools=3000
connections=64
# Short and many, and their mean: two cores with neighbours swing by half from one second to the next, and of a static
# upstream against itself this way was right to 1 %, the median of five rounds of 5 s only to 10 %.
rounds=30
seconds=1
callgrind_requests=1500

work=$PWD/build/bench
rm -rf "$work"
mkdir -p "$work/backend" "$work/proxy"
trap stop_children EXIT
trap 'exit 130' INT TERM

# The nginx under test has a core for itself, so that it is what limits the rate.
proxy_cpu=() load_cpu=()
if taskset -c 0 true 2>/dev/null && taskset -c 1 true 2>/dev/null; then
    proxy_cpu=(taskset -c 0) load_cpu=(taskset -c 1)
fi

free_port
backend=127.0.0.1:$port
cat >"$work/backend/nginx.conf" <<CONF
$(nginx_user)
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 4096; }
http {
    access_log off;
    $(nginx_temp_paths)
    keepalive_requests 100000000;
    server {
        listen $backend;
        return 200 "hello\n";
    }
}
CONF
start_nginx "$work/backend" "http://$backend/" "${load_cpu[@]}"

start_redis "$work"
redis EVAL "for i = 1, $tools do redis.call('HSET', string.format('prefix:tool-%04d', i), '.*', ARGV[1]) end" \
    0 "http://$backend" >/dev/null

free_port
static=127.0.0.1:$port
free_port
routed=127.0.0.1:$port
free_port
fixed=127.0.0.1:$port
free_port
static_by_variable=127.0.0.1:$port
cat >"$work/proxy/nginx.conf" <<CONF
$(nginx_user)
load_module "$module";
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 4096; }
http {
    access_log off;
    $(nginx_temp_paths)
    keepalive_requests 100000000;
    # Room for a whole proxied request on either side: a second block would cost as much as a lookup.
    request_pool_size 10k;
    proxy_http_version 1.1;
    proxy_set_header Host              \$http_host;
    proxy_set_header X-Forwarded-For   \$remote_addr;
    proxy_set_header X-Forwarded-Proto \$scheme;
    proxy_set_header Connection        "";

    urlproxy_table tools {
        zone             16m;
        redis            redis://127.0.0.1:$redis_port/0;
        wait_for_routes  60s;
    }
    upstream tools {
        # All tools are at one address, as behind an ingress; the static upstream's connections are everybody's too.
        urlproxy_peers shared=127.0.0.1;
        keepalive 64;
        keepalive_requests 100000000;
    }
    upstream static_tools {
        server $backend;
        keepalive 64;
        keepalive_requests 100000000;
    }
    server {
        listen $static;
        location / { proxy_pass http://static_tools; }
    }
    server {
        listen $static_by_variable;
        set \$static_scheme http;
        location / { proxy_pass \$static_scheme://static_tools; }
    }
    server {
        listen $routed;
        location / {
            urlproxy tools path;
            proxy_pass \$urlproxy_scheme://tools;
        }
    }
    server {
        listen $fixed;
        location / {
            urlproxy tools path;
            proxy_pass http://tools;
        }
    }
}
CONF

cat >"$work/random_tool.lua" <<LUA
local requests = {}
function init()
    for i = 1, $tools do requests[i] = wrk.format("GET", string.format("/tool-%04d/x", i)) end
end
function request() return requests[math.random($tools)] end
LUA

requests_per_second() { # ADDRESS
    local report
    report=$("${load_cpu[@]}" wrk -t 1 -c "$connections" -d "${seconds}s" -s "$work/random_tool.lua" "http://$1/")
    ! grep -E 'Non-2xx|Socket errors' <<<"$report" >&2 || die "not every request to $1 was answered with 200"
    awk '/^Requests\/sec:/ { print $2 }' <<<"$report"
}

mean() { awk '{ sum += $1 } END { printf "%.0f", sum / NR }' "$1"; }
calculate() { awk "BEGIN { printf \"$1\", $2 }"; }
row() { printf '%-62s | %10s | %s\n' "$@"; }

all_routed() { [[ $(curl -s -o /dev/null -w '%{http_code}' --max-time 5 "http://$routed/tool-$tools/") == 200 ]]; }

# Instructions of nginx's own thread in a life of so many requests over one connection, into $instructions. The
# companion's thread is counted apart: it works by the clock, not by the request.
count_instructions() { # ADDRESS REQUESTS
    local answers counts=$work/callgrind.out
    rm -f "$counts"*
    start "$work/valgrind.out" valgrind --tool=callgrind --separate-threads=yes --callgrind-out-file="$counts" \
        nginx -p "$work/proxy/" -e error.log -c nginx.conf -g 'daemon off; master_process off;'
    wait_until 60 all_routed || die "nginx under valgrind does not answer: $(tail -n 3 "$work/valgrind.out")"
    answers=$(curl -s -o /dev/null -w '%{http_code} %{num_connects}\n' --max-time 120 \
        "http://$1/tool-[0001-$2]/x" | sort | uniq -c | awk '{ printf "%s ", $0 }')
    [[ $answers =~ ^\ *$(($2 - 1))\ 200\ 0\ +1\ 200\ 1\ $ ]] ||
        die "expected $2 answers over one connection, got (count, status, connections): $answers"
    stop 60 "$child"
    instructions=$(awk '/^totals:/ { print $2 }' "$counts-01")
}

cost_per_request() { # ADDRESS: into $cost; the difference of two lives, so that starting and stopping are in neither
    local one
    count_instructions "$1" "$callgrind_requests"
    one=$instructions
    count_instructions "$1" $((2 * callgrind_requests))
    cost=$(((instructions - one) / callgrind_requests))
}

start_nginx "$work/proxy" "http://$static/" "${proxy_cpu[@]}"
wait_until 10 all_routed || die "the last tool is not routed: $(tail -n 3 "$work/proxy/error.log")"
say "bench: $rounds rounds of $seconds s with wrk for each, in turn"
for ((round = 1; round <= rounds; round++)); do
    order=(static fixed static_by_variable routed)
    ((round % 2)) || order=(routed static_by_variable fixed static)
    for side in "${order[@]}"; do requests_per_second "${!side}" >>"$work/$side.rates"; done
done
static_rate=$(mean "$work/static.rates")
routed_rate=$(mean "$work/routed.rates")
fixed_rate=$(mean "$work/fixed.rates")
static_by_variable_rate=$(mean "$work/static_by_variable.rates")
stop 5 "$nginx_pid"

say "bench: $callgrind_requests and $((2 * callgrind_requests)) requests under callgrind, for each"
cost_per_request "$static"
static_cost=$cost
cost_per_request "$routed"
routed_cost=$cost
cost_per_request "$fixed"
fixed_cost=$cost
cost_per_request "$static_by_variable"
static_by_variable_cost=$cost

added() { calculate '%.1f %%' "100 * ($1 - $2) / $2"; } # COST STATIC_COST

say
row "what ($tools tools, 1 worker, keepalive on both sides)" figure target
row "requests/s, static upstream, mean of $rounds rounds" "$static_rate" ""
row "requests/s, static upstream by \$scheme, mean of $rounds rounds" "$static_by_variable_rate" ""
row "http://tools / static upstream" "$(calculate %.3f "$fixed_rate / $static_rate")" ">= 0.97"
row "\$urlproxy_scheme://tools / static upstream" "$(calculate %.3f "$routed_rate / $static_rate")" ">= 0.97"
row "\$urlproxy_scheme://tools / static upstream by \$scheme" \
    "$(calculate %.3f "$routed_rate / $static_by_variable_rate")" ""
row "instructions per request, static upstream" "$static_cost" ""
row "instructions per request, static upstream by \$scheme" "$static_by_variable_cost" ""
row "added, http://tools" "$(added "$fixed_cost" "$static_cost")" "<= 3 %"
row "added, \$urlproxy_scheme://tools" "$(added "$routed_cost" "$static_cost")" "<= 3 %"
row "added, \$urlproxy_scheme://tools to static upstream by \$scheme" \
    "$(added "$routed_cost" "$static_by_variable_cost")" ""
