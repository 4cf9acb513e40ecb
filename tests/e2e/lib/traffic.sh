# Sourced after proxies.sh by tests/e2e/failover: what clients of the site see, and how long a change takes; the table of both.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

rate=200
visits=$ha/visits
promotions=$ha/promotions
rows=$ha/rows
tools=(alpha beta gamma)
# Below those that webservice-runner chooses.
probe_ports=(7901 7902)
attempt=1
inconclusive=

scenario() { # NAME
    name=$1
    begin "$name"
    begun=$(now_ms)
    moves=0 # of the virtual address that have a reason
    fault=$begun
    from_fault='' from_promotion='' moved='' configured='' acknowledged='' lost='' back='' misplaced='' late=''
}
fault_now() {
    fault=$(now_ms)
    last=$fault
}
promoted_at() { awk -v fault="$fault" '$1 >= fault { print $1; exit }' "$promotions"; }
is_promoted() { [[ $(promoted_at) ]]; }

changes=0
# Moves the route of tools.probe to its other server, and waits until both proxies serve that one.
change_route() { # [PROXY...]: those that must serve it; default: both
    local port url times served=() host
    changes=$((changes + 1))
    port=${probe_ports[changes % 2]}
    url=http://${address[exec-1]}:$port
    (($#)) || set -- "${proxies[@]}"
    for host; do served+=("${address[$host]}"); done
    times=$(as_probe change '.*' "$url" /probe/ "served by tools.probe on $port" "$patience" "${served[@]}") ||
        die "the change is not served"
    read -r registered served <<<"$times"
    from_fault=$((served - fault))
    say "            registered $((registered - fault)) ms and served $from_fault ms after the fault"
    if is_promoted; then
        from_promotion=$((served - $(promoted_at)))
        say "            the Sentinels named a new master $(($(promoted_at) - fault)) ms after the fault; served $from_promotion ms" \
            "after that"
    fi
}

# Ends the scenario. A machine that stands still for longer than the VRRP interval looks like a lost proxy to keepalived. So if
# requests have failed, or the address is elsewhere, and it has moved without a reason, the scenario is repeated. Also if it has moved
# far later than configured.
at_most_failed() { # NUMBER
    local requests failed repeated gap slowest kinds needless
    sleep 0.5
    read -r requests failed repeated gap slowest kinds < <(python3 "$ha_tool" report "$visits" "$begun" "$(now_ms)") || die "no report"
    needless=$(($(moves_since "$begun") - moves))
    say "            $requests requests, $failed failed (at most $1) $kinds, $repeated repeated, longest gap $gap ms," \
        "slowest $slowest ms"
    if [[ $late ]]; then
        ((attempt < 3)) || die "$late, three times: $name"
        say "            more than twice as late as configured: this machine stood still; repeating"
        inconclusive=yes
        return
    fi
    if ((failed > $1)) || [[ $misplaced ]]; then
        ((needless > 0 && attempt < 3)) || die "$failed requests failed, expected at most $1${misplaced:+; }$misplaced: $name"
        say "            the address moved $needless times without a reason: this machine stood still; repeating"
        inconclusive=yes
        return
    fi
    say "$name|$requests|$failed|$1|$repeated|$gap|$slowest|$moved|$configured|$from_fault|$from_promotion|$acknowledged|$lost|$back" >>"$rows"
}
moves_since() { # MS: how often a proxy got the virtual address
    local host at moves=0
    for host in "${proxies[@]}"; do
        while read -r at; do (($(date -d "$at" +%s%3N) < $1)) || moves=$((moves + 1)); done < <(taken_by "$host")
    done
    say "$moves"
}
taken_by() { sed -n "/Deleted/d; s|^\[\(.*\)\].* eth0 .* $virtual/.*|\1|p" "$ha_log/addresses-$1.log"; } # HOST: prints the times
as_probe() { on_host exec-1 setpriv --reuid tools.probe --regid tools.probe --init-groups /usr/bin/python3 "$ha_tool" "$@"; }

# The virtual address moves. Requests may fail until it has, and not later.
moves_from() { # PROXY CONFIGURED-MS: the longest time according to packaging/ha/keepalived.conf, for the table
    local other at
    other=$(other_than "$1")
    configured=$2
    step 20 "$other has the virtual address" has_virtual "$other"
    moves=$((moves + 1))
    at=$(taken_by "$other" | tail -n 1)
    moved=$(($(date -d "$at" +%s%3N) - fault))
    say "            the address moved after $moved ms (configured: at most $configured)"
    ((moved <= 2 * configured)) || late="the address moved after $moved ms, configured: at most $configured"
}
# Not back, although both are equal again: a check succeeds within 1 s, and counts when the next one does, too.
stays_on() { # PROXY
    sleep 4
    is_only_active "$1" || misplaced="the virtual address has moved without need"
}
# In ms: the time until a proxy counts as lost, and until its nginx does.
lost_ms=$(awk '$1 == "advert_int" { advert = $2 } $1 == "priority" { priority = $2 }
    END { print int(1000 * advert * (3 + (256 - priority) / 256)) }' packaging/ha/keepalived.conf)
check_ms=$(awk '$1 == "interval" && $2 > most { most = $2 } END { print 1000 * most }' packaging/ha/keepalived.conf)
in_flight_ms=200

print_table() {
    local columns='Scenario|requests|failed|at most|repeated|longest gap|slowest|address moved|configured|change served'
    columns+='|after promotion|acknowledged|lost|back after'
    {
        say "nginx reads ${source_of_nginx%%:*}://; $rate requests/s; all times in ms."
        say "failed, at most: 0 if only stores fail; else what is requested until the address has moved, and is then in flight."
        say "repeated: on a kept connection that was closed while idle, as browsers do."
        say "configured: the longest time until the address moves, from the intervals of keepalived.conf."
        say "change served: by both proxies, after the fault, or after its end if it allows no change; and after the Sentinels named"
        say "another master (goal: 2000)."
        say
        {
            say "$columns"
            cat "$rows"
        } | column -t -s '|' -o '  '
    } | tee "$built/failover-$mode.txt"
    jq -R -s --arg columns "$columns" --arg source "${source_of_nginx%%:*}" '($columns | split("|")) as $names |
        {source: $source, rows: [split("\n")[] | select(. != "") | split("|") | [$names, .] | transpose |
            map({key: .[0], value: (.[1] | tonumber? // (if . == "" then null else . end))}) | from_entries]}' "$rows" >"$built/failover-$mode.json"
}
