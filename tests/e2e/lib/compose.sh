# Sourced after namespaces.sh by the scripts that run docker/*.yaml: it builds the images, and leads the script into namespaces of
# its own, where it goes on with a Docker engine. Before, the script sets `images` and `servers`, the targets that it needs of
# docker/Dockerfile and of servers.Dockerfile, `compose_file`, and `site_at`, the address and port of https://.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

self=tests/e2e/${0##*/}
if ((EUID != 0)); then
    sudo -n true || die "a Docker engine is for root: run this as root, or allow sudo without a password"
    exec sudo -n env PATH="$PATH" CARGO_TARGET_DIR="$built" "$self" "$@"
fi
# shellcheck source=tests/e2e/lib/docker.sh
. tests/e2e/lib/docker.sh

run=$PWD/build/e2e-${0##*/}
# What the stage `finished` of the Dockerfile takes.
programs=(target/release/{liburlproxy.so,proxylistener,kube2proxy,webservicemonitor,invisible-unicorn,urlproxyctl,webservice-runner,portgrabber,portreleaser})

# Building needs the machine's network, and running one of its own: so these are two engines, one after the other.
bridge=urlproxy-build
leave_network() {
    ((${#children[@]} == 0)) || stop_engine
    ip link delete "$bridge" 2>/dev/null || true
    rm -rf "$docker_run"
}
build_images() {
    local target
    # A run that was killed leaves the number of a process, which is another's here.
    rm -rf "$docker_run"
    mkdir -p "$docker_run"
    trap leave_network EXIT
    trap 'exit 130' INT TERM
    # An engine without a bridge would delete docker0, another engine's.
    ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge
    ip address replace 198.18.84.1/30 dev "$bridge"
    start_engine "$run" --bridge "$bridge" --iptables=false --ip-forward=false --ip-masq=false
    drop_debris
    took "a Docker engine, $(docker version --format '{{.Server.Version}}')"
    need_base "$run"
    for target in "${images[@]}"; do
        build_image docker/Dockerfile "$target" "urlproxy/$target:0.1.0" --build-arg PROGRAMS=finished
    done
    for target in "${servers[@]}"; do build_image tests/e2e/servers.Dockerfile "$target" "urlproxy/e2e-$target"; done
    # Earlier builds' images, and what the cache has beyond some runs.
    docker image prune --force >/dev/null
    docker builder prune --force --keep-storage 2GB >/dev/null
}

if [[ ${URLPROXY_BUILDS-} ]]; then
    begin "Images"
    build_images
    exit
fi
if [[ -z ${URLPROXY_INSIDE-} ]]; then
    need_built "${programs[@]}"
    mkdir -p "$docker_root" "${run%/*}"
    exec {lock}>"$docker_root.lock"
    flock --nonblock "$lock" || die "another run uses $docker_root: stop that one first"
    rm -rf "$run"
    mkdir "$run"
    # A build that is interrupted leaves processes and mounts, which end with these namespaces.
    unshare --mount --pid --fork --kill-child --mount-proc env URLPROXY_BUILDS=1 "$self"
    enter_namespaces XDG_CACHE_HOME="${XDG_CACHE_HOME-}" "$self" "$@"
fi
enter_namespaces
explain_failure_by show_containers

export REDIS_IMAGE=urlproxy/e2e-redis PROMETHEUS_IMAGE=urlproxy/e2e-prometheus
site() { compose --file "$compose_file" --profile monitoring "$@"; }
quietly() { "$@" >>"$run/commands.log" 2>&1; }
# Asked once for each, as the older program takes a second to answer; restarts keep the container.
declare -A containers=()
find_containers() { # SERVICE...
    local service
    for service; do
        containers[$service]=$(site ps --quiet "$service")
        [[ ${containers[$service]} ]] || die "$service has no container"
    done
}
# shellcheck disable=SC2317  # called by the trap
show_containers() {
    show_ends "$run/commands.log" "$run/dockerd.log"
    site ps --all || true
    # What the last health checks of each container said.
    docker ps --all --quiet | xargs --no-run-if-empty docker inspect --format '{{.Name}} {{with .State.Health}}{{json .}}{{end}}' | cut -c 1-600 || true
    site logs --no-color --tail 15 || true
    take_down || true
}
take_down() {
    quietly site down --volumes --timeout 10 && stop_engine
}

is_healthy() { has_health "$1" healthy; }
has_health() { # SERVICE healthy|unhealthy
    [[ $(docker inspect --format '{{.State.Health.Status}}' "${containers[$1]}" 2>/dev/null) == "$2" ]]
}
inside() { docker exec "${containers[$1]}" "${@:2}"; }                           # SERVICE COMMAND...
check() { # WHAT COMMAND...
    "${@:2}" || die "not so: $1"
    took "$1"
}
not() { ! "$@"; }

bring_up() { # SERVICE...
    begin "docker compose up"
    start_engine "$run"
    drop_debris
    took "a Docker engine without any container"
    quietly site up --detach --no-build "$@" || die "compose up failed: $(tail -n 5 "$run/commands.log")"
    find_containers "$@"
    took "compose up, $(compose version --short)"
}
bring_down() {
    begin "docker compose down"
    quietly site down --volumes --timeout 30 || die "compose down failed: $(tail -n 5 "$run/commands.log")"
    took "compose down"
    [[ -z $(docker ps --all --quiet) ]] || die "containers are left: $(docker ps --all)"
    [[ -z $(docker volume ls --quiet) ]] || die "volumes are left: $(docker volume ls)"
    [[ -z $(docker network ls --quiet --filter type=custom) ]] || die "networks are left: $(docker network ls)"
    took "no container, volume or network is left"
    stop_engine
}

take_authority_from() { # SERVICE: a proxy
    docker cp "${containers[$1]}:/etc/nginx/tls/ca.pem" "$run/ca.pem" >/dev/null
}
https() { # URL [CURL-ARGUMENT...]: with the demo's own certificate authority alone
    curl -s --max-time 5 --cacert "$run/ca.pem" --connect-to "::$site_at" "$@"
}
is_greeted() { [[ $(https "$1") == *'Hello from tools.hello'* ]]; }                   # URL
has_status() { [[ $(https -o /dev/null -w '%{http_code}' "$2") == "$1" ]]; }          # STATUS URL
in_redis() { # SERVICE [OPTION...] COMMAND...
    # shellcheck disable=SC2016  # for the container's shell
    inside "$1" sh -c 'REDISCLI_AUTH=$(cat /run/secrets/redis-password) redis-cli "$@"' - "${@:2}"
}

processes=0
check_processes() { # SERVICE [CAPABILITIES]: no process is root, has another capability or can get one
    local pid field value status allowed=${2:-0} locked=1
    # Capabilities from a file need what this would prevent.
    ((16#$allowed == 0)) || locked=0
    for pid in $(docker top "${containers[$1]}" -eo pid | tail -n +2); do
        # A health check may have ended meanwhile.
        status=$(cat "/proc/$pid/status" 2>/dev/null) || continue
        while read -r field value _; do
            case $field in
            Uid:) ((value != 0)) || die "$1 has a process of root: $(tr '\0' ' ' <"/proc/$pid/cmdline")" ;;
            Cap*:) (((16#$value & ~16#$allowed) == 0)) || die "$1 has a process with capabilities: $field $value" ;;
            NoNewPrivs:) ((value == locked)) || die "$1 has a process that may gain privileges" ;;
            Seccomp:) ((value == 2)) || die "$1 has a process without a filter of system calls" ;;
            esac
        done <<<"$status"
        processes=$((processes + 1))
    done
}
is_read_only() { inside "$1" grep -q '^[^ ]* / [^ ]* ro,' /proc/mounts; } # SERVICE
