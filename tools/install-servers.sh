#!/usr/bin/env bash
# Install what the tests start as servers and tools, where it is missing. They are never started by the system: the tests
# start private ones, on loopback, as a user that is not root. With the argument "soak", what only the soak needs too.
set -euo pipefail
packages=()
compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || packages+=(postgresql)
compgen -G '/usr/share/postgresql/*/extension/hstore.control' > /dev/null || packages+=(postgresql-contrib)
[ -x /usr/sbin/mariadbd ] || packages+=(mariadb-server)
[ -x /usr/bin/redis-server ] || packages+=(redis-server)
command -v promtool > /dev/null || packages+=(prometheus)
command -v prometheus-postgres-exporter > /dev/null || packages+=(prometheus-postgres-exporter)
command -v prometheus-redis-exporter > /dev/null || packages+=(prometheus-redis-exporter)
command -v docker-compose > /dev/null || packages+=(docker-compose)
[ -x /usr/sbin/rabbitmq-server ] || packages+=(rabbitmq-server)
command -v openssl > /dev/null || packages+=(openssl)
[ -x /usr/bin/chromium ] || packages+=(chromium)
command -v ip > /dev/null || packages+=(iproute2)
command -v cc > /dev/null || packages+=(gcc libc6-dev)
[ "${1:-}" != soak ] || command -v clang > /dev/null || packages+=(clang)

# What clang's sanitizers and its fuzzer are linked with, which Debian keeps apart from it, under the name of its version.
fuzzer() { [ "${1:-}" = soak ] && ! compgen -G "$(clang -print-runtime-dir)/libclang_rt.fuzzer*" > /dev/null; }

if [ "${#packages[@]}" -eq 0 ] && ! fuzzer "$@"; then exit 0; fi
sudo=""; [ "$(id -u)" -eq 0 ] || sudo="sudo"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" > /dev/null
  $sudo chmod 755 "$policy"
  trap '$sudo rm -f "$policy"' EXIT
fi
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q
install() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"; }
[ "${#packages[@]}" -eq 0 ] || install "${packages[@]}"
if fuzzer "$@"; then install "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"; fi
