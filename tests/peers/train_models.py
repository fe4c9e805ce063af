"""Run by the Python of `.venv-mlserver`: three models as MLServer loads them, and `expected.json` with
scikit-learn's own numbers on a few rows."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

ROWS = 7

random = np.random.default_rng(20240229)
expected: dict[str, dict[str, Any]] = {}


def keep(name: str, model: BaseEstimator, rows: Any, **parameters: str) -> None:
    folder = Path(name)
    folder.mkdir()
    joblib.dump(model, folder / "model.joblib")
    settings = {
        "name": name,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", **parameters},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings))
    expected[name] = {"rows": np.asarray(rows).tolist()}
    for output in ("predict", "predict_proba", "transform"):
        if hasattr(model, output):
            expected[name][output] = getattr(model, output)(rows).tolist()


numbers = random.normal(size=(500, 3))
churned = (numbers @ [1.0, -2.0, 0.5] + random.normal(size=500) > 0).astype(int)
keep("churn", LogisticRegression().fit(numbers, churned), random.normal(size=(ROWS, 3)), version="v1")

frame = pd.DataFrame(
    {
        "segment": random.choice(["gold", "öl", ""], 500),
        "orders": random.integers(0, 9, 500),
        "spent": random.normal(size=500),
        "vip": random.random(500) < 0.5,
    }
)
bought = (frame["segment"] == "gold") + 0.2 * frame["orders"] + frame["spent"] - frame["vip"] > 1
columns = make_pipeline(
    make_column_transformer((OneHotEncoder(), ["segment"]), remainder="passthrough"),
    LogisticRegression(max_iter=1000),
)
columns.fit(frame, bought.map({True: "buys", False: "leaves"}))
# Several tensors make a data frame: which MLServer does where the model says so.
keep("columns", columns, frame.head(ROWS), content_type="pd")

# NaN for a negative number.
keep("root", FunctionTransformer(np.sqrt), np.array([[0.5], [3.0]]))

Path("expected.json").write_text(json.dumps(expected))
