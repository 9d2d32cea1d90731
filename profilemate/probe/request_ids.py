"""Request ids as they are written: hashed with a secret of the session that is in its processes' environment alone."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from profilemate.probe.process import THIS

DIGEST_BYTES = 8


def written_id(request_id: str) -> str:
    """What stands for a request in the streams: 16 hexadecimal digits, or the id itself where a setting shows it."""
    if THIS.settings.show_request_ids:
        return "".join(c if c.isprintable() and c not in ',"' else "_" for c in request_id[:200])
    return blake2b(request_id.encode(), key=THIS.session_secret(), digest_size=DIGEST_BYTES).hexdigest()


def hash_texts(data: Iterable[bytes]) -> list[str]:
    """16 hexadecimal digits for each of many, block hashes for instance; nobody can compute them without the secret.

    A keyed hash that is copied for each takes a quarter of the time of a new one.
    """
    copy = blake2b(key=THIS.session_secret(), digest_size=DIGEST_BYTES).copy
    texts = []
    for one in data:
        keyed = copy()
        keyed.update(one)
        texts.append(keyed.hexdigest())
    return texts
