# Installs Debian packages without starting or enabling the services in them.
#
# usage: sh apt-install.sh POLICY PACKAGE...
# POLICY is /usr/sbin/policy-rc.d: while it exits with 101, maintainer scripts start no service.
# Where the machine has one of its own, that one is left to decide. A shell script, because it runs
# as root where its caller may not, and removes the file also when its caller was killed.
set -eu
policy=$1
shift
export PATH="$PATH:/usr/sbin:/sbin"
export DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1

mark='made by cargo xtask setup, which removes it at its end'
if [ ! -e "$policy" ] || grep -q "$mark" "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi

new=
for service in nginx keepalived haproxy; do
    command -v "$service" >/dev/null || new="$new $service"
done

# --no-remove: what is installed here matters more than what we would add.
apt-get install -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
    --no-install-recommends --no-remove "$@" </dev/null

# Enabled is the packages' default; it would start them at the next boot.
if command -v systemctl >/dev/null; then
    for service in $new; do
        if command -v "$service" >/dev/null; then systemctl disable "$service" || true; fi
    done
fi
