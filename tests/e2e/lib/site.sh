# Sourced after root.sh by tests/e2e/systemd: the site in the machine. Redis, nginx, an identd, one tool, a grid and a cluster that
# have no more than what the daemons ask them. The real ones are in the other scripts of `make e2e`.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

daemons=(proxylistener kube2proxy webservicemonitor invisible-unicorn)
confined=(proxylistener kube2proxy invisible-unicorn) # those with a user and a filter of system calls
declare -A user=([proxylistener]=proxylistener [kube2proxy]=kube2proxy [invisible-unicorn]=invisible-unicorn [webservicemonitor]=root)
# Of systemd-analyze security, in tenths. The tools' commands inherit the monitor's restrictions.
declare -A exposure_limit=([proxylistener]=12 [kube2proxy]=11 [invisible-unicorn]=11 [webservicemonitor]=73)
declare -A status_port=([proxylistener]=9282 [kube2proxy]=9283 [invisible-unicorn]=9284 [webservicemonitor]=9285)
exec_host=10.68.0.10 # an address of the machine, as for each host here
api_server=10.96.0.1
service_address=10.96.0.10
tool_home=/data/project/hello
redis_port=6379
api_token=token-of-kube2proxy
site=http://127.0.0.1
admin=http://127.0.0.1:8081

write() { # FILE [MODE]: standard input, in the machine
    mkdir -p "$machine_root/${1%/*}"
    cat >"$machine_root$1"
    chmod "${2-644}" "$machine_root$1"
}

