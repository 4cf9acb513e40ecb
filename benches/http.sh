#!/usr/bin/env bash
# The module's cost per request, against a static `upstream` in the same nginx: requests/s by wrk, then instructions by
# callgrind. Both sides set the same headers and keep connections alike; only the routing differs.
#
#   benches/http.sh [rates] [instructions]       both by default
#   KEEPALIVE='keepalive 64;' benches/http.sh    with other lines after urlproxy_peers
# shellcheck disable=SC2016  # nginx's own variables
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=.ci/lib.sh
. .ci/lib.sh
need_built "$module"

# The module's keepalive. All tools share one address, as behind an ingress, so each may use any connection.
KEEPALIVE=${KEEPALIVE:-'urlproxy_keepalive 4096 per_backend=64 requests=100000000;'}

connections=64
# The mean of many short rounds: on a shared machine rates vary by half from one second to the next. For a static upstream
# against itself this is exact to 1 %, the median of five rounds of 5 s only to 10 %.
rounds=30
seconds=1
callgrind_requests=1500

# The sides: each is a separate server in the same nginx. Rates are measured for some, at a second per round.
sides=(static static_by_variable static_pair fixed https routed canonical domain pair shipped)
rated=(static static_by_variable fixed https routed)
# Each side has its own tools, so that no side finds another's lookups in a cache.
tools_per_side=$((callgrind_requests + 500))
tools=$((${#sides[@]} * tools_per_side))

parts=" ${*:-rates instructions} "
[[ $parts =~ ^(\ +(rates|instructions))+\ +$ ]] || die "expected rates or instructions, got '$*'"

work=$PWD/build/bench
rm -rf "$work"
mkdir -p "$work/backend" "$work/proxy"
trap stop_children EXIT
trap 'exit 130' INT TERM

# The nginx under test has its own core, so that it limits the rate.
proxy_cpu=() load_cpu=()
if taskset -c 0 true 2>/dev/null && taskset -c 1 true 2>/dev/null; then
    proxy_cpu=(taskset -c 0) load_cpu=(taskset -c 1)
fi

free_port
backend=127.0.0.1:$port
free_port
second_backend=127.0.0.1:$port
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
        listen $second_backend;
        return 200 "hello\n";
    }
}
CONF
start_nginx "$work/backend" "http://$backend/" "${load_cpu[@]}"

start_redis "$work"
redis EVAL "for i = 0, $tools - 1 do
        local name = string.format('%05d', i)
        redis.call('HSET', 'prefix:tool-' .. name, '.*', ARGV[1])
        redis.call('SADD', 'prefix:pair-' .. name, ARGV[1], ARGV[2])
        redis.call('SADD', 'frontend:tool-' .. name .. '.example.org', ARGV[1])
    end" 0 "http://$backend" "http://$second_backend" >/dev/null

declare -A address
for side in "${sides[@]}"; do
    free_port
    address[$side]=127.0.0.1:$port
done
server() { # SIDE LINE...
    local side=$1
    shift
    printf '    server {\n        listen %s;\n        location / { %s }\n    }\n' "${address[$side]}" "$*"
}
# The snippets of the shipped configuration. Its limits count, but must not refuse any request here.
cp -r nginx-conf "$work/proxy/urlproxy"
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
    # Enough for a whole proxied request on either side: a second block would cost as much as a lookup.
    request_pool_size 10k;
    proxy_http_version 1.1;
    proxy_set_header Host              \$http_host;
    proxy_set_header X-Forwarded-For   \$remote_addr;
    proxy_set_header X-Forwarded-Proto \$scheme;
    proxy_set_header Connection        "";

    urlproxy_table tools {
        zone             32m;
        redis            redis://127.0.0.1:$redis_port/0;
        wait_for_routes  60s;
    }
    upstream tools {
        urlproxy_peers shared=127.0.0.1;
        $KEEPALIVE
    }
    upstream static_tools {
        server $backend;
        keepalive 64;
        keepalive_requests 100000000;
    }
    upstream static_pair {
        server $backend;
        server $second_backend;
        keepalive 64;
        keepalive_requests 100000000;
    }
$(server static 'proxy_pass http://static_tools;')
$(server static_by_variable 'set $static_scheme http; proxy_pass $static_scheme://static_tools;')
$(server static_pair 'proxy_pass http://static_pair;')
$(server fixed 'urlproxy tools path; proxy_pass http://tools;')
$(server https 'urlproxy tools path; proxy_pass https://tools;')
$(server routed 'urlproxy tools path; proxy_pass $urlproxy_scheme://tools;')
$(server canonical 'urlproxy tools path; urlproxy_canonical https://example.net; proxy_pass http://tools;')
$(server domain 'urlproxy tools domain; proxy_pass http://tools;')
$(server pair 'urlproxy tools path; proxy_pass http://tools;')
    include urlproxy/snippets/http.conf;
    limit_conn_zone \$urlproxy_tool zone=tools_open:10m;
    limit_req_zone \$urlproxy_limited_client zone=tools_rate:10m rate=1000000r/s;
    server {
        listen ${address[shipped]};
        include urlproxy/snippets/server.conf;
        limit_conn tools_open 200;
        limit_req zone=tools_rate burst=500 nodelay;
        location / {
            urlproxy tools path;
            proxy_pass https://tools;
            include urlproxy/snippets/proxy.conf;
        }
    }
}
CONF

