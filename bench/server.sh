# Sourced by the benchmarks: a private server below /tmp with PostgreSQL's default settings, gone at the
# end. Sets `home` (its directory) and `bin` (its programs); `sql DATABASE [ARGUMENT...]` is psql. `settings`
# holds further lines of postgresql.conf.

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
as_server() { scripts/as-server "$@"; }
grouped() { sed -E ':again; s/([0-9])([0-9]{3})(,|$)/\1,\2\3/; t again' <<<"$1"; }

owner=$(as_server id -u)
home=$(mktemp -d /tmp/meshhook_secrets-bench.XXXXXX)
bin=
stop() {
    [[ ! -f $home/server/data/postmaster.pid ]] ||
        as_server "$bin/pg_ctl" -D "$home/server/data" -m immediate -s stop || true
    rm -rf "$home"
}
trap stop EXIT
trap 'exit 130' INT TERM
chmod 755 "$home"
install -d -m 755 "$home/server" "$home/postgresql"
((EUID != 0)) || chown "$owner" "$home/server"

bin=$(scripts/private-postgres "$home/postgresql")
as_server "$bin/initdb" -D "$home/server/data" -U postgres -E UTF8 --no-locale \
    --auth=trust --no-instructions >/dev/null
as_server sh -c "umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >'$home/server/root.key'"
cat >>"$home/server/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$home/server'
unix_socket_permissions = 0777
shared_preload_libraries = 'meshhook_secrets'
meshhook_secrets.root_key_file = '$home/server/root.key'
${settings:-}
CONF
as_server "$bin/pg_ctl" -D "$home/server/data" -l "$home/server/log" -s -w start
sql() { # sql DATABASE [ARGUMENT...]
    "$bin/psql" -h "$home/server" -U postgres -X -q -A -t -v ON_ERROR_STOP=1 -d "$@"
}

# machine [SETTING...]: says what is measured on.
machine() {
    say "Machine and server"
    printf '%s, %d cores, load %s\n' "$(uname -m)" "$(nproc)" "$(cut -d' ' -f1 /proc/loadavg)"
    sql postgres -c "SELECT split_part(version(), ' on ', 1)" \
        -c "SELECT string_agg(name || ' ' || current_setting(name), ', ')
              FROM unnest(string_to_array('fsync full_page_writes shared_buffers $*', ' ')) AS name"
}
