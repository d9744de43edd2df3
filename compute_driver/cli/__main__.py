"""`python -m compute_driver.cli`: the command `xenward`."""

from .main import run

run()
