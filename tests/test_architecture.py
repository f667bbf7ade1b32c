"""The imports point one way, files stay small, and one package alone opens videos."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "data_tools": {"data_tools"},
    "models": {"models", "data_tools.batch"},
    "pipeline": {"pipeline", "models", "data_tools"},
}
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; name the package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    allowed = PACKAGES[path.relative_to(ROOT).parts[0]]
    for name in imported(path):
        if name.split(".")[0] in PACKAGES:
            assert any(name == root or name.startswith(root + ".") for root in allowed), f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_only_media_opens_videos_and_only_processes_and_the_compiler_start_other_programs():
    data_tools = ROOT / "data_tools"
    starters = {data_tools / "processes.py", ROOT / "models" / "native" / "build.py"}
    for path in FILES:
        names = {name.split(".")[0] for name in imported(path)}
        if data_tools / "media" not in path.parents:
            assert not names & {"av", "ffmpeg", "imageio_ffmpeg"}, path
            assert "subprocess" not in names or path in starters, path


def test_pickle_is_not_used():
    for path in FILES:
        assert not {name.split(".")[0] for name in imported(path)} & {"pickle", "dill", "joblib", "cloudpickle"}, path
