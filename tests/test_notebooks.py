"""Every notebook runs from top to bottom, a minute a cell at most, and is kept without outputs."""

import csv
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
DATA = sorted((FOLDER / "data").glob("*.csv"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "strip the outputs"
    shutil.copytree(FOLDER / "data", tmp_path / "data")
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()


@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_slices_of_public_data_are_small_and_attributed(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as lines:
        assert 0 < len(list(csv.DictReader(lines))) <= 300
    said = (path.parent / "README.md").read_text("utf-8")
    assert path.name in said
    assert "CC BY 4.0" in said
