# Sourced after namespaces.sh by scripts that need Grid Engine: a grid of one host with its own accounts, names and addresses.
# Does not change the machine's files.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

# shellcheck source=tests/e2e/lib/accounts.sh
. tests/e2e/lib/accounts.sh

grid=/run/grid
grid_bin=$grid/bin
grid_log=$grid/log
grid_host=exec-1
grid_address=10.68.0.10
queue=webgrid-generic
export SGE_ROOT=/var/lib/gridengine SGE_CELL=default
# The default is to read them from /etc/services, which a small installation does not have.
export SGE_QMASTER_PORT=6444 SGE_EXECD_PORT=6445

prepare_grid() {
    mkdir -p "$grid_log" "$grid"/{root,spool}
    mkdir -m 1777 "$grid/tmp"
    prepare_accounts "$grid"
    # Grid Engine refuses names of loopback addresses, but does not check which interface has the address.
    printf '%s\n' '127.0.0.1 localhost' "$grid_address $grid_host" >/etc/hosts
    hostname "$grid_host"
    ip address add "$grid_address/32" dev lo
    say "$grid_address" >/etc/active-proxy
}

# An account with a home, where `server [PORT]` serves www/. The default of PORT is the variable PORT.
add_tool() { # TOOL
    local account=tools.$1 home=$grid/home/$1
    add_account "$1"
    mkdir -p "$home/www/$1"
    say "served by $account" >"$home/www/$1/index.html"
    # shellcheck disable=SC2016  # for the server
    printf '%s\n' '#!/bin/sh' 'exec python3 -m http.server --directory "$HOME/www" "${1:-$PORT}"' >"$home/server"
    chmod +x "$home/server"
    chown -R "$account:" "$home"
}

start_identd() {
    start "$grid_log/identd.log" oidentd --foreground --nosyslog
    wait_until "$patience" answers "$grid_address" 113 || die "oidentd did not start"
}

start_proxylistener() { # [OPTION...]: after start_redis
    start "$grid_log/proxylistener.log" "$grid_bin/proxylistener" --project tools --listen "$grid_address:8282" \
        --redis "redis://127.0.0.1:$redis_port/0" "$@"
    wait_until "$patience" answers "$grid_address" 8282 || die "proxylistener did not start"
}
route_of() { redis hget "prefix:$1" '.*'; } # TOOL
is_registered() { # TOOL: with an address of this host, by that tool
    [[ $(route_of "$1") == "http://$grid_address:"* ]] &&
        [[ $(redis hget "origin:$1" '.*') == *"\"owner\":\"tools.$1\""* ]]
}
is_unregistered() { [[ $(redis exists "prefix:$1" "origin:$1") == 0 ]]; } # TOOL
is_served_by() { [[ $(curl -s --max-time 5 "$site$2") == "served by tools.$1" ]]; } # TOOL PATH

# These commands have no timeout of their own.
qconf() { timeout 20 qconf "$@"; }
qstat() { timeout 20 qstat "$@"; }

quietly() { "$@" >>"$grid_log/commands.log" 2>&1; } # COMMAND...

start_grid() { # EPILOG: what the queue runs after each job, as the job's owner
    local common=$SGE_ROOT/$SGE_CELL/common spool=/var/spool/gridengine
    chown sgeadmin: "$grid"/{root,spool}
    mount --bind "$grid/root" "$SGE_ROOT"
    mount --bind "$grid/spool" "$spool"
    ln -s /usr/share/gridengine/util "$SGE_ROOT/util"
    as_user sgeadmin mkdir -p "$common" "$spool"/{qmaster/job_scripts,spooldb,execd}
    as_user sgeadmin cp /usr/share/gridengine/default-bootstrap "$common/bootstrap"
    say "$grid_host" >"$common/act_qmaster"
    chown sgeadmin: "$common/act_qmaster"
    quietly as_user sgeadmin /usr/share/gridengine/scripts/init_cluster "$SGE_ROOT" "$SGE_CELL" "$spool/spooldb" sgeadmin

    # Keep them in the foreground, so that their pids are known.
    start "$grid_log/qmaster.log" env SGE_ND=1 sge_qmaster
    wait_until "$patience" quietly qconf -sm || die "sge_qmaster did not start"
    quietly qconf -as "$grid_host"
    start_execd

    # Steps should not wait for the scheduler's usual interval of 15 s.
    qconf -ssconf | sed 's/^\(schedule_interval\) .*/\1 0:0:1/' >"$grid/scheduler"
    quietly qconf -Msconf "$grid/scheduler"
    # `qconf -sq` prints the default queue. Jobs do not wait on a busy machine. bash, unlike dash, replaces itself with the job's
    # command, which then gets the signal and can take its time to end.
    qconf -sq | sed -e "s|^\(qname\) .*|\1 $queue|" -e "s|^\(hostlist\) .*|\1 $grid_host|" \
        -e 's|^\(slots\) .*|\1 50|' -e 's|^\(load_thresholds\) .*|\1 NONE|' -e 's|^\(pe_list\) .*|\1 NONE|' \
        -e "s|^\(tmpdir\) .*|\1 $grid/tmp|" -e 's|^\(shell\) .*|\1 /bin/bash|' \
        -e 's|^\(terminate_method\) .*|\1 SIGTERM|' -e "s|^\(epilog\) .*|\1 $1|" >"$grid/queue"
    quietly qconf -Aq "$grid/queue"
    wait_until "$patience" queue_is_ready || die "no job can run in $queue"
}

