"""The check of `profilemate doctor` on containers: what one needs, and whether sessions outlive the one that this is."""

from __future__ import annotations

import os
from collections.abc import Mapping

from profilemate.cli.check import OK, WARNING, Check
from profilemate.cli.locate import profiling_config
from profilemate.probe import folders
from profilemate.probe.settings import load

MARKS = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into a container."""

VARIABLES = ("KUBERNETES_SERVICE_HOST", "container")
OWN_LAYERS = ("overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs")

NEEDS = (
    "a container needs the package in its image (pip install), PROFILEMATE_ENABLE=1 (docker run -e), and a volume for "
    "PROFILEMATE_DIR, since sessions in a container's own layer go with it"
)


def is_container(environ: Mapping[str, str]) -> bool:
    """Whether this looks like the inside of a container."""
    return any(map(os.path.exists, MARKS)) or any(environ.get(name) for name in VARIABLES)


def container_needs(environ: Mapping[str, str]) -> list[Check]:
    """What a container needs, and in one, whether its sessions stay when it is removed."""
    if not is_container(environ):
        return [Check("container", OK, f"this is none; {NEEDS}")]
    settings = load(environ, profiling_config())
    kind = folders.mount_type(settings.directory)
    if kind not in OWN_LAYERS:
        text = f"{settings.directory} is on {kind or 'an unknown file system'}, not in a layer of the container"
        return [Check("container", OK, text)]
    text = (
        f"{settings.directory} is in this container's own layer ({kind}), so sessions go when the container is removed"
    )
    remedy = f"docker run -v /host/folder:{settings.directory}, or docker cp before the container goes"
    return [Check("container", WARNING, text, remedy)]
