"""What no test depends on: how busy the machine is, how wide the terminal, and whether it is in the background."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

os.environ["COLUMNS"] = "120"
# Each client of HTTP reads it; all the authorities of the system would take 20 ms.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("authority.pem"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a script starts in the background


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