execds=0
start_execd() {
    execds=$((execds + 1))
    start "$grid_log/execd-$execds.log" env SGE_ND=1 sge_execd
    execd_pid=$child
}

# Simulates a failed host: no shepherd runs an epilog, and no tool unregisters.
kill_execd() { # TOOL...: with jobs there
    local tool pids
    pids="$execd_pid $(pgrep -P "$execd_pid")"
    for tool; do pids+=" $(pgrep -u "tools.$tool")" || die "tools.$tool has no job to kill"; done
    # shellcheck disable=SC2086  # a list of words
    kill -KILL $pids 2>/dev/null || true # some end with others
    wait "$execd_pid" 2>/dev/null || true
}

# The last column, the states, is empty. A prolog or an epilog that fails sets the state E, and no job runs any more.
queue_is_ready() { qstat -f -q "$queue" | awk -v queue="$queue@" 'index($1, queue) && NF == 5 { ready = 1 } END { exit !ready }'; }

submit() { # TOOL COMMAND...: as that tool; sets $job to the job's number
    local home=$grid/home/$1
    job=$(as_tool "$1" timeout 20 qsub -terse -b y -q "$queue" -N "generic-$1" -wd "$home" -o "$home/job.log" -j y "${@:2}")
}
is_running() { qstat -s r -u '*' | grep "^ *$1 " >/dev/null; } # JOB
is_unknown() {                                                 # JOB: it has ended
    local jobs
    jobs=$(qstat -u '*') && ! grep -q "^ *$1 " <<<"$jobs"
}
job_of() { qstat -u "tools.$1" | awk 'NR > 2 { print $1 }'; } # TOOL: the numbers of its jobs
is_in_state() {                                               # TOOL STATE
    qstat -u "tools.$1" | awk -v state="$2" '$5 == state { found = 1 } END { exit !found }'
}
kill_job() { # TOOL: with its runner; sets $job to its number
    local pids
    job=$(job_of "$1")
    pids=$(pgrep -u "tools.$1")
    # shellcheck disable=SC2086  # a list of words
    kill -KILL $pids 2>/dev/null || true # some end together with others
}

show_grid() { # on failure
    qstat -f -explain E -u '*' || true
    show_ends "$grid_log"/*.log "$grid"/home/*/*.log "$grid/nginx/error.log"
}

# More hosts: a network, a host name, an execution daemon and an identd each, in the same file system.
declare -A host_of=()
add_host() { # NAME ADDRESS: before start_grid
    start "$grid_log/$1.log" unshare --net --uts sleep infinity
    host_of[$1]=$child
    wait_until "$patience" is_apart "$child" || die "no namespace for $1"
    say "$2 $1" >>/etc/hosts
    ip link add "to-$1" type veth peer name eth0 netns "$child"
    ip link set "to-$1" up
    ip route add "$2/32" dev "to-$1"
    on_host "$1" hostname "$1"
    on_host "$1" ip link set lo up
    on_host "$1" ip address add "$2/32" dev eth0
    on_host "$1" ip link set eth0 up
    on_host "$1" ip route add "$grid_address/32" dev eth0
}
on_host() { nsenter --target "${host_of[$1]}" --net --uts "${@:2}"; }                # NAME COMMAND...
start_execd_on() {                                                                  # NAME: after start_grid
    quietly qconf -ah "$1"
    quietly qconf -as "$1"
    start "$grid_log/execd-$1.log" on_host "$1" env SGE_ND=1 sge_execd
    qconf -sq "$queue" | sed -e "s|^\(hostlist\) .*|\1 $grid_host $1|" >"$grid/queue-$1"
    quietly qconf -Mq "$grid/queue-$1"
    wait_until "$patience" instance_is_ready "$1" || die "no job can run in $queue on $1"
}
instance_is_ready() { qstat -f -q "$queue@$1" | awk -v queue="$queue@" 'index($1, queue) && NF == 5 { ready = 1 } END { exit !ready }'; }
start_identd_on() { # NAME ADDRESS
    start "$grid_log/identd-$1.log" on_host "$1" oidentd --foreground --nosyslog
    wait_until "$patience" answers "$2" 113 || die "oidentd did not start on $1"
}
# Simulates a power failure: no process of the host ends cleanly, and none answers any more.
lose_host() { # NAME
    local pid
    ip link delete "to-$1"
    for pid in /proc/[0-9]*; do
        pid=${pid#/proc/}
        [[ $(readlink "/proc/$pid/ns/net" 2>/dev/null) == "$(readlink "/proc/${host_of[$1]}/ns/net")" ]] || continue
        [[ $pid == "${host_of[$1]}" ]] || kill -KILL "$pid" 2>/dev/null || true
    done
    kill -KILL "${host_of[$1]}"
    wait "${host_of[$1]}" 2>/dev/null || true
}
is_free() { ! answers "$grid_address" "$1"; }                  # PORT
is_not_routed_to() { [[ $(route_of "$1") != "$2" ]]; }         # TOOL URL
