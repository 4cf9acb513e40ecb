# Sourced after namespaces.sh by tests/e2e/failover: hosts on one network, each in namespaces of its own with its own /run and
# /etc/nginx; and the parts of a proxy. The addresses and names are those of packaging/ha/, whose files are loaded unchanged.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

# shellcheck source=tests/e2e/lib/accounts.sh
. tests/e2e/lib/accounts.sh

ha=/run/ha
ha_log=$ha/log
ha_tool=$ha/failover_load.py
virtual=10.0.0.10
declare -A address=([proxy-1]=10.0.0.11 [proxy-2]=10.0.0.12 [store]=10.0.0.13 [operator]=10.0.0.20 [exec-1]=10.0.1.20
    [client]=10.0.2.20)
# Of the replicas, the lowest is promoted; one with 0 never is.
declare -A replica_priority=([store]=10 [proxy-1]=20 [proxy-2]=30)
proxies=(proxy-1 proxy-2)
guards=(proxy-1 proxy-2 store) # hosts with a Sentinel
stores=(proxy-1 proxy-2 store) # hosts with Redis
rules=packaging/ha/urlproxy.nft
sentinels=${address[proxy-1]},${address[proxy-2]},${address[store]}
master_name=mymaster
source_of_daemons=sentinel://$sentinels/$master_name/0
declare -A host_of=() pid_of=() # PID of a host; of PART@HOST