cat >"$work/random_tool.lua" <<LUA
local requests = {}
function init()
    for i = 1, 3000 do requests[i] = wrk.format("GET", string.format("/tool-%05d/x", i)) end
end
function request() return requests[math.random(3000)] end
LUA

requests_per_second() { # ADDRESS
    local report
    report=$("${load_cpu[@]}" wrk -t 1 -c "$connections" -d "${seconds}s" -s "$work/random_tool.lua" "http://$1/")
    ! grep -E 'Non-2xx|Socket errors' <<<"$report" >&2 || die "not every request to $1 was answered with 200"
    awk '/^Requests\/sec:/ { print $2 }' <<<"$report"
}

status_at() { curl -s -o /dev/null -w '%{http_code}' --max-time 5 "http://$1/tool-$(printf %05d $((tools - 1)))/" || true; }
all_routed() { [[ $(status_at "${address[fixed]}") == 200 ]]; }

# An old module speaks TLS to all backends here.
skip_https_if_unsupported() {
    [[ $(status_at "${address[https]}") != 200 ]] || return 0
    say 'bench: this module does not serve http backends through https://tools'
    unset "address[https]"
}

# Instructions per request of nginx's own thread, into $cost. The companion's thread is counted separately: its work depends on
# time, not on requests.
count_instructions() { # SIDE NAME [FIRST-TOOL]
    local side=$1 dump=$work/callgrind.out
    shift
    rm -f "$dump".*
    benches/ask_counted.py "${address[$side]}" "$valgrind" "$callgrind_requests" "$@" || die "$side cannot be measured"
    cost=$(($(awk '/^totals:/ { print $2 }' "$dump".*-01) / callgrind_requests))
}

mean() { awk '{ sum += $1 } END { printf "%.0f", sum / NR }' "$1"; }
calculate() { awk "BEGIN { printf \"$1\", $2 }"; }
row() { printf '%-50s | %14s | %14s | %s\n' "$@"; }

declare -A what=(
    [static]='static upstream'
    [static_by_variable]='static upstream by $scheme'
    [static_pair]='static upstream of two servers'
    [fixed]='http://tools'
    [https]='https://tools'
    [routed]='$urlproxy_scheme://tools'
    [canonical]='http://tools, urlproxy_canonical'
    [domain]='http://tools, domain mode'
    [pair]='http://tools, two backends'
    [shipped]='https://tools, all of nginx-conf'
)

