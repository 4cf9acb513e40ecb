# Sourced by scripts that need tools' accounts: they are added to a copy of /etc, which does not outlive the script's namespaces.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

# Where tools find the programs: the checkout may be unreadable for them, such as in root's home directory.
prepare_accounts() { # DIRECTORY: for homes, and for the copy
    homes=$1/home
    tool_bin=$1/bin
    mkdir -p "$homes" "$tool_bin" "$1/etc"
    mount --bind "$built/release" "$tool_bin"
    cp -a /etc/. "$1/etc"
    mount --bind "$1/etc" /etc
    printf '%s: files\n' passwd group shadow hosts services >/etc/nsswitch.conf
    say tools >/etc/wmcs-project
}

last_uid=50000
add_account() { # TOOL: tools.TOOL, with an empty home
    local account=tools.$1
    last_uid=$((last_uid + 1))
    say "$account:x:$last_uid:$last_uid::$homes/$1:/bin/sh" >>/etc/passwd
    say "$account:x:$last_uid:" >>/etc/group
    mkdir -p "$homes/$1"
    chown "$account:" "$homes/$1"
}

as_user() { # USER COMMAND...
    local home
    home=$(getent passwd "$1" | cut -d : -f 6)
    env HOME="$home" setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"
}
as_tool() { as_user "tools.$1" "${@:2}"; } # TOOL COMMAND...
start_as_tool() {                          # TOOL LOG COMMAND...: `start`; $child is the command itself, not a shell
    start "$2" env HOME="$homes/$1" setpriv --reuid "tools.$1" --regid "tools.$1" --init-groups "${@:3}"
}
