"""The installed package's sitecustomize: `profilemate run` puts this folder on the child's path.

The child may be another Python without ProfileMate, so the package is loaded from beside this file, and nothing else of
the folder that it was installed into becomes importable.
"""

try:
    import os
    import sys
    from importlib.util import module_from_spec, spec_from_file_location

    if "profilemate" not in sys.modules:
        _package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        _spec = spec_from_file_location(
            "profilemate", os.path.join(_package, "__init__.py"), submodule_search_locations=[_package]
        )
        sys.modules["profilemate"] = module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules["profilemate"])

    import profilemate.boot

    profilemate.boot.start(None, __file__)
except Exception as error:  # the interpreter goes on whatever happens here
    import contextlib

    with contextlib.suppress(Exception):  # stderr may be closed
        sys.stderr.write(f"[profilemate] off: {type(error).__name__}: {error}\n")
