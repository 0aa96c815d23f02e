"""A configuration in a file."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.settings.given import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration, given as text or as data, and return its file."""

    def write_file(content: Any) -> Path:
        file = tmp_path / "gateway.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return file

    (tmp_path / "secret").write_text("s")
    return write_file
