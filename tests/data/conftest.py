import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Each test has a cache folder of its own, and no settings from outside."""
    monkeypatch.setenv("IPO_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("IPO_DATA", raising=False)
    monkeypatch.delenv("IPO_OFFLINE", raising=False)


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("IPO_TEST_DATA")
    if not folder:
        pytest.skip("IPO_TEST_DATA does not name a folder with real datasets")
    return Path(folder)
