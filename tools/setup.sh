#!/usr/bin/env bash
# Makes the named Debian tools available, as far as this machine lets us.
#
#   tools/setup.sh wrk curl mariadbd:mariadb-server ...
#
# Each is a command, with the name of its package where that is another one. A tool that is on PATH is left alone. A missing one is installed with apt-get when we are root and
# apt-get exists. What still is missing is printed as "skipped: NAME (reason)", one a line, and the
# exit code is 0 all the same: the verb that asked says what it leaves out.
set -u

missing=()
PATH=$PATH:/usr/sbin:/usr/local/sbin
for tool in "$@"; do
    command -v "${tool%%:*}" >/dev/null 2>&1 || missing+=("$tool")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ]; then
    reason="not root"
elif ! command -v apt-get >/dev/null 2>&1; then
    reason="no apt-get here"
else
    reason="apt-get could not install it"
    export DEBIAN_FRONTEND=noninteractive
    timeout 120 apt-get update -qq >/dev/null 2>&1
    for tool in "${missing[@]}"; do
        timeout 180 apt-get install -y -qq --no-install-recommends "${tool##*:}" >/dev/null 2>&1
    done
fi
for tool in "${missing[@]}"; do
    command -v "${tool%%:*}" >/dev/null 2>&1 || echo "skipped: ${tool%%:*} ($reason)"
done
exit 0
