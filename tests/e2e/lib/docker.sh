# Sourced after namespaces.sh by scripts that need containers: a Docker engine of their own, whose images are kept in the cache.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

docker_cache=${XDG_CACHE_HOME:-$HOME/.cache}/urlproxy
docker_root=$docker_cache/docker
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
        --host "$DOCKER_HOST" "${@:2}"
    engine=$child
    wait_until "$patience" engine_answers || die "dockerd does not answer: $(tail -n 5 "$log")"
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

# A small Debian as Docker's own image has it: no image can be expected to be there, or to be had.
base=urlproxy/debian:$(. /etc/os-release && say "$VERSION_CODENAME")
need_base() { # DIRECTORY: for what is unfinished
    local codename=${base##*:} mirror tar root=$1/debian
    tar=$docker_cache/debian-$codename.tar
    if [[ ! -e $tar ]]; then
        mirror=$(mirror_of "$codename")
        [[ $mirror ]] || die "apt has no source for Debian $codename main: no mirror is known"
        debootstrap --variant=minbase "$codename" "$root" "$mirror" >"$1/debootstrap.log" 2>&1 ||
            die "debootstrap failed: $(tail -n 3 "$1/debootstrap.log")"
        # Packages must not start services.
        printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
        chmod 755 "$root/usr/sbin/policy-rc.d"
        say "deb $mirror $codename main" >"$root/etc/apt/sources.list"
        tar -C "$root" --exclude './var/lib/apt/lists/*' --exclude './var/cache/apt/*' --exclude './dev/*' \
            --exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/locale/*' -cf "$tar.new" .
        # Renamed, so that a file with this name is always complete.
        mv "$tar.new" "$tar"
        rm -rf "$root"
        took "debootstrap: Debian $codename"
    fi
    if [[ -z $(docker images --quiet "$base") ]]; then
        docker import "$tar" "$base" >/dev/null
        took "imported as $base"
    fi
}

build_image() { # DOCKERFILE TARGET NAME [OPTION...]
    # The engine has no bridge while it builds.
    docker build --quiet --network host --file "$1" --target "$2" --tag "$3" --build-arg BASE="$base" "${@:4}" . >"$run/build.log" 2>&1 ||
        die "the image $3 cannot be built: $(tail -n 20 "$run/build.log")"
    took "$3, $(docker image inspect --format '{{.Size}}' "$3" | awk '{ printf "%d MB", $1 / 1e6 }')"
}
