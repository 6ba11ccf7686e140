from __future__ import annotations

import json
import os
import platform
from datetime import datetime, timedelta, timezone
from pathlib import Path

import torch

from isofire.study import environment
from isofire.study.environment import cpu_model, version


def test_versions_and_machine():
    found = environment()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert found["threads"] == torch.get_num_threads()
    assert (found["device"], found["gpu"]) == ("cpu", None)
    json.dumps(found, allow_nan=False)


def test_date_is_now_in_utc():
    date = datetime.fromisoformat(environment()["date"])
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - date) < timedelta(minutes=1)  # noqa: UP017


def test_no_names_of_people_and_places():
    text = json.dumps(environment())
    for secret in (platform.node(), str(Path.home()), os.getcwd()):
        assert not secret or secret not in text


def test_absent_package():
    assert version("no-such-package-by-any-means") is None


def test_cpu_has_a_name():
    assert cpu_model()