install_packages() { # DEB...: with what the machine has: it reaches no mirror
    mkdir "$machine_root/root/debs"
    cp "$@" "$machine_root/root/debs"
    # shellcheck disable=SC2016  # for the shell inside
    inside env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get -q -y --no-install-recommends install /root/debs/*.deb' \
        >"$machine_log/apt" 2>&1 || die "apt does not install: $(tail -n 20 "$machine_log/apt")"
    rm -r "$machine_root/root/debs"
}

configure_nginx() {
    rm -f "$machine_root/etc/nginx/sites-enabled/default"
    write /etc/nginx/conf.d/site.conf <<'CONF'
urlproxy_table tools {
    zone 4m;
    redis redis://127.0.0.1:6379/0;
    snapshot /var/lib/urlproxy/tools.snapshot;
}
upstream tools { urlproxy_peers; }
server {
    listen 80 default_server;
    location / {
        urlproxy tools path;
        proxy_pass http://tools;
        proxy_set_header Host $host;
    }
}
server {
    listen 8081;
    location = /list { urlproxy_list tools; }
    location / { urlproxy_admin tools; }
}
CONF
}

configure_daemons() { # with names, which they look up under their restrictions
    printf '%s\n' '127.0.0.1 redis.example.org' "$api_server api.example.org" >>"$machine_root/etc/hosts"
    say 'URLPROXY_REDIS=redis://redis.example.org:6379/0' | write /etc/urlproxy/proxylistener.env 600
    printf '%s\n' 'project tools' "allow-client $exec_host/32" 'audit-interval 1s' 'dead-after 1s' 'withdrawal-guard 10% floor=1 hold=1h' \
        'metrics-listen 127.0.0.1:9282' | write /etc/urlproxy/proxylistener.settings
    write /etc/urlproxy/kube2proxy.yaml 600 <<YAML
redis: redis.example.org:6379
kubernetes: {master: "https://api.example.org:6443", token: $api_token, certificate_authority: /etc/urlproxy/kubernetes-ca.crt}
YAML
    # systemd splits the value into words, with quotes as in a shell.
    say "KUBE2PROXY_ARGS='--watch-timeout 2s \"--withdrawal-guard=50% floor=1 hold=1h\"'" | write /etc/urlproxy/kube2proxy.env 600
    printf '%s\n' 'URLPROXY_REDIS=redis://redis.example.org:6379/0' \
        'INVISIBLE_UNICORN_ARGS=--listen 127.0.0.1:5668 --allow-backend 10.0.0.0/8 --metrics-listen 127.0.0.1:9284' |
        write /etc/urlproxy/invisible-unicorn.env 600
    say 'WEBSERVICEMONITOR_ARGS=--project tools --distribution bookworm --list-url http://HOST:8081/list --interval 1s' \
        '--metrics-listen 127.0.0.1:9285' | write /etc/urlproxy/webservicemonitor.env 600
    say "$exec_host" | write /etc/active-proxy
}

# A tool with a job, and one that should have a job.
add_accounts() {
    local tool uid=50001
    for tool in hello down; do
        say "tools.$tool:x:$uid:$uid::/data/project/$tool:/bin/bash" >>"$machine_root/etc/passwd"
        say "tools.$tool:x:$uid:" >>"$machine_root/etc/group"
        mkdir -p "$machine_root/data/project/$tool"
        uid=$((uid + 1))
    done
    printf '%s\n' 'version: 2' 'web: generic' 'distribution: bookworm' 'backend: gridengine' 'web::extra_args: [server]' |
        write /data/project/down/service.manifest
    mkdir "$machine_root$tool_home/hello"
    for tool in hello down; do inside chown -R "tools.$tool:" "/data/project/$tool"; done
    say tools | write /etc/wmcs-project
}

# A job as Grid Engine would run it: not the monitor's child.
add_job() {
    write /etc/systemd/system/job.service <<UNIT
[Service]
User=tools.hello
WorkingDirectory=$tool_home
ExecStart=/usr/bin/webservice-runner --register-proxy --renew-interval 2s -- sh -c 'exec python3 -m http.server --bind $exec_host \$PORT'
UNIT
    inside systemctl daemon-reload
}

# Programs of Grid Engine in name. A submitted job is a file, and counts as running from then on.
add_grid() {
    write /usr/bin/qstat 755 <<'SCRIPT'
#!/bin/bash
set -eu
echo "<?xml version='1.0'?><job_info><queue_info>"
for job in /data/project/*/job; do
    [[ -e $job ]] || continue
    tool=$(basename "$(dirname "$job")")
    echo "<job_list state='running'><JB_job_number>7</JB_job_number><JAT_prio>0.5</JAT_prio><JB_name>generic-$tool</JB_name>"
    echo "<JB_owner>tools.$tool</JB_owner><state>r</state><JAT_start_time>$(date +%FT%T)</JAT_start_time><slots>1</slots></job_list>"
done
echo '</queue_info><job_info></job_info></job_info>'
SCRIPT
    # Reports what a tool's command may do there.
    write /usr/bin/qsub 755 <<'SCRIPT'
#!/bin/bash
set -eu
{
    id --user --name
    grep NoNewPrivs /proc/self/status
    /usr/local/bin/setuid-id --user --name
    echo "$WEBSERVICE_BY_MONITOR"
} >~/job.new
touch /tmp/of-a-tool /var/tmp/of-a-tool /home/shared/of-a-tool
if [[ -e /run-slowly ]]; then
    echo $$ >/tmp/slowly
    while [[ -e /run-slowly ]]; do sleep 0.1; done
fi
mv ~/job.new ~/job
echo 7
SCRIPT
    write /usr/bin/qdel 755 <<<$'#!/bin/sh\nrm -f ~/job'
    install -d -m 1777 "$machine_root/home/shared"
    install -D -m 4755 "$machine_root/usr/bin/id" "$machine_root/usr/local/bin/setuid-id"
}

add_cluster() {
    local tls=$machine/tls
    mkdir -p "$tls"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout "$tls/ca.key" -out "$tls/ca.crt" 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj /CN=api -keyout "$tls/api.key" -out "$tls/api.csr" 2>/dev/null
    openssl x509 -req -in "$tls/api.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial -days 2 -out "$tls/api.crt" \
        -extfile <(say "subjectAltName=DNS:api.example.org") 2>/dev/null
    write /etc/urlproxy/kubernetes-ca.crt <"$tls/ca.crt"
    start "$machine_log/kube_api" python3 tests/e2e/kube_api.py "$api_server" 6443 "$tls/api.crt" "$tls/api.key" "$api_token" \
        "$machine/no-services"
    wait_until "$patience" answers "$api_server" 6443 || die "the API server did not start"
}

