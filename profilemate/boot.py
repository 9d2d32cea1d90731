"""First stage, run at the start of every Python process: wait for `import vllm`, and chain to other sitecustomize files.

Nothing but `os` and `sys` is imported here, and nothing is written or printed: most of these processes never use vLLM.
"""

import os
import sys

_visited: set = set()  # real paths of the sitecustomize files that ran, ours included
_config = None
_finder = None


def is_switched_off(environ):
    """Whether the environment says that profiling is off; PROFILEMATE_ENABLE wins over VLLM_ENABLE_PROFILING."""
    value = environ.get("PROFILEMATE_ENABLE") or environ.get("VLLM_ENABLE_PROFILING") or ""
    return value.strip().lower() in ("0", "false", "off", "no")


def start(config=None, sitecustomize_file=None):
    """Arm the wait for `import vllm`, then run every other sitecustomize.py of sys.path once.

    `config` is the ProfilingConfig class; `sitecustomize_file` the path of the file that calls. Both may be None.
    A second call, from another way in or from a sitecustomize that chains back to ours, only goes on with the chain.
    """
    global _config
    if config is not None:
        _config = config
    try:
        if not is_switched_off(os.environ):
            wait_for_vllm()
    finally:
        if sitecustomize_file is not None:
            _visited.add(os.path.realpath(sitecustomize_file))
            chain()


def wait_for_vllm():
    """Start the probe now if vLLM is already imported, else when it is. Idempotent."""
    global _finder
    if "vllm" in sys.modules:
        begin_probe()
    elif _finder is None or _finder not in sys.meta_path:
        _finder = VllmFinder()
        sys.meta_path.insert(0, _finder)


def begin_probe():
    """Load the second stage. What goes wrong in it is told in one line and leaves the process as it was."""
    try:
        from profilemate.probe import install

        install.begin(_config)
    except Exception as error:
        say(f"[profilemate] off: {type(error).__name__}: {error}\n")


def say(text):
    """Write to stderr, if there is one: an exception here would be that of `import vllm`."""
    try:
        sys.stderr.write(text)
    except Exception:
        return


class VllmFinder:
    """Finds nothing itself: it only notices that the single name `vllm` is asked for."""

    def find_spec(self, name, path=None, target=None):
        """Start the probe at the first `import vllm`; always leave the import to the other finders."""
        if name == "vllm":
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            begin_probe()
        return None


def chain():
    """Run every sitecustomize.py on sys.path that has not run yet, each once, in the order of the path.

    A file that itself chains (as some tracers do, by importing `sitecustomize` again) may come back to ours; the set of
    visited files then leads on to the next one instead of a loop or a dead end.
    """
    from importlib.machinery import PathFinder

    ours = sys.modules.get("sitecustomize")
    for entry in list(sys.path):
        spec = _find(PathFinder, entry)
        if spec is None:
            continue
        _visited.add(os.path.realpath(spec.origin))
        _run(spec)
    if ours is not None:
        sys.modules["sitecustomize"] = ours


def _find(path_finder, entry):
    try:
        spec = path_finder.find_spec("sitecustomize", [entry])
    except Exception:
        return None
    if spec is None or spec.loader is None or not spec.origin:
        return None
    return None if os.path.realpath(spec.origin) in _visited else spec


def _run(spec):
    """Execute one sitecustomize as CPython's site module would: an exception is told and the interpreter goes on."""
    module = type(sys)(spec.name)
    module.__spec__ = spec
    module.__file__ = spec.origin
    module.__loader__ = spec.loader
    sys.modules["sitecustomize"] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        if error.name != "sitecustomize":
            tell(error)
    except Exception as error:
        tell(error)


def tell(error):
    """The words that CPython's site module uses, since to the user it is the same event."""
    if sys.flags.verbose:
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        say(f"Error in sitecustomize; set PYTHONVERBOSE for traceback:\n{type(error).__name__}: {error}\n")