on_host() { nsenter --target "${host_of[$1]}" --mount --net --uts --wd="$PWD" -- "${@:2}"; }   # HOST COMMAND...
start_on() {                                                                              # HOST PART COMMAND...
    # Not by on_host: $child is the command itself, not a shell.
    start "$ha_log/$2-$1.log" nsenter --target "${host_of[$1]}" --mount --net --uts --wd="$PWD" -- "${@:3}"
    pid_of[$2@$1]=$child
}
# With its child processes; none has a chance to end cleanly.
kill_part() { # PART HOST
    local pid=${pid_of[$1@$2]}
    kill -KILL "$pid" $(pgrep -P "$pid") 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

# The proxies' Redis is for their nginx alone; the master is on other hosts.
read_replicas() {
    address[store-2]=10.0.0.14
    replica_priority=([store]=10 [store-2]=20 [proxy-1]=0 [proxy-2]=0)
    stores+=(store-2)
}

prepare_hosts() {
    mkdir -p "$ha_log"
    prepare_accounts "$ha"
    mkdir -p /etc/nginx /etc/keepalived /run/urlproxy
    cp tests/e2e/failover_{load,registrations}.py "$ha"
    printf '%s\n' '127.0.0.1 localhost' "${address[exec-1]} exec-1" >/etc/hosts
    ip link add lan type bridge
    ip link set lan up
}

add_host() { # HOST: with a link to the network
    local host=$1 directory=$ha/$1 part
    mkdir -p "$directory"/{nginx,keepalived,urlproxy,redis}
    start "$ha_log/$host.log" unshare --mount --net --uts sleep infinity
    host_of[$host]=$child
    wait_until "$patience" is_apart "$child" || die "no namespace for $host"
    ip link add "to-$host" type veth peer name eth0 netns "$child"
    ip link set "to-$host" master lan up
    on_host "$host" hostname "$host"
    on_host "$host" ip link set lo up
    on_host "$host" ip address add "${address[$host]}/24" dev eth0
    on_host "$host" ip link set eth0 up
    for part in 10.0.0.0/24 10.0.1.0/24 10.0.2.0/24; do on_host "$host" ip route replace "$part" dev eth0; done
    on_host "$host" mount --bind "$directory/nginx" /etc/nginx
    on_host "$host" mount --bind "$directory/keepalived" /etc/keepalived
    on_host "$host" mount --bind "$directory/urlproxy" /run/urlproxy
}

# Nothing of Redis and the Sentinels passes between this host and others, without an answer.
cut_redis_of() { # HOST
    on_host "$1" nft -f - <<'NFT'
table inet cut {
    chain input {
        type filter hook input priority -10
        iif lo accept
        tcp dport { 6379, 26379 } drop
        tcp sport { 6379, 26379 } drop
    }
    chain output {
        type filter hook output priority -10
        oif lo accept
        tcp dport { 6379, 26379 } drop
        tcp sport { 6379, 26379 } drop
    }
}
NFT
}
mend_redis_of() { on_host "$1" nft delete table inet cut; } # HOST

load_rules() { on_host "$1" nft -f "$rules"; } # HOST
add_store_to_rules() {                          # HOST: one more line, as docs/ha.md says
    sed "/set stores/,/}/s/ *elements = {/&\n${address[$1]},/" "$rules" >"$ha/urlproxy.nft.new"
    rules=$ha/urlproxy.nft
    mv "$rules.new" "$rules"
}

# Sentinels rewrite the file: a server starts again as what it was when it knew best.
configure_redis_on() { # HOST [LINE...]
    printf '%s\n' 'port 6379' 'bind 0.0.0.0' 'protected-mode no' "dir $ha/$1/redis" 'save ""' 'appendonly yes' \
        'repl-diskless-sync-delay 0' 'min-replicas-to-write 1' 'min-replicas-max-lag 10' \
        "replica-priority ${replica_priority[$1]}" "${@:2}" >"$ha/$1/redis.conf"
}
start_redis_on() { # HOST: with the data that it has
    start_on "$1" redis redis-server "$ha/$1/redis.conf"
    wait_until "$patience" redis_answers "$1" || die "Redis on $1 did not start"
}
redis_on() { on_host "$1" timeout 5 redis-cli "${@:2}"; }                                     # HOST COMMAND...
redis_answers() { [[ $(redis_on "$1" ping 2>/dev/null) == PONG ]]; }                          # HOST
replicates() { redis_on "$1" info replication | grep -x $'master_link_status:up\r' >/dev/null; } # HOST
has_replicas() { redis_on "$1" info replication | grep -x $'connected_slaves:'"$2"$'\r' >/dev/null; } # HOST NUMBER

start_sentinel_on() { # HOST: with what it knew, if it ran before
    local file=$ha/$1/sentinel.conf
    [[ -e $file ]] || printf '%s\n' "port 26379" "bind 0.0.0.0" "protected-mode no" "dir $ha/$1" \
        "sentinel monitor $master_name ${address[store]} 6379 2" "sentinel down-after-milliseconds $master_name 2000" \
        "sentinel failover-timeout $master_name 10000" "sentinel parallel-syncs $master_name 2" >"$file"
    start_on "$1" sentinel redis-sentinel "$file"
    wait_until "$patience" sentinel_answers "$1" || die "the Sentinel of $1 did not start"
}
sentinel_on() { on_host "$1" timeout 5 redis-cli -p 26379 "${@:2}"; }                         # HOST COMMAND...
sentinel_answers() { [[ $(sentinel_on "$1" ping 2>/dev/null) == PONG ]]; }                    # HOST
sentinel_sees() { # HOST: both others, and all replicas
    local seen replicas=$((${#stores[@]} - 1))
    seen=$(sentinel_on "$1" sentinel master "$master_name" 2>/dev/null | paste - -) || return 1
    [[ $seen == *$'num-slaves\t'"$replicas"* && $seen == *$'num-other-sentinels\t2'* && $seen == *$'flags\tmaster\n'* ]]
}
master_according_to() { sentinel_on "$1" sentinel get-master-addr-by-name "$master_name" 2>/dev/null | head -n 1; } # HOST
host_with() { # ADDRESS: prints the host
    local host
    for host in "${stores[@]}"; do [[ ${address[$host]} != "$1" ]] || say "$host"; done
}
# All agree, and all servers that should replicate do: nothing is under way.
is_settled() {
    local host master
    master=$(master_according_to store)
    for host in "${guards[@]}"; do [[ $(master_according_to "$host") == "$master" ]] && sentinel_sees "$host" || return 1; done
    for host in "${stores[@]}"; do [[ ${address[$host]} == "$master" ]] || replicates "$host" || return 1; done
    has_replicas "$(host_with "$master")" $((${#stores[@]} - 1))
}
master_host() { host_with "$(master_according_to store)"; }

configure_nginx_on() { # HOST SOURCE: the shipped site, without TLS
    local directory=$ha/$1/nginx redis_port=6379
    ship "$directory" urlproxy proxymanager
    say '10.0.2.0/24 test;' >>"$directory/urlproxy/lists/unlimited-clients.conf"
    sed -i -e "s|listen 127.0.0.1:$site_port;|listen 80;|" -e "s|listen 127.0.0.1:$port;|listen 8000;|" \
        -e "s|redis  *redis://[^;]*;|redis $2;|" "$directory/urlproxy.conf"
    sed -i "/listen 127.0.0.1:8081;/a listen ${address[$1]}:8081;" "$directory/proxymanager.conf"
    cat >"$directory/nginx.conf" <<CONF
user root;
load_module "$module";
worker_processes 2;
pid /run/urlproxy/nginx.pid;
error_log /run/urlproxy/error.log notice;
events { worker_connections 16384; }
http {
    access_log off;
    $(nginx_temp_paths)
    include urlproxy.conf;
    include proxymanager.conf;
}
CONF
}
start_nginx_on() { # HOST
    start_on "$1" nginx nginx -p /etc/nginx/ -e /run/urlproxy/error.log -c nginx.conf -g 'daemon off;'
    wait_until "$patience" is_ready "$1" || die "nginx of $1 is not ready: $(tail -n 3 "$ha/$1/urlproxy/error.log")"
}
is_ready() { on_host "$1" curl -s -f -o /dev/null --max-time 3 http://127.0.0.1:8081/ready; } # HOST

start_proxylistener_on() { # HOST
    start_on "$1" proxylistener "$tool_bin/proxylistener" --project tools --redis "$source_of_daemons" --allow-client 10.0.1.0/24 \
        --audit-interval off --metrics-listen 127.0.0.1:9282
}
accepts_writes() { on_host "$1" curl -s -f -o /dev/null --max-time 3 http://127.0.0.1:9282/ready; } # HOST

start_keepalived_on() { # HOST
    on_host "$1" sysctl -q -p packaging/ha/sysctl.conf
    cp packaging/ha/keepalived.conf "$ha/$1/keepalived/keepalived.conf"
    start_on "$1" keepalived keepalived --vrrp --dont-fork --log-console --log-detail --pid "/run/urlproxy/keepalived.pid" \
        --vrrp_pid /run/urlproxy/vrrp.pid
}
has_virtual() { on_host "$1" ip -4 -o address show dev eth0 | grep -F " $virtual/" >/dev/null; } # HOST
is_only_active() { # HOST
    local host
    for host in "${proxies[@]}"; do
        if [[ $host == "$1" ]]; then has_virtual "$host" || return 1; else ! has_virtual "$host" || return 1; fi
    done
}
has_one_active() { is_only_active proxy-1 || is_only_active proxy-2; }
active_host() { # prints the host that has the virtual address
    local host
    for host in "${proxies[@]}"; do ! has_virtual "$host" || say "$host"; done
}
other_than() { # PROXY
    if [[ $1 == proxy-1 ]]; then say proxy-2; else say proxy-1; fi
}

show_hosts() { # on failure
    local host
    for host in "${guards[@]}"; do say "Sentinel of $host: $(master_according_to "$host")"; done
    show_ends "$ha_log"/*.log "$ha"/*/urlproxy/error.log
}
