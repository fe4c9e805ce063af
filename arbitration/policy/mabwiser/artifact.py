"""What a neighbourhood policy has learned, as bytes.

Laid out as: 8 bytes that name the format, a code (HMAC-SHA256) of all the rest, the length of an .npz, the
.npz with the events and a description, and, where MABWiser's object is part of it, its pickle. A pickle can
run anything, so what holds one is signed with the caller's key, and nothing in it is looked at before the
signature is verified. What holds none is coded with an empty key: this shows damage, and needs no secret.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import pickle
import zipfile
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

import numpy as np

from arbitration.errors import SnapshotError
from arbitration.policy.mabwiser.history import Events
from arbitration.policy.mabwiser.training import Trained

_PLAIN, _SIGNED = b"mabrows1", b"mabsign1"
_CODE, _LENGTH = hashlib.sha256().digest_size, 8
_SHORTEST_KEY = 16
_LIBRARIES = ("mabwiser", "numpy", "scikit-learn")


def to_bytes(trained: Trained, key: bytes) -> tuple[str, bytes]:
    """(version, content). Equal histories and policies give equal versions.

    `key` is needed, of 16 bytes or more, where the content holds a pickle: SnapshotError without it.
    """
    events = trained.events
    description = {
        "fingerprint": trained.fingerprint,
        "arms": events.arms,
        "libraries": None if trained.mab is None else _libraries(),
    }
    meta = json.dumps(description)
    file = io.BytesIO()
    np.savez_compressed(
        file, allow_pickle=False, meta=np.array(meta), arm=events.arm, x=events.x, reward=events.reward
    )
    rows = file.getvalue()
    body = len(rows).to_bytes(_LENGTH, "big") + rows
    kind = _PLAIN
    if trained.mab is not None:
        kind, body = _SIGNED, body + pickle.dumps(trained.mab, protocol=5)
    return _version(meta, events), kind + _code(kind, key, body) + body


def from_bytes(content: bytes, key: bytes, fingerprint: str, version: str | None = None) -> Trained:
    """What the bytes hold.

    Raises SnapshotError where they are truncated, altered, not finite, signed with another key, of another
    fingerprint, or of other versions of the libraries than those installed; then nothing is unpickled.
    `version`: the one that they must have, if given.
    """
    kind, body = content[: len(_PLAIN)], content[len(_PLAIN) + _CODE :]
    if kind not in (_PLAIN, _SIGNED):
        raise SnapshotError("this is no MABWiser snapshot of a format that is known here")
    if not hmac.compare_digest(content[len(kind) : len(kind) + _CODE], _code(kind, key, body)):
        other = ", or signed with another key" if kind == _SIGNED else ""
        raise SnapshotError(f"the snapshot is truncated or altered{other}")
    length = _LENGTH + int.from_bytes(body[:_LENGTH], "big")
    try:
        with np.load(io.BytesIO(body[_LENGTH:length]), allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        meta = str(parts["meta"])
        described = json.loads(meta)
        events = Events(tuple(described["arms"]), parts["arm"], parts["x"], parts["reward"])
        _check(events)
        found, libraries = described["fingerprint"], described["libraries"]
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise SnapshotError("the snapshot cannot be read") from error
    if found != fingerprint:
        raise SnapshotError("the snapshot was learned under another policy, encoding or rewards")
    if version is not None and _version(meta, events) != version:
        raise SnapshotError("the snapshot is not of the version it is kept as")
    if kind == _PLAIN:
        return Trained(found, events)
    if libraries != _libraries():
        raise SnapshotError(
            f"the snapshot was written by {_spelled(libraries)}, here is {_spelled(_libraries())}"
        )
    return Trained(found, events, _unpickled(body[length:]))


def _code(kind: bytes, key: bytes, body: bytes) -> bytes:
    if kind == _PLAIN:
        key = b""
    elif len(key) < _SHORTEST_KEY:
        raise SnapshotError(f"a policy of this kind needs a signing key of at least {_SHORTEST_KEY} bytes")
    return hmac.digest(key, kind + body, "sha256")


def _check(events: Events) -> None:
    arm, x, reward = events.arm, events.x, events.reward
    if [part.dtype for part in (arm, x, reward)] != [np.intp, np.float64, np.float64]:
        raise SnapshotError("the snapshot has events of another type than it should")
    within = arm.ndim == 1 and ((arm >= 0) & (arm < len(events.arms))).all()
    if not within or x.ndim != 2 or not len(arm) == len(x) == reward.size:
        raise SnapshotError("the snapshot has events of another shape than it says")
    if not (np.isfinite(x).all() and np.isfinite(reward).all()):
        raise SnapshotError("the snapshot has numbers that are not finite")


def _version(meta: str, events: Events) -> str:
    # Of what was trained on, not of the pickle: k-means on several threads may round otherwise.
    digest = hashlib.sha256(meta.encode())
    for part in (events.arm, events.x, events.reward):
        digest.update(part.tobytes())
    return digest.hexdigest()[:16]


def _libraries() -> dict[str, str]:
    return {name: _installed(name) for name in _LIBRARIES}


def _installed(name: str) -> str:
    try:
        return installed(name)
    except PackageNotFoundError:
        return "none"


def _spelled(libraries: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in libraries.items())


def _unpickled(pickled: bytes) -> Any:
    try:
        return pickle.loads(pickled)
    except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, ImportError, LookupError) as error:
        raise SnapshotError("the snapshot's MABWiser object cannot be read") from error
