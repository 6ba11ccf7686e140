"""docs/cli.md says what the program does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from isofire.cli.app import app
from isofire.config import RunConfig, parse_config
from isofire.study import known_columns

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def test_the_configuration_shown_is_valid_and_shows_every_table():
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    values = tomllib.loads(example[1])
    parse_config(values, "cli.md")
    assert set(values) == set(RunConfig.__struct_fields__)
    uncommented = re.sub(r"^# ", "", example[1], flags=re.MULTILINE)
    found = parse_config(tomllib.loads(uncommented), "cli.md").data
    assert found is not None
    assert found.options == {"steps": 100, "step_us": 3000}


def test_every_command_is_listed():
    for name in app:
        assert name.startswith("-") or f"| `{name}" in PAGE


def test_every_column_is_explained():
    for column in known_columns():
        assert f"`{column}`" in PAGE or column.endswith("_fp")


def test_commands_shown_parse():
    shown = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    for line in shown[1].strip().splitlines():
        command, _, _ = app.parse_args(line.removeprefix("isofire ").split(), exit_on_error=False, print_error=False)
        assert command.__name__ == line.split()[1]
