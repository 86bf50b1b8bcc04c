#!/usr/bin/env bash
# Installs the system packages that the tests can use; needs root once there is one to install.
# The tests start what they need by themselves: no service is started here, and none is needed.
set -euo pipefail

# Node.js runs the reference MCP servers; where it is there from elsewhere, Debian's is not wanted.
wanted=(bubblewrap git libseccomp2 postgresql redis-server)
command -v npm > /dev/null || wanted+=(nodejs npm)

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "Already there: ${wanted[*]}"
    exit 0
fi

# Debian's package would make a database cluster and start it; the tests make their own.
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
fi
# Debian's Redis would be started on the default port, now and at every boot: both are kept from happening.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}"
case " ${missing[*]} " in
    *" redis-server "*) update-rc.d redis-server disable ;;
esac
