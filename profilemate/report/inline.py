"""What stands inside the page's script elements, and the policy that lets the browser run these scripts and no other."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from profilemate.frames.packages import load

HTML_IN_JSON = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
SCRIPT_END, SCRIPT_COMMENT = "</script", "<!--"


def json_for_script(value: Any) -> str:
    """JSON in which no character can end or begin a tag or a comment, all of it ASCII."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
    return text.translate(HTML_IN_JSON)


@cache
def vega_script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that loads nothing, for the Vega-Lite that Altair writes.

    Raises SessionError where the packages are missing.
    """
    altair, converter = load("altair"), load("vl_convert")
    wanted = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    known = converter.get_vegalite_versions()
    version = wanted if wanted in known else known[-1]
    return script_text(str(converter.javascript_bundle(vl_version=version)))


def script_text(text: str) -> str:
    """A script that may stand in an element: both sequences only occur in strings and patterns, where this is the same."""
    return text.replace(SCRIPT_END, "<\\/script").replace(SCRIPT_COMMENT, "<\\!--")


def own_file(name: str) -> str:
    """A file of this package's `static` folder."""
    return (files("profilemate.report") / "static" / name).read_text(encoding="utf-8")


def policy(scripts: list[str]) -> str:
    """Content-Security-Policy: nothing is loaded, and of all scripts only these run, each known by its hash.

    Styles are inline because Vega sets them on what it draws. Vega evaluates its expressions with its interpreter, so
    that `unsafe-eval` is not needed.
    """
    hashes = " ".join(f"'sha256-{digest(script)}'" for script in scripts)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {hashes}" if hashes else "script-src 'none'",
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def digest(script: str) -> str:
    """SHA-256 of a script as a policy names it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
