#!/bin/sh
# Installs the servers of tests/servers.py and the browser of tests/service: Debian's packages, and Apache Kafka into the
# folder that is given.
# What is there already is left alone; only packages that are missing need root.
set -eu
jars=$1
packages=
for package in postgresql redis-server influxdb victoria-metrics prometheus prometheus-alertmanager systemd chromium; do
    dpkg-query --show --showformat '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        packages="$packages $package"
done
command -v java >/dev/null || packages="$packages default-jre-headless"
command -v mvn >/dev/null || packages="$packages maven"

tried() { # a registry that does not answer is asked again
    for _ in 1 2 3 4; do
        "$@" && return
        sleep 5
    done
    "$@"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

if [ -n "$packages" ]; then
    command -v apt-get >/dev/null || { echo "install with your system's package manager:$packages" >&2; exit 1; }
    # No server that is installed here starts by itself: the tests start their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'as_root rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    fi
    tried as_root apt-get update --quiet
    # shellcheck disable=SC2086  # a list
    tried as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends \
        --option DPkg::Lock::Timeout=300 $packages
fi

rm -rf "$jars.new"
tried mvn --batch-mode --quiet --file "$(dirname "$0")/kafka/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$jars.new"
rm -rf "$jars"
mv "$jars.new" "$jars"
