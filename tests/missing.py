"""What a test does where the machine lacks what it needs."""

import os
from typing import NoReturn

import pytest


def give_up(variable: str, reason: str) -> NoReturn:
    """Skip, or fail where the environment variable is 1: there, it is known to be present."""
    if os.environ.get(variable) == "1":
        pytest.fail(reason)
    pytest.skip(reason)
