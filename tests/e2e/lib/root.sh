# Sourced after namespaces.sh by scripts that need a machine with systemd: a Debian of its own, booted by systemd-nspawn in the
# script's namespaces, whose network it shares. Nothing of it outlives the script, apart from the archive that saves the next
# download.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

machine=/run/machine
machine_root=$machine/root
machine_log=$machine/log

# Needs the network, so it runs before enter_namespaces. The archive belongs to the calling user.
root_archive() { # SUITE PACKAGE...: prints an archive of a root with these packages
    local suite=$1 packages cache=${XDG_CACHE_HOME:-$HOME/.cache}/urlproxy as_root=() archive mirror lock
    shift
    packages=$(IFS=,; say "$*")
    archive=$cache/root-$suite-$(say "$packages" | cksum | cut -d ' ' -f 1).tar
    if [[ ! -e $archive ]]; then
        ((EUID == 0)) || as_root=(sudo -n)
        mkdir -p "$cache"
        exec {lock}>"$cache/root.lock"
        flock "$lock"
    fi
    if [[ ! -e $archive ]]; then
        say "${0##*/}: fetching Debian $suite into $archive" >&2
        # A mirror has all suites, but apt knows those that it reads.
        mirror=$(mirror_of "$suite")
        [[ $mirror ]] || mirror=$(. /etc/os-release && mirror_of "$VERSION_CODENAME")
        [[ $mirror ]] || die "apt knows no mirror of Debian, or has not read it yet"
        unfinished=$(mktemp -d "$cache/root.XXXXXX")
        trap '"${as_root[@]}" rm -rf "$unfinished"' EXIT
        # Its mounts vanish with the namespace, also when it is interrupted.
        "${as_root[@]}" unshare --mount debootstrap --variant=minbase --include="$packages" "$suite" "$unfinished/root" "$mirror" \
            >"$unfinished/log" 2>&1 || die "debootstrap failed: $(tail -n 3 "$unfinished/log")"
        "${as_root[@]}" rm -rf "$unfinished"/root/{var/cache/apt,var/lib/apt/lists,usr/share/doc,usr/share/locale,debootstrap}/
        "${as_root[@]}" tar -C "$unfinished/root" --one-file-system -c . >"$unfinished/tar"
        # Renamed, so that an archive with this name is always complete. Other packages or suites stay.
        mv "$unfinished/tar" "$archive"
        "${as_root[@]}" rm -rf "$unfinished"
        trap - EXIT
    fi
    say "$archive"
}

prepare_machine() { # ARCHIVE: unpacks it to $machine_root
    mkdir -p "$machine_root" "$machine_log"
    mount -t tmpfs -o mode=755,size=2g machine "$machine_root"
    tar -C "$machine_root" -xpf "$1"
    say machine >"$machine_root/etc/hostname"
    printf '%s\n' '127.0.0.1 localhost' '127.0.1.1 machine' >"$machine_root/etc/hosts"
    # systemd needs the unified hierarchy: 257 refuses the old one. Where the machine has the old one or both, the unified one has
    # no controllers, and systemd then does without limits of memory and tasks.
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # Below a group of its own, whose lock tells later runs that it is in use: the kernel removes no group by itself.
    for group in /sys/fs/cgroup/urlproxy-machine-*/; do
        [[ ! -d $group ]] || flock --nonblock "$group" find "$group" -depth -type d -exec rmdir {} + || true
    done
    group=/sys/fs/cgroup/urlproxy-machine-$(mktemp -u XXXXXXXX)
    mkdir "$group"
    exec {group_lock}<"$group"
    flock "$group_lock"
    say $$ >"$group/cgroup.procs"
}

is_up() { # not `running`: a unit of Debian may fail here
    leader=$(pgrep -P "$nspawn") && [[ $(inside systemctl is-system-running 2>/dev/null) =~ ^(running|degraded)$ ]]
}
boots=0
boot() { # also after a shutdown, with what is on the disk
    boots=$((boots + 1))
    # Without --private-network it shares the script's network, in which there is only lo.
    start "$machine_log/console-$boots" systemd-nspawn --quiet --boot --directory "$machine_root" --machine machine \
        --register=no --keep-unit --resolv-conf=off --timezone=off --link-journal=no --console=pipe
    nspawn=$child
    wait_until "$patience" is_up || die "systemd did not boot: $(inside systemctl list-jobs)"
}
shut_down() {
    inside kill -s RTMIN+4 1 # as systemctl poweroff, which asks logind first
    wait_until "$patience" is_gone "$nspawn" || die "systemd did not shut down"
    wait "$nspawn" || die "systemd-nspawn: exit status $?"
}

leader=
asked=
inside() { # COMMAND...: as root
    asked=$*
    nsenter --target "$leader" --mount --uts --ipc --pid --cgroup --root --wd -- \
        env -i LANG=C.UTF-8 HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
inside_as() { # USER COMMAND...
    inside setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"
}

property() { inside systemctl show --value --property "$2" "$1"; } # UNIT PROPERTY
journal() { inside journalctl --no-pager --quiet --output cat --unit "$@"; } # UNIT [OPTION...]

show_machine() { # on failure
    local last=$asked
    inside systemctl list-units --all --state=failed,activating,deactivating --no-pager || true
    inside journalctl --no-pager --quiet --lines 60 || true
    say "The last command inside: $last"
    show_ends "$machine_log"/* "$machine_root"/var/log/nginx/error.log "$machine_root"/data/project/*/*.log
}
