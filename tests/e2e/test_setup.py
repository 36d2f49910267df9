"""The set-up script, with an interpreter and a uv that only note what they were asked for."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ("policies/lerobot_policy_tandem", "sim/lerobot_env_tandem")
BROKEN_SHIM = "#!/bin/sh\necho 'pyenv: python3.12: command not found' >&2\nexit 127\n"
UV = """#!/bin/sh
echo "$@" >> "{log}"
case "$1 $2" in
  "--version "*) echo "uv 9" ;;
  "venv "*) mkdir -p .venv/bin && ln -sf "{python}" .venv/bin/python ;;
  "pip install")
    if [ -e "{log}.fail" ]; then rm "{log}.fail"; exit 1; fi
    printf '#!/bin/sh\\necho 0\\n' > .venv/bin/tandem; chmod +x .venv/bin/tandem ;;
  "python install") exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder (with a space in its name) that holds what the script reads, and a PATH of its own."""
    root = tmp_path / "a checkout"
    (root / "scripts").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "scripts/setup.sh", root / "scripts")
    (root / "requirements.lock").write_text("uv==9\n")
    for project in (".", *PLUGINS):
        (root / project).mkdir(parents=True, exist_ok=True)
        (root / project / "pyproject.toml").write_text("[project]\n")
    write(tmp_path / "bin/uv", UV.format(log=tmp_path / "uv.log", python=sys.executable))
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def add_pyenv(root: Path) -> None:
    folder = root.parent / "home/.pyenv/versions/3.12.1/bin"
    write(folder / "python3.12", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')


def set_up(root: Path, *shims: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where the named interpreters are broken shims; of the system only plain tools are on PATH."""
    tools = root.parent / "tools"
    if not tools.exists():
        tools.mkdir()
        names = "awk bash cat chmod cmp cp date df dirname env flock grep ln mkdir mktemp mv pwd rm sh sort tail touch"
        for name in names.split():
            (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    for name in shims:
        write(root.parent / "bin" / name, BROKEN_SHIM)
    environment = {"PATH": f"{root.parent}/bin:{tools}", "HOME": str(root.parent / "home"), "TMPDIR": str(root.parent)}
    command = [str(root / "scripts/setup.sh")]
    return subprocess.run(
        command, cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def asked_of_uv(root: Path) -> list[str]:
    log = root.parent / "uv.log"
    lines = [line for line in log.read_text().splitlines() if line != "--version"]
    log.unlink()
    return lines


def test_a_shim_that_does_not_run_is_passed_over_for_pyenv(checkout):
    add_pyenv(checkout)
    done = set_up(checkout, "python3.12", "python3")
    assert done.returncode == 0, done.stderr
    calls = asked_of_uv(checkout)
    assert [call.split()[0] for call in calls] == ["venv", "pip", "pip"]
    assert f"--python {sys._base_executable} .venv" in calls[0]  # type: ignore[attr-defined]
    assert calls[2].endswith("--no-deps --editable . " + " ".join(f"--editable=./{plugin}" for plugin in PLUGINS))


def test_a_second_set_up_does_nothing(checkout):
    add_pyenv(checkout)
    set_up(checkout)
    asked_of_uv(checkout)
    done = set_up(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (checkout.parent / "uv.log").exists()


def test_a_changed_lock_file_is_installed_into_the_same_environment(checkout):
    add_pyenv(checkout)
    set_up(checkout)
    asked_of_uv(checkout)
    (checkout / "requirements.lock").write_text("uv==10\n")
    assert set_up(checkout).returncode == 0
    assert [call.split()[0] for call in asked_of_uv(checkout)] == ["pip", "pip"]


def test_a_changed_plugin_is_installed_anew(checkout):
    add_pyenv(checkout)
    set_up(checkout)
    asked_of_uv(checkout)
    (checkout / PLUGINS[0] / "pyproject.toml").write_text("[project]\nversion = '2'\n")
    assert set_up(checkout).returncode == 0
    assert [call.split()[0] for call in asked_of_uv(checkout)] == ["pip", "pip"]


def test_what_did_not_finish_is_built_afresh(checkout):
    add_pyenv(checkout)
    (checkout.parent / "uv.log.fail").touch()
    done = set_up(checkout)
    assert done.returncode == 1
    assert "could not be installed" in done.stderr
    asked_of_uv(checkout)
    (checkout / ".venv/half").touch()
    assert set_up(checkout).returncode == 0
    assert [call.split()[0] for call in asked_of_uv(checkout)] == ["venv", "pip", "pip"]
    assert not (checkout / ".venv/half").exists()
    assert not (checkout / ".venv.old").exists()


def test_without_any_python_it_says_what_to_install(checkout):
    done = set_up(checkout, "python3.12", "python3", "python")
    assert done.returncode == 1
    assert asked_of_uv(checkout) == ["python install 3.12"]
    assert "no working Python 3.12" in done.stderr
    assert "apt install" in done.stderr
    assert not (checkout / ".venv").exists()
