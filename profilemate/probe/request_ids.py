"""Request ids as they are written: hashed with a secret of the session that is in its processes' environment alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b

from profilemate.probe.process import THIS
from profilemate.schema import names

DIGEST_BYTES = 8


def written_id(request_id: str) -> str:
    """What stands for a request in the streams: 16 hexadecimal digits, or the id itself where a setting shows it."""
    if THIS.settings.show_request_ids:
        return "".join(c if c.isprintable() and c not in ',"' else "_" for c in request_id[:200])
    return blake2b(request_id.encode(), key=_secret(), digest_size=DIGEST_BYTES).hexdigest()


def hash_number(data: bytes) -> int:
    """A 64-bit number for some bytes, a block hash for instance; nobody can compute it without the session's secret."""
    return int.from_bytes(blake2b(data, key=_secret(), digest_size=DIGEST_BYTES).digest(), "big")


def hash_texts(data: Iterable[bytes]) -> list[str]:
    """The numbers of many at once, as 16 hexadecimal digits each: a quarter of the time."""
    copy = blake2b(key=_secret(), digest_size=DIGEST_BYTES).copy
    texts = []
    for one in data:
        keyed = copy()
        keyed.update(one)
        texts.append(keyed.hexdigest())
    return texts


def _secret() -> bytes:
    return os.environ.get(names.ENV_SECRET, "").encode()[:64]
