# shellcheck shell=bash
# A PostgreSQL of our own for the time of a test run: in a temporary folder, for this machine only.
# Sourced by scripts/test after steps.sh. By hand:
#
#   bash -c 'set -eu; source scripts/lib/steps.sh; source scripts/lib/postgres.sh
#            trap stop_postgres EXIT; start_postgres; psql "$AUSPEX_TEST_POSTGRES_URL" -c "select version()"'

POSTGRES_RUNS_S=7200 # ends by itself after this, should nobody be left to stop it
postgres_child=
postgres_folder=

# Where Debian, or somebody else, has put PostgreSQL's programs; the newest of several.
postgres_programs() {
    local found
    found=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
    [[ -x $found ]] || found=$(command -v initdb) || return 1
    dirname "$(readlink -f "$found")"
}

# It does not run as root.
as_postgres() {
    if ((EUID == 0)); then
        setpriv --reuid=postgres --regid=postgres --init-groups "$@"
    else
        "$@"
    fi
}

# start_postgres: starts one with an empty database `test`, and exports AUSPEX_TEST_POSTGRES_URL.
start_postgres() {
    local bin port url _
    need postgres_programs postgresql || return
    bin=$(postgres_programs)
    postgres_folder=$(mktemp -d)
    ((EUID != 0)) || chown postgres: "$postgres_folder"
    as_postgres timeout 120 "$bin/initdb" --pgdata="$postgres_folder/data" --username=postgres --auth=trust \
        --encoding=UTF8 --no-locale --no-sync </dev/null >"$LOGS/postgres.log" 2>&1 || return
    for _ in {1..5}; do # somebody else may take the free port first
        port=$((RANDOM % 20000 + 20000))
        ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue
        as_postgres timeout --signal=INT --kill-after=20 "$POSTGRES_RUNS_S" "$bin/postgres" -D "$postgres_folder/data" \
            -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$postgres_folder" \
            -c fsync=off -c max_connections=200 </dev/null >>"$LOGS/postgres.log" 2>&1 &
        postgres_child=$!
        url=postgres://postgres@127.0.0.1:$port
        for _ in {1..150}; do
            kill -0 "$postgres_child" 2>/dev/null || continue 2
            if timeout 5 "$bin/psql" -q "$url/postgres" -c 'create database test' </dev/null 2>>"$LOGS/postgres.log"; then
                export AUSPEX_TEST_POSTGRES_URL=$url/test
                return
            fi
            sleep 0.2
        done
        return 1
    done
    return 1
}

stop_postgres() {
    if [[ -n $postgres_child ]]; then
        as_postgres timeout 30 "$(postgres_programs)/pg_ctl" stop --silent --mode=fast \
            --pgdata="$postgres_folder/data" </dev/null >>"$LOGS/postgres.log" 2>&1 || kill "$postgres_child" || true
        wait "$postgres_child" 2>/dev/null || true
        postgres_child=
    fi
    [[ -z $postgres_folder ]] || rm -rf "$postgres_folder"
}
