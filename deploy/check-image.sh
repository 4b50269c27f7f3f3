#!/usr/bin/env bash
# Builds the image from the Dockerfile and runs it, on a machine with neither a Docker engine nor a
# registry: the base image is made from Debian's packages, podman builds and runs. Needs root, and
# `apt-get install debootstrap podman`. BASE=... takes a base image that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" != inside ]; then
    # podman wants cgroups of one version; a mount namespace shows it those alone.
    exec unshare --mount bash "$0" inside
fi
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    umount --lazy /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi

work=$(mktemp --directory)
port=18000
name=embedsvc-check-$$
trap 'podman rm --force "$name" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

if [ -z "${BASE:-}" ]; then
    echo '== base image, from Debian'
    BASE=localhost/embedsvc-base
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        stable "$work/base" >"$work/log" || { tail "$work/log"; exit 1; }
    # However this machine reaches its package index, the build does too.
    for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        if [ -e "$file" ]; then cp --dereference "$file" "$work/base$file"; fi
    done
    tar --directory "$work/base" --create . | podman import --quiet - "$BASE"
fi

for target in server baked; do
    echo "== build $target"
    podman build --quiet --format docker --isolation=chroot --network=host --build-arg "BASE=$BASE" \
        --target "$target" --tag "localhost/embedsvc:$target" .
done
podman images --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep embedsvc

# Limits that are low enough to set: podman wants more by default than some machines give. Health is
# asked for below: without systemd, podman has no timer to do it.
limits=(--ulimit nofile=4096:4096 --ulimit nproc=4096:4096)
run() {
    podman run --name "$name" --health-interval=disable --network=host --cgroups=disabled "${limits[@]}" --read-only \
        --read-only-tmpfs=false --cap-drop=ALL --security-opt=no-new-privileges "$@"
}

echo '== beyond the machine and without keys it does not start'
code=0
run --rm localhost/embedsvc:baked || code=$?
[ "$code" = 3 ]

echo '== read-only, without privileges, as a user of its own'
run --detach --env EMBEDSVC_API_KEYS=one --env EMBEDSVC_PORT=$port --env HF_HUB_OFFLINE=1 \
    localhost/embedsvc:baked >/dev/null
for _ in $(seq 100); do
    if podman healthcheck run "$name" >/dev/null; then break; fi
    sleep 0.2
done
podman healthcheck run "$name"
podman exec "$name" python -c '
import os
from embedsvc.inference.ops.native import library
assert os.getuid() == 10001, os.getuid()
assert library.built()
open("/cache/x", "w").close()
try:
    open("/etc/embedsvc/x", "w")
except OSError as error:
    print("nothing but the volume can be written:", error.strerror)
else:
    raise SystemExit("the root can be written")
'
curl --silent --fail --header 'authorization: Bearer one' --header 'content-type: application/json' \
    --data '{"model": "all-MiniLM-L6-v2", "input": "hello"}' \
    "http://127.0.0.1:$port/v1/embeddings" | head --bytes 150
echo
podman stop --time 40 "$name" >/dev/null
code=$(podman inspect --format '{{.State.ExitCode}}' "$name")
echo "stopped, exit code $code"
[ "$code" = 0 ]
echo '== all is well'
