#!/usr/bin/env bash
# Debian packages that system tests need: PostgreSQL and Chromium. Nothing is done where all are there.
set -euo pipefail

missing=()
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
[ -x /usr/bin/chromium ] || missing+=(chromium)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing for some system tests, which are skipped without: ${missing[*]}. Install them, on Debian with" >&2
    echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 0
fi
# Debian would make a cluster and start it as a service; ours are made by the tests. The file is written before the package.
if [[ ${missing[*]} == *postgresql* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}"
