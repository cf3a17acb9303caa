from __future__ import annotations

from pathlib import Path

import pytest

from ipo.task import FewShotTask
from tests.baselines.tiny import tiny_task


@pytest.fixture
def task(tmp_path: Path) -> FewShotTask:
    return tiny_task(tmp_path)
