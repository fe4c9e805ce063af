"""The servers, each started once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from servers import HERE, Models, environment, free_ports, run, serving

FEATURE_STORE = """\
project: peers
provider: local
registry: registry.db
online_store:
  type: sqlite
  path: online.db
offline_store:
  type: file
entity_key_serialization_version: 3
"""


@pytest.fixture(scope="session")
def feast_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Feast feature server on the repository of `feast_repository.py`."""
    programs = environment("feast")
    folder = tmp_path_factory.mktemp("feast")
    (folder / "feature_store.yaml").write_text(FEATURE_STORE)
    run([programs / "python", HERE / "feast_repository.py"], folder)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with serving([programs / "feast", "serve", "-h", "127.0.0.1", "-p", str(port)], folder, f"{url}/health"):
        yield url


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    """An MLServer with the models of `train_models.py`."""
    programs = environment("mlserver")
    folder = tmp_path_factory.mktemp("mlserver")
    run([programs / "python", HERE / "train_models.py"], folder)
    http_port, grpc_port = free_ports(2)
    settings = {"host": "127.0.0.1", "http_port": http_port, "grpc_port": grpc_port}
    settings |= {"metrics_endpoint": None, "parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    url = f"http://127.0.0.1:{http_port}"
    with serving([programs / "mlserver", "start", "."], folder, f"{url}/v2/health/ready"):
        yield Models(url, json.loads((folder / "expected.json").read_text()))