if [[ $parts == *rates* ]]; then
    start_nginx "$work/proxy" "http://${address[static]}/" "${proxy_cpu[@]}"
    wait_until 10 all_routed || die "the last tool is not routed: $(tail -n 3 "$work/proxy/error.log")"
    skip_https_if_unsupported
    say "bench: $rounds rounds of $seconds s with wrk for each, in turn"
    for ((round = 0; round < rounds; round++)); do
        for ((i = 0; i < ${#rated[@]}; i++)); do
            side=${rated[$((round % 2 ? ${#rated[@]} - 1 - i : i))]}
            [[ -z ${address[$side]:-} ]] || requests_per_second "${address[$side]}" >>"$work/$side.rates"
        done
    done
    stop 5 "$nginx_pid"
    say
    row "3,000 tools, 1 worker, $connections connections, $rounds rounds" 'requests/s' "of static" target
    static_rate=$(mean "$work/static.rates")
    for side in "${rated[@]}"; do
        [[ -n ${address[$side]:-} ]] || continue
        rate=$(mean "$work/$side.rates")
        target=
        [[ $side == static* ]] || target='>= 0.97'
        row "${what[$side]}" "$rate" "$(calculate %.3f "$rate / $static_rate")" "$target"
        [[ $side == static ]] || say "${what[$side]}|$(calculate %.3f "$rate / $static_rate")|$target" >>"$work/of_static"
    done
    benches/report add http.rates 'benches/http.sh rates' < <(say 'what|requests/s, of static|target' && cat "$work/of_static")
fi

if [[ $parts == *instructions* ]]; then
    say "bench: $callgrind_requests requests under callgrind for each, first to a new tool each, then to one tool"
    start "$work/valgrind.out" valgrind --tool=callgrind --separate-threads=yes --callgrind-out-file="$work/callgrind.out" \
        nginx -p "$work/proxy/" -e error.log -c nginx.conf -g 'daemon off; master_process off;'
    valgrind=$child
    wait_until 300 all_routed || die "nginx under valgrind does not answer: $(tail -n 3 "$work/valgrind.out")"
    skip_https_if_unsupported
    say
    row "$tools tools, 1 worker, 1 connection" 'cold' 'warm' target
    declare -A cold warm
    for i in "${!sides[@]}"; do
        side=${sides[$i]}
        [[ -n ${address[$side]:-} ]] || continue
        name=tool
        [[ $side != pair ]] || name=pair
        first=$((i * tools_per_side))
        count_instructions "$side" "$name" "$first"
        cold[$side]=$cost
        count_instructions "$side" "$name-$(printf %05d "$first")"
        warm[$side]=$cost
        row "instructions per request, ${what[$side]}" "${cold[$side]}" "${warm[$side]}" ''
    done
    stop 60 "$valgrind"

    percent() { # cold or warm, of $side over $base
        local -n of=$1
        calculate '%.1f %%' "100 * ${of[$side]} / ${of[$base]} - 100"
    }
    added() { # SIDE BASE
        local figures=() side=$1 base=$2 target='<= 3 %'
        [[ $base == static && $side != pair ]] || target=
        figures+=("$(calculate '%+d %5.1f %%' "$((cold[$side] - cold[$base])), 100 * ${cold[$side]} / ${cold[$base]} - 100")")
        figures+=("$(calculate '%+d %5.1f %%' "$((warm[$side] - warm[$base])), 100 * ${warm[$side]} / ${warm[$base]} - 100")")
        row "${what[$side]} over ${what[$base]}" "${figures[@]}" "$target"
        # Only the percentages: instructions change with every version of nginx.
        say "${what[$side]} over ${what[$base]}|$(percent cold)|$(percent warm)|$target" >>"$work/added"
    }
    say
    row 'added' cold warm target
    for side in fixed https routed canonical domain pair; do
        [[ -z ${address[$side]:-} ]] || added "$side" static
    done
    added routed static_by_variable
    added pair static_pair
    # What the habits of nginx-conf add, of nginx's own and of the module.
    added shipped https
    benches/report add http.instructions 'benches/http.sh instructions' < <(say 'what|cold|warm|target' && cat "$work/added")
fi