is_ready() { [[ $(status_of "http://127.0.0.1:${status_port[$1]}/ready") == 200 ]]; }     # DAEMON
is_unready() { [[ $(status_of "http://127.0.0.1:${status_port[$1]}/ready") == 503 ]]; }   # DAEMON
metric() { curl -s --max-time 5 "http://127.0.0.1:${status_port[$1]}/metrics" | awk -v name="$2" '$1 == name { print $2 }'; } # DAEMON NAME

each() { # COMMAND...: true if it is true of each daemon
    local daemon
    for daemon in "${daemons[@]}"; do "$@" "$daemon" || return 1; done
}

drop_in() { # DAEMON|all NAME LINE...: in [Service]
    local name=$2 daemon units=("$1")
    [[ $1 != all ]] || units=("${daemons[@]}")
    shift 2
    for daemon in "${units[@]}"; do printf '%s\n' '[Service]' "$@" | write "/etc/systemd/system/$daemon.service.d/$name.conf"; done
    inside systemctl daemon-reload
}
no_drop_in() { # DAEMON|all NAME
    local daemon units=("$1")
    [[ $1 != all ]] || units=("${daemons[@]}")
    for daemon in "${units[@]}"; do rm "$machine_root/etc/systemd/system/$daemon.service.d/$2.conf"; done
    inside systemctl daemon-reload
}

serves() { # DAEMON: a single attempt, as Type=notify promises
    answers 127.0.0.1 "${status_port[$1]}" && case $1 in
    proxylistener) answers "$exec_host" 8282 ;;
    invisible-unicorn) [[ $(status_of http://127.0.0.1:5668/v1/nobody/mapping) == 400 ]] ;;
    esac
}
uid_of() { inside stat -c %u "/proc/$(property "$1" MainPID)"; }  # DAEMON
user_of() { inside stat -c %U "/proc/$(property "$1" MainPID)"; } # DAEMON

open_files() { # PID 4|5: the soft or the hard limit
    inside cat "/proc/$1/limits" | awk -v field="$2" '/^Max open files/ { print $field }'
}

declare -A pid_of=()
remember_pids() {
    local daemon
    for daemon in "${daemons[@]}"; do pid_of[$daemon]=$(property "$daemon" MainPID); done
}
is_replaced() { # DAEMON: since remember_pids
    local pid
    pid=$(property "$1" MainPID)
    [[ $pid != 0 && $pid != "${pid_of[$1]}" && $(property "$1" ActiveState) == active ]]
}
# Not a cursor: journalctl 252 may skip the unit's first line after one.
mark_journal() { marked=@$EPOCHREALTIME; }
is_kept() { [[ $(property "$1" MainPID) == "${pid_of[$1]}" ]]; } # DAEMON: since remember_pids
logs() { journal "$1" --since "$marked" | grep -F -- "$2" >/dev/null; } # DAEMON TEXT: since mark_journal

options_of() { # DAEMON: the file with them
    case $1 in
    proxylistener) say /etc/urlproxy/proxylistener.settings ;;
    *) say "/etc/urlproxy/$1.env" ;;
    esac
}
break_options() { # DAEMON
    local file
    file=$machine_root$(options_of "$1")
    cp -p "$file" "$file.right"
    if [[ $1 == proxylistener ]]; then say 'no-such-option 1' >>"$file"; else sed -i 's/_ARGS=/&--no-such-option /' "$file"; fi
}
mend_options() { # DAEMON
    local file
    file=$machine_root$(options_of "$1")
    mv "$file.right" "$file"
}

is_registered() { # TOOL: by proxylistener
    [[ $(redis hget "prefix:$1" '.*') == "http://$exec_host:"* && $(redis hget "origin:$1" '.*') == *"\"owner\":\"tools.$1\""* ]]
}
register_as() { # USER URL: prints the reply
    # shellcheck disable=SC2016  # for the shell inside
    inside_as "$1" bash -c 'exec 3<>"/dev/tcp/$1/8282"; printf "register\n.*\n%s\n" "$2" >&3; cat <&3' register "$exec_host" "$2"
}
map_domain() { # PROJECT DOMAIN: prints the response
    curl -s -i --max-time 5 -X PUT "http://127.0.0.1:5668/v1/$1/mapping" -d "{\"domain\":\"$2\",\"backends\":[\"http://10.0.0.7:8080\"]}"
}
