# Sourced after namespaces.sh by scripts that need Kubernetes: etcd, an API server, and the controller that empties deleted
# namespaces. There is no kubelet, so no Pods: any server can listen at a Service's address.
# shellcheck shell=bash disable=SC2034,SC2154  # some variables are lib.sh's, some are for the scripts

kube=/run/kube
kube_log=$kube/log
# The Service `kubernetes` has the first address of this network; the API server itself listens there.
service_network=10.96.0.0/16
api_address=10.96.0.1
export KUBECONFIG=$kube/admin.kubeconfig # of a cluster administrator
# As in every Pod.
export KUBERNETES_SERVICE_HOST=$api_address KUBERNETES_SERVICE_PORT=443

prepare_kube() { # DIRECTORY: as tests/e2e/kubernetes prints it
    PATH=$1:$PATH
    mkdir -p "$kube_log"
    # kubectl caches the API's resources in its home directory.
    export HOME=$kube
    # All addresses of a network on lo are local.
    ip address add "$service_network" dev lo
    openssl genrsa -out "$kube/accounts.key" 2048 2>/dev/null
    admin_token=$(openssl rand -hex 16)
    say "$admin_token,admin,admin,system:masters" >"$kube/tokens"
    write_kubeconfig "$KUBECONFIG" "$admin_token" "$api_address"
}

write_kubeconfig() { # FILE TOKEN ADDRESS
    cat >"$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: "https://$3", certificate-authority: "$kube/tls/$3/ca.crt"}}]
users: [{name: e2e, user: {token: "$2"}}]
contexts: [{name: e2e, context: {cluster: e2e, user: e2e}}]
current-context: e2e
YAML
}

# kubectl alone waits too long for a server that is down.
kubectl() { timeout 30 kubectl "$@"; }

start_kube() {
    start_etcd
    start_apiserver "$api_address"
    start_controllers
}

etcds=0
start_etcd() { # with the data of the last one
    etcds=$((etcds + 1))
    start "$kube_log/etcd-$etcds.log" etcd --data-dir "$kube/etcd" --logger zap --log-level warn
    etcd_pid=$child
    wait_until "$patience" curl -sf -o /dev/null --max-time 1 http://127.0.0.1:2379/health || die "etcd did not start"
}

api_is_ready() { # ADDRESS
    curl -sf -o /dev/null --max-time 2 --cacert "$kube/tls/$1/ca.crt" -H "Authorization: Bearer $admin_token" \
        "https://$1/readyz"
}

apiservers=0
start_apiserver() { # ADDRESS: with the certificate of the last one there; sets $apiserver_pid
    local address=$1 tls=$kube/tls/$1
    apiservers=$((apiservers + 1))
    mkdir -p "$tls"
    start "$kube_log/apiserver-$apiservers.log" kube-apiserver --etcd-servers http://127.0.0.1:2379 \
        --bind-address "$address" --secure-port 443 --cert-dir "$tls" --service-cluster-ip-range "$service_network" \
        --authorization-mode RBAC --token-auth-file "$kube/tokens" \
        --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$kube/accounts.key" \
        --service-account-signing-key-file "$kube/accounts.key"
    apiserver_pid=$child
    wait_until "$patience" answers "$address" 443 || die "kube-apiserver did not start"
    # The first server creates a certificate; its authority's follows in the file.
    sed '1,/END CERTIFICATE/d' "$tls/apiserver.crt" >"$tls/ca.crt"
    wait_until "$patience" api_is_ready "$address" || die "kube-apiserver is not ready"
}
kill_apiserver() { # as when its host fails
    kill -KILL "$apiserver_pid"
    wait "$apiserver_pid" 2>/dev/null || true
}

controllers=0
kube_controllers=namespace # those that run, with commas
start_controllers() {
    controllers=$((controllers + 1))
    start "$kube_log/controllers-$controllers.log" kube-controller-manager --kubeconfig "$KUBECONFIG" \
        --controllers "$kube_controllers" --service-account-private-key-file "$kube/accounts.key" \
        --leader-elect=false --port 0 --secure-port 0
    controllers_pid=$child
}

# Recreates the cluster at its old address, without its content, roles and accounts included.
wipe_etcd() {
    kill_apiserver
    stop 10 "$etcd_pid" "$controllers_pid"
    rm -rf "$kube/etcd"
    start_kube
}

create_namespace() { kubectl create namespace "$1" >/dev/null; } # NAME
delete_namespace() { kubectl delete namespace "$1" >/dev/null; } # NAME: waits until it is gone, with everything in it

# Creates a Service, or sets its ports. It keeps its address until it is deleted.
apply_service() { # NAMESPACE NAME [PORT-NAME:]PORT...
    local port ports=
    for port in "${@:3}"; do ports+="{name: '$([[ $port != *:* ]] || say "${port%:*}")', port: ${port##*:}}, "; done
    kubectl apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {namespace: '$1', name: '$2', labels: {tools.wmflabs.org/webservice: "true"}}
spec: {ports: [$ports]}
YAML
}
label_service() { kubectl label --overwrite service -n "$1" "${@:2}" >/dev/null; } # NAMESPACE NAME LABEL=VALUE|LABEL-...
delete_service() { kubectl delete service -n "$1" "$2" >/dev/null; }              # NAMESPACE NAME
address_of() { kubectl get service -n "$1" "$2" -o 'jsonpath={.spec.clusterIP}'; } # NAMESPACE NAME

serve() { # TOOL ADDRESS PORT: starts a server of the tool; sets $child to its pid
    start "$kube_log/$1-$2-$3.log" "$demo_tool" --name "$1" --listen "$2:$3"
    wait_until "$patience" answers "$2" "$3" || die "the server of $1 did not start"
}
is_served_by() { [[ $(curl -s --max-time 5 "$site$2") == "tool: $1"$'\n'* ]]; } # TOOL PATH

token_of() { # NAMESPACE ACCOUNT: a new one, valid for an hour
    kubectl create --raw "/api/v1/namespaces/$1/serviceaccounts/$2/token" -f - <<<'{"spec": {"expirationSeconds": 3600}}' |
        sed -n 's/.*"token": *"\([^"]*\)".*/\1/p'
}

# Writes the files that each Pod of this account has.
mount_account() { # NAMESPACE ACCOUNT
    local secrets=/var/run/secrets/kubernetes.io/serviceaccount
    mkdir -p "$secrets"
    cp "$kube/tls/$api_address/ca.crt" "$secrets/ca.crt"
    printf '%s' "$1" >"$secrets/namespace"
    # Renamed into place, so that readers find a complete file.
    token_of "$1" "$2" >"$secrets/token.new"
    mv "$secrets/token.new" "$secrets/token"
}

show_kube() { # prints the state after a failure
    kubectl get namespaces,services,events --all-namespaces || true
    show_ends "$kube_log"/*.log "$kube/nginx/error.log"
}
