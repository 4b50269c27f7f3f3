"""Ray, which runs `ray_data` and `ray_serve`: a cluster to join, or one on this machine."""

import os
from importlib import import_module
from typing import Any

ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: listen on loopback
}
"""What Ray reads when it is imported: a cluster that reports to nobody, for this machine alone."""


def connect(cpus: int | None = None) -> Any:
    """The module `ray`, connected to the cluster that RAY_ADDRESS names, or to one that is started.

    That one is for this machine alone, has so many CPUs to give (None: all), and reports its use to
    nobody; for that, Ray must not have been imported before.
    """
    joins = bool(os.environ.get("RAY_ADDRESS"))
    if not joins:
        os.environ.update(ALONE)
    ray = import_module("ray")
    if not ray.is_initialized():
        ray.init(**{} if joins else {"num_cpus": cpus, "include_dashboard": False})
    return ray
