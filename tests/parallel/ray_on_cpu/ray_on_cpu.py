"""Lets vLLM's CPU platform pass the checks of the Ray executors, by naming Ray's (logical) GPUs as its device.

Imported by a .pth file of the overlay environment (install_ray.py), so in the driver, in the cluster and in each worker. A real
vLLM on CPUs has no Ray: this is a test bed for ProfileMate, not a way to serve.
"""

import importlib.abc
import importlib.util
import sys

PLATFORM = "vllm.platforms.cpu"


class Finder(importlib.abc.MetaPathFinder):
    """Sets `CpuPlatform.ray_device_key` when the platform's module is imported."""

    busy = False

    def find_spec(self, name, path=None, target=None):
        """The module's own spec, whose loader also sets the key."""
        if name != PLATFORM or self.busy:
            return None
        self.busy = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.busy = False
        execute = spec.loader.exec_module

        def execute_and_name_device(module):
            execute(module)
            module.CpuPlatform.ray_device_key = "GPU"

        spec.loader.exec_module = execute_and_name_device
        return spec


sys.meta_path.insert(0, Finder())
