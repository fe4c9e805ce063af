"""What a policy has learned: per arm, sums over events and nothing else.

Because the state is a sum, states of parts of the log can be merged, the order of events does not
matter, and an event that proves wrong is taken back by adding it with weight -1.

Forgetting leaves it a sum: an event at time t weighs 2^((t - landmark) / half-life), so only the landmark
moves, by one factor for all ("forward decay", Cormode, Shkapenyuk, Srivastava, Xu, ICDE 2009).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from arbitration.errors import SnapshotError

Floats = npt.NDArray[np.float64]

_FORMATS = (1, 2)  # 1 knows no forgetting
_DIGEST = hashlib.sha256().digest_size
_PARTS = ("outer", "moment", "squares", "count")


class State:
    """Additive sums of one policy over contexts of `size` columns.

    Per arm (row): `outer` Σ x xᵀ (upper triangle, row by row: size·(size+1)/2 columns), `moment` Σ r x
    (size columns), `squares` Σ r², `count` Σ 1. `fingerprint` tells which encoding the x came from.
    `half_life` in seconds, if it forgets; `landmark`: the time, in epoch seconds, at which an event weighs 1.
    """

    def __init__(self, fingerprint: str, size: int, half_life: float | None = None) -> None:
        self.fingerprint = fingerprint
        self.size = size
        self.half_life = half_life
        self.landmark = 0.0
        self.rows: dict[str, int] = {}
        self._upper = np.ravel_multi_index(np.triu_indices(size), (size, size))
        self.outer: Floats = np.zeros((0, len(self._upper)))
        self.moment: Floats = np.zeros((0, size))
        self.squares: Floats = np.zeros(0)
        self.count: Floats = np.zeros(0)

    def add(
        self, arms: Sequence[str], x: Floats, reward: Floats, weight: Floats, at: Floats | None = None
    ) -> None:
        """Adds `n` events: arm ids (n,), contexts (n, size), rewards (n,), weights (n,), and, where it
        forgets, their times (n,) in epoch seconds.

        Weight 1 counts an event, -1 takes one back. Raises SnapshotError where any of them is not finite,
        and then adds nothing.
        """
        if self.half_life is not None:
            if at is None:
                raise SnapshotError("a state that forgets has to know when an event was")
            weight = weight * np.exp2((at - self.landmark) / self.half_life)
        if not all(np.isfinite(part).all() for part in (x, reward, weight)):
            raise SnapshotError("an event that is not finite cannot be learned from")
        row = np.array([self._row(arm) for arm in arms], dtype=np.intp)
        self._grow()
        by_arm = np.argsort(row, kind="stable")
        x, reward, weight = x[by_arm], reward[by_arm], weight[by_arm]
        rows, first = np.unique(row[by_arm], return_index=True)
        if not len(rows):
            return
        weighted = x * weight[:, None]
        self.moment[rows] += np.add.reduceat(weighted * reward[:, None], first)
        self.squares[rows] += np.add.reduceat(reward * reward * weight, first)
        self.count[rows] += np.add.reduceat(weight, first)
        # One product per arm: it stays in the cache, and is faster than all events' x xᵀ in one array.
        starts = first.tolist()
        for arm, start, stop in zip(rows.tolist(), starts, [*starts[1:], len(x)], strict=True):
            self.outer[arm] += (x[start:stop].T @ weighted[start:stop]).ravel()[self._upper]

    def forget_until(self, landmark: float) -> None:
        """Moves the landmark, in epoch seconds: what was learned counts as it does then."""
        if self.half_life is None or landmark == self.landmark:
            return
        fade = np.exp2((self.landmark - landmark) / self.half_life)
        for part in self._sums():
            part *= fade
        self.landmark = landmark

    def merge(self, other: State) -> None:
        """Adds the sums of another state. Raises SnapshotError where its contexts are encoded otherwise."""
        if (other.fingerprint, other.size) != (self.fingerprint, self.size):
            raise SnapshotError("states of different encodings cannot be added up")
        row = np.array([self._row(arm) for arm in other.rows], dtype=np.intp)
        self._grow()
        fade = 1.0
        if self.half_life is not None:
            fade = np.exp2((other.landmark - self.landmark) / self.half_life)
        for mine, theirs in zip(self._sums(), other._sums(), strict=True):
            np.add.at(mine, row, theirs * fade)

    def _row(self, arm: str) -> int:
        return self.rows.setdefault(arm, len(self.rows))

    def _grow(self) -> None:
        if (more := len(self.rows) - len(self.count)) > 0:
            self.outer = np.vstack([self.outer, np.zeros((more, self.outer.shape[1]))])
            self.moment = np.vstack([self.moment, np.zeros((more, self.size))])
            self.squares = np.concatenate([self.squares, np.zeros(more)])
            self.count = np.concatenate([self.count, np.zeros(more)])

    def _sums(self) -> tuple[Floats, ...]:
        return self.outer, self.moment, self.squares, self.count

    def to_bytes(self) -> tuple[str, bytes]:
        """(version, content) of a snapshot.

        The version is a hash of what was learned, whatever the order in which the arms were met. The
        content is the SHA-256 of the rest, then a compressed .npz without pickles.
        """
        arms = sorted(self.rows)
        rows = np.array([self.rows[arm] for arm in arms], dtype=np.intp)
        parts = {name: part[rows] for name, part in zip(_PARTS, self._sums(), strict=True)}
        meta = json.dumps(
            {
                "format": _FORMATS[-1],
                "fingerprint": self.fingerprint,
                "size": self.size,
                "arms": arms,
                "half_life": self.half_life,
                "landmark": self.landmark,
            }
        )
        packed = _packed({"meta": np.array(meta), **parts})
        return _version(meta, list(parts.values())), hashlib.sha256(packed).digest() + packed

    @classmethod
    def from_bytes(cls, content: bytes, version: str | None = None) -> State:
        """The state in a snapshot. Raises SnapshotError if it is truncated, altered or not finite, or, where
        its `version` is given, not of this version."""
        digest, packed = content[:_DIGEST], content[_DIGEST:]
        # Before anything is parsed: damaged archives fail in more ways than can be listed.
        if hashlib.sha256(packed).digest() != digest:
            raise SnapshotError("the snapshot is truncated or altered")
        try:
            with np.load(io.BytesIO(packed), allow_pickle=False) as file:
                parts = {name: file[name] for name in file.files}
            meta = json.loads(str(parts["meta"]))
            if meta["format"] not in _FORMATS:
                raise SnapshotError(f"snapshot format {meta['format']} is not known here")
            arms, size = meta["arms"], meta["size"]
            shapes = ((len(arms), size * (size + 1) // 2), (len(arms), size), (len(arms),), (len(arms),))
            sums = [parts[name] for name in _PARTS]
            if [(part.shape, part.dtype) for part in sums] != [(shape, np.float64) for shape in shapes]:
                raise SnapshotError("the snapshot has sums of another shape than it says")
            state = cls(meta["fingerprint"], size, meta.get("half_life"))
            state.landmark = float(meta.get("landmark", 0.0))
            state.rows = {arm: row for row, arm in enumerate(arms)}
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise SnapshotError("the snapshot cannot be read") from error
        if len(state.rows) != len(arms):
            raise SnapshotError("the snapshot has an arm twice")
        if version is not None and _version(str(parts["meta"]), sums) != version:
            raise SnapshotError("the snapshot is not of the version it is kept as")
        if not all(np.isfinite(part).all() for part in sums):
            raise SnapshotError("the snapshot has numbers that are not finite")
        state.outer, state.moment, state.squares, state.count = sums
        return state


def _packed(parts: dict[str, npt.NDArray[Any]]) -> bytes:
    """As `np.savez_compressed`, which asks zlib for level 6: four times the time for a tenth less."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in parts.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, part, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")  # of no time: equal states, equal bytes
            archive.writestr(entry, member.getbuffer(), zipfile.ZIP_DEFLATED, 4)
    return file.getvalue()


def _version(meta: str, sums: Sequence[Floats]) -> str:
    digest = hashlib.sha256(meta.encode())
    for part in sums:
        digest.update(part.tobytes())
    return digest.hexdigest()[:16]
