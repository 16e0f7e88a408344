"""Results say with what they were made."""

import json
import shutil
import subprocess
import sys

import pytest

from icdm import provenance
from icdm.provenance import commit, in_words


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a folder without a repository."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "root/icdm").mkdir(parents=True)
    (tmp_path / "root/icdm/provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "root/icdm/provenance.py"))
    return tmp_path / "root"


def test_the_commit_is_that_of_the_checkout_and_says_whether_its_files_differ(package):
    assert commit() is None
    git(package, "init")
    git(package, "add", ".")
    git(package, "commit", "-m", "one")
    head = (package / ".git/refs/heads").rglob("*")
    (written,) = [path.read_text().strip() for path in head if path.is_file()]
    assert commit() == written and written in in_words()
    (package / "icdm/provenance.py").write_text("changed")
    assert commit() == f"{written}-dirty"


def test_a_repository_of_the_user_around_the_package_is_not_the_checkout(package):
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "the user's own")
    assert commit() is None


def test_it_is_the_same_in_another_process():
    code = "import json; from icdm.provenance import provenance; print(json.dumps(provenance()))"
    found = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    assert found == provenance.provenance() and found["versions"]["jax"] and found["machine"]["cores"] > 0
