"""Run by the Python of `.venv-feast`: a feature repository with three views, its online store filled."""

from datetime import UTC, datetime, timedelta

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

NOW = datetime.now(UTC).replace(microsecond=0)
SINCE = datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
account = Entity(name="account", join_keys=["account_id"], value_type=ValueType.INT64)


def view(
    name: str, entities: list[Entity], ttl: timedelta, rows: pd.DataFrame, **types: object
) -> FeatureView:
    rows.to_parquet(f"{name}.parquet")
    source = FileSource(name=f"{name}_rows", path=f"{name}.parquet", timestamp_field="event_timestamp")
    schema = [Field(name=field, dtype=dtype) for field, dtype in types.items()]
    return FeatureView(name=name, entities=entities, ttl=ttl, schema=schema, source=source)


profiles = pd.DataFrame(
    {
        "customer_id": ["anna", "ben", "cleo"],
        "event_timestamp": [NOW] * 3,
        "orders": [2**53 + 1, 0, 2],
        "visits": pd.array([1, -2, None], dtype="Int32"),
        "spent": [12.5, 0.1, float("nan")],
        "ratio": pd.array([0.5, 0.25, None], dtype="Float32"),
        "segment": ["gold", "", None],
        "vip": [True, False, True],
        "since": [SINCE, SINCE + timedelta(days=1), pd.NaT],
        "tags": [["a", "b"], [], None],
    }
)
old = pd.DataFrame({"customer_id": ["anna"], "event_timestamp": [NOW - timedelta(days=3)], "nps": [7]})
balances = pd.DataFrame(
    {"customer_id": ["anna"], "account_id": [7], "event_timestamp": [NOW], "balance": [7.25]}
)

views = [
    view(
        "profile",
        [customer],
        timedelta(days=1),
        profiles,
        orders=Int64,
        visits=Int32,
        spent=Float64,
        ratio=Float32,
        segment=String,
        vip=Bool,
        since=UnixTimestamp,
        tags=Array(String),
    ),
    view("old", [customer], timedelta(hours=1), old, nps=Int64),
    view("wallet", [customer, account], timedelta(days=1), balances, balance=Float64),
]
store = FeatureStore(".")
store.apply([customer, account, *views])
# The profile goes the usual way, from the offline store; `old` could not: materializing keeps to the ttl.
store.materialize(NOW - timedelta(hours=1), NOW + timedelta(minutes=1), feature_views=["profile", "wallet"])
store.write_to_online_store("old", old)
