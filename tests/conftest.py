"""What no test depends on: how busy the machine is, and how wide the terminal."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

os.environ["COLUMNS"] = "120"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
