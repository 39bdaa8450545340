"""What is published: the wheel holds the package alone, and runs with its runtime dependencies alone."""

import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import symplectic_jepa as sj
from tests.helpers.paths import ROOT

RUNTIME = {"torch", "torchvision", "numpy", "einops", "typing-extensions"}


def clean_site(folder):
    """A folder of links to the runtime dependencies, and to what they need, and to nothing else."""
    folder.mkdir()
    todo, seen = list(RUNTIME), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        todo += [re.match(r"[\w.-]+", x)[0] for x in found.requires or [] if "extra ==" not in x]
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
    return folder


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_the_index_would_take_both(dist):
    files = sorted(dist.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("PASSED") == 2


def test_the_wheel_holds_the_package_alone(dist):
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = {name for name in names if ".dist-info/" not in name}
    source = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/symplectic_jepa").rglob("*.py")}
    assert package == source | {"symplectic_jepa/py.typed"}
    metadata = zipfile.ZipFile(wheel).read(next(n for n in names if n.endswith("/METADATA"))).decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    assert sorted(required) == ["einops", "numpy", "torch", "torchvision", "typing-extensions"]
    assert set(re.findall(r"^Provides-Extra: (\S+)", metadata, re.MULTILINE)) >= {"dev", "examples", "weights"}


def test_the_sdist_can_be_tested(dist):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert names >= {
        "Makefile",
        "constraints.txt",
        "CONTRIBUTING.md",
        "LICENSE",
        "tests/packaging/test_dist.py",
        "examples/train.py",
    }
    assert names >= {"benchmarks/workloads.py", "docs/recipes.md"}


@pytest.mark.slow
def test_the_wheel_installs_and_runs_the_readmes_example_with_runtime_dependencies_alone(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "clean")], check=True)
    python = str(tmp_path / "clean/bin/python")
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", purelib], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "dependencies.pth").write_text(str(clean_site(tmp_path / "dependencies")))
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)

    absent = (
        "from importlib.util import find_spec; assert not any(map(find_spec, ['pytest', 'matplotlib', 'safetensors']))"
    )
    where = "import symplectic_jepa; print(symplectic_jepa.__file__)"
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    code = f"{absent}\n{where}\n{snippet}"
    result = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(site)
    assert "prediction" in result.stdout


def test_versions_stand_in_one_place():
    assert f"version: {sj.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert metadata.version("symplectic-jepa") == sj.__version__


def test_the_workflow_runs_every_python_that_the_package_names():
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    run = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/ci.yml").read_text())[1]
    assert run.replace('"', "").split(", ") == named


def test_the_job_on_the_oldest_dependencies_installs_just_those():
    allowed = re.search(r"\ndependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    tested = re.findall(r"^[\w-]+==[\d.]+", (ROOT / ".ci/lowest.txt").read_text(), re.MULTILINE)
    assert [name.replace("==", ">=") for name in tested] == re.findall(r'"(.*)"', allowed)


def test_without_safetensors_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r'pip install "symplectic-jepa\[weights\]"'):
        sj.VarianceFloor().save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
