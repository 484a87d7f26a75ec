"""Global batches on meshes of devices: runs mesh_cases.py in a process that has eight."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("mesh_cases.py")


@pytest.mark.slow
@pytest.mark.processes
def test_the_cases_hold_on_eight_devices(tmp_path: Path) -> None:
    """The number of CPU devices is fixed when JAX starts, and all other tests want one."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    # No distribution inside of one: a worker of pytest-xdist hands its role down in the environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", str(CASES), "-q", "--tb=short", f"--basetemp={tmp_path / 'cases'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}", pytrace=False)
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
