#!/usr/bin/env bash
# Runs a command in a Debian chroot that sees this repository and the Rust toolchain.
#
#   in-chroot.sh CHROOT COMMAND [ARGUMENT ...]
#
# The mounts live in a mount namespace of this process only, so nothing stays behind. The
# repository, cargo's and rustup's folders have the same paths inside as outside; the command starts
# in the repository.
set -euo pipefail
chroot=$1
shift
if [ -z "${IN_CHROOT_NAMESPACE:-}" ]; then
    IN_CHROOT_NAMESPACE=1 exec unshare --mount --propagation private -- "$0" "$chroot" "$@"
fi
unset IN_CHROOT_NAMESPACE

repository=$(cd "$(dirname "$0")/.." && pwd)
for folder in "$repository" "${CARGO_HOME:-$HOME/.cargo}" "${RUSTUP_HOME:-$HOME/.rustup}" \
    "${CARGO_TARGET_DIR:-$repository}" "${XDG_CACHE_HOME:-$HOME/.cache}/gevent-upstream-26.9.0"; do
    if [ -d "$folder" ]; then
        mkdir -p "$chroot$folder"
        mount --bind "$folder" "$chroot$folder"
    fi
done
for special in proc sys dev dev/pts dev/shm; do
    mkdir -p "$chroot/$special"
    if [ -d "/$special" ]; then mount --bind "/$special" "$chroot/$special"; fi
done
# What pip needs to reach the same index as outside.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    if [ -f "$file" ]; then
        mkdir -p "$chroot$(dirname "$file")"
        [ -e "$chroot$file" ] || touch "$chroot$file"
        mount --bind "$file" "$chroot$file"
    fi
done
exec chroot "$chroot" /usr/bin/env -C "$repository" "$@"
