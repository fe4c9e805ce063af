"""What a logged data set may look like, and what is said of one that cannot be used."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from decision.bakeoff.log import read_log
from decision.errors import Rejected

GOOD = "arm,reward,p,age\na,1,0.5,30\nb,0,0.25,\na,0.5,0.5,41\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, GOOD), "arm", "reward", "p")
    assert log.arms == ("a", "b")
    assert log.arm.tolist() == [0, 1, 0]
    assert log.reward.tolist() == [1, 0, 0.5]
    assert log.probability.tolist() == [0.5, 0.25, 0.5]
    assert log.columns == {"age": ("30", "", "41")}


def test_a_gzipped_csv_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(GOOD.encode("utf-8-sig")))
    assert read_log(path, "arm", "reward").arm.tolist() == [0, 1, 0]


def test_without_probabilities_each_arm_has_its_share(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, GOOD), "arm", "reward")
    assert log.probability == pytest.approx([2 / 3, 1 / 3, 2 / 3])
    assert "p" in log.columns


def test_a_limit_picks_rows_at_random_and_the_same_by_seed(tmp_path: Path) -> None:
    text = "arm,reward\n" + "".join(f"{'ab'[i % 2]},{i / 1000}\n" for i in range(1000))
    path = written(tmp_path, text)
    one, same, other = (read_log(path, "arm", "reward", limit=100, seed=seed) for seed in (1, 1, 2))
    assert len(one) == 100
    assert np.array_equal(one.reward, same.reward)
    assert not np.array_equal(one.reward, other.reward)
    assert one.reward.max() > 0.5


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        (GOOD.replace("arm,", "segment,"), "--arm", "no column 'arm' (there are: segment, reward, p, age)"),
        (GOOD.replace(",p,", ",q,"), "--probability", "no column 'p'"),
        (GOOD.replace("b,0", "b,x"), "reward", "row 2: 'x' is no number"),
        (GOOD.replace("b,0", "b,"), "reward", "row 2: '' should be a number, 0 or more"),
        (GOOD.replace("b,0", "b,-1"), "reward", "row 2: '-1' should be a number, 0 or more"),
        (GOOD.replace("0.25", "0"), "p", "row 2: what was logged cannot have had probability 0"),
        (GOOD.replace("0.25", "1.5"), "p", "row 2: '1.5' should be a number, between 0 and 1"),
        (GOOD.replace("0.25,", "0.25"), "DATA", "row 2 has 3 cells, the header has 4"),
        (GOOD.replace("age", "p"), "DATA", "has a column twice"),
        (GOOD.replace("b,", "a,"), "--arm", "needs two different arms or more, it has 1"),
        ("arm,reward,p\n", "--arm", "needs two different arms or more, it has 0"),
        ("", "--arm", "no column 'arm' (there are: none)"),
        ('arm,reward,p\n"a,1,1\n', "DATA", "cannot be read as CSV"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, field: str, says: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_log(written(tmp_path, text), "arm", "reward", "p")
    assert caught.value.code == "invalid_log"
    assert caught.value.errors[0].field == field
    assert says in caught.value.errors[0].message


def test_a_file_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(GOOD.encode())
    with pytest.raises(Rejected) as caught:
        read_log(path, "arm", "reward")
    assert "cannot be read as CSV" in caught.value.errors[0].message


def test_parquet_without_pyarrow_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Rejected) as caught:
        read_log(tmp_path / "log.parquet", "arm", "reward")
    assert "needs pyarrow" in caught.value.errors[0].message


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path = tmp_path / "log.parquet"
    write_table(
        arrow.table({"arm": ["a", "b"], "reward": [1.0, 0.0], "age": [30, None], "new": [True, False]}), path
    )
    log = read_log(path, "arm", "reward")
    assert log.reward.tolist() == [1, 0]
    assert log.columns == {"age": [30, None], "new": [True, False]}
    path.write_bytes(b"no parquet")
    with pytest.raises(Rejected) as caught:
        read_log(path, "arm", "reward")
    assert "cannot be read as Parquet" in caught.value.errors[0].message
