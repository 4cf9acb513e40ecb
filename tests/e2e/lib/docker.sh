# Sourced after namespaces.sh by scripts that need containers: a Docker engine of their own, whose images are kept in the cache.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

# shellcheck source=tests/e2e/lib/root.sh
. tests/e2e/lib/root.sh

docker_root=${XDG_CACHE_HOME:-$HOME/.cache}/urlproxy/docker
# Short, since the path of a socket is limited.
docker_run=/run/urlproxy-docker
export DOCKER_HOST=unix://$docker_run/docker.sock
# Debian's own client brings BuildKit along; later ones have it by default.
export DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1
PATH=/usr/bin:$PATH

engine_answers() { docker version >/dev/null 2>&1; }
start_engine() { # DIRECTORY [OPTION...]: for its log
    local log=$1/dockerd.log
    mkdir -p "$docker_root"
    start "$log" dockerd --data-root "$docker_root" --exec-root "$docker_run/exec" --pidfile "$docker_run/pid" \
        --host "$DOCKER_HOST" --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /urlproxy-docker "${@:2}"
    engine=$child
    wait_until "$patience" engine_answers || die "dockerd does not answer: $(tail -n 5 "$log")"
}

stop_engine() {
    stop 30 "$engine"
    # It leaves its control groups, which are the whole machine's.
    find /sys/fs/cgroup -depth -type d -path '*/urlproxy-docker*' -exec rmdir {} + 2>/dev/null || true
}

# A run that was killed leaves its containers to the next engine.
drop_debris() {
    docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
    docker volume ls --quiet | xargs --no-run-if-empty docker volume rm >/dev/null
    docker network prune --force >/dev/null
}

compose() { # with the plug-in of the client, or with the older program
    if docker compose version >/dev/null 2>&1; then
        docker compose "$@"
    else
        docker-compose "$@"
    fi
}

# A Debian like Docker's own image, which cannot be expected to be here.
base=urlproxy/debian:$(. /etc/os-release && say "$VERSION_CODENAME")
need_base() { # DIRECTORY: for what is unfinished
    local archive
    archive=$(root_archive "${base##*:}" apt)
    [[ -z $(docker images --quiet "$base") ]] || return 0
    # Packages must not start their services while an image is built.
    mkdir -p "$1/usr/sbin"
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
    chmod 755 "$1/usr/sbin/policy-rc.d"
    cp "$archive" "$1/base.tar"
    tar -C "$1" --owner root --group root --append --file "$1/base.tar" ./usr/sbin/policy-rc.d
    docker import "$1/base.tar" "$base" >/dev/null
    rm "$1/base.tar"
    took "$base, from debootstrap"
}

build_image() { # DOCKERFILE TARGET NAME [OPTION...]
    # The bridge of this engine leads nowhere.
    docker build --quiet --network host --file "$1" --target "$2" --tag "$3" --build-arg BASE="$base" "${@:4}" . >"$run/build.log" 2>&1 ||
        die "the image $3 cannot be built: $(tail -n 20 "$run/build.log")"
    took "$3, $(docker image inspect --format '{{.Size}}' "$3" | awk '{ printf "%d MB", $1 / 1e6 }')"
}
