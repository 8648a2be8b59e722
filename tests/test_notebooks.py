"""Every notebook runs from top to bottom, a minute a cell at most, and is kept without outputs."""

import csv
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from llmcost_plugins.routing import read_records

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
DATA = sorted((FOLDER / "data").glob("*.csv"))
RECORDS = sorted((FOLDER / "data").glob("*.jsonl.gz"))


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


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_recorded_answers_are_few_and_attributed(path: Path) -> None:
    assert 0 < len(read_records(path)) <= 300
    said = (path.parent / "README.md").read_text("utf-8")
    assert path.name in said
    assert "Apache License 2.0" in said
