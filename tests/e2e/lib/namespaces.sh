# Sourced after lib.sh by the scripts of `make e2e`: namespaces that take everything with them when the script ends, and steps
# that are timed.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

# Runs the calling script again as the first process of namespaces of its own, where /run is an empty file system and lo the
# only interface; there it returns.
enter_namespaces() { # [NAME=VALUE...] SCRIPT [ARGUMENT...]: with these variables in its environment, and few others
    local as_root=() kinds=(--mount --net --uts --pid --fork --mount-proc)
    if [[ -n ${URLPROXY_INSIDE-} ]]; then
        unset URLPROXY_INSIDE
        mount -t tmpfs -o mode=755 run /run
        ip link set lo up
        return
    fi
    if ((EUID != 0)); then
        as_root=(sudo -n)
        sudo -n true || die "namespaces are for root: run this as root, or allow sudo without a password"
    fi
    "${as_root[@]}" unshare "${kinds[@]}" true ||
        die "namespaces are not permitted here: a container needs CAP_SYS_ADMIN, and the root of a chroot must be a mount point"
    # Jobs inherit the environment of the daemon that starts them.
    exec "${as_root[@]}" unshare "${kinds[@]}" --kill-child env -i URLPROXY_INSIDE=1 LANG=C.UTF-8 PATH="$PATH" HOME=/root \
        CARGO_TARGET_DIR="$built" URLPROXY_MODULE="$module" "$@"
}

explain_failure_by() { # COMMAND: which prints what is known, when the script fails
    # shellcheck disable=SC2064  # as it is now
    trap "finish $1" EXIT
    set -E
    failed=
    trap 'failed="line $LINENO: $BASH_COMMAND"' ERR
    trap 'exit 130' INT TERM
}
# shellcheck disable=SC2317  # called by the trap
finish() { # COMMAND
    local status=$?
    trap - EXIT INT TERM
    if ((status != 0 && status != 130)); then
        "$1" >&2
        # Again, below the logs: what is kept of a long output is often its end.
        say "${died:-${0##*/}: exit status $status of $failed}" >&2
    fi
    exit "$status"
}
show_ends() { # LOG...: of those in which there is something
    local log
    for log; do
        [[ -s $log ]] || continue
        printf '\nThe end of %s:\n' "$log"
        tail -n 25 "$log"
    done
}

begin() { # WHAT
    heading "$1"
    last=$(now_ms)
}
step() { # SECONDS WHAT COMMAND...: waits until COMMAND succeeds, and prints how long that took
    wait_until "$1" "${@:3}" || die "not within $1 s: $2"
    took "$2"
}
took() { # WHAT
    local now
    now=$(now_ms)
    printf '%7d ms  %s\n' $((now - last)) "$1"
    last=$now
}

answers() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }    # ADDRESS PORT
is_answered() { [[ $(status_of "$site$2") == "$1" ]]; } # STATUS PATH

is_apart() { # PID: it has a network namespace of its own. While it starts, the link may be unreadable.
    local namespace
    namespace=$(readlink "/proc/$1/ns/net") && [[ $namespace != "$(readlink /proc/self/ns/net)" ]]
}
