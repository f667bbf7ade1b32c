"""The imports point one way and have no circle, files stay small, and one package alone opens videos."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "data_tools": {"data_tools"},
    "models": {"models", "data_tools.batch"},
    "pipeline": {"pipeline", "models", "data_tools"},
    "benchmarks": {"benchmarks", "pipeline", "models", "data_tools"},
}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imported(name):
    """Every module or name that the module imports, wherever in its file, but for type checking alone."""
    hidden = {
        inner
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(TREES[name]):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively; name the package"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_module(name):
    """The file of this project that `name` lies in, if any."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name


def import_graph():
    """Module -> modules of this project that its import executes: those that it names, and their packages."""
    graph = {}
    for name in FILES:
        needed = set()
        for target in filter(None, map(own_module, imported(name))):
            parts = target.split(".")
            needed |= {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)} & FILES.keys()
        # A module's own packages are being imported already when it begins.
        packages = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        graph[name] = needed - {name} - packages
    return graph


def test_imports_point_one_way():
    wrong = [
        f"{name} imports {target}"
        for name in FILES
        for target in imported(name)
        if target.split(".")[0] in ALLOWED
        and not any(target == root or target.startswith(f"{root}.") for root in ALLOWED[name.split(".")[0]])
    ]
    assert wrong == []


def test_no_circle_of_imports():
    try:
        list(TopologicalSorter(import_graph()).static_order())
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


def test_files_stay_small():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_only_media_opens_videos_and_only_processes_and_the_compiler_start_other_programs():
    starters = {"data_tools.processes", "models.native.build", "data_tools.media.ffmpeg"}
    for name in FILES:
        packages = {target.split(".")[0] for target in imported(name)}
        if name.startswith("benchmarks") or name.startswith("data_tools.media"):
            continue
        assert not packages & {"av", "ffmpeg", "imageio_ffmpeg"}, name
        assert "subprocess" not in packages or name in starters, name


def test_pickle_is_not_used():
    for name in FILES:
        packages = {target.split(".")[0] for target in imported(name)}
        assert not packages & {"pickle", "dill", "joblib", "cloudpickle"}, name


def test_code_that_comes_with_a_model_is_never_run():
    """Of every call that has transformers read or build something; one that leaves the choice open asks on stdin."""
    found = 0
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            attribute = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
            if attribute in {"from_pretrained", "from_config"} or (
                attribute == "pipeline" and any(target.startswith("transformers.pipeline") for target in imported(name))
            ):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("trust_remote_code") == "False", f"{name}, line {node.lineno}"
                found += 1
        assert "trust_remote_code=True" not in ast.unparse(tree), name
    assert found >= 4
