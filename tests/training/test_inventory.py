import json
import subprocess
import sys

from tandem_training import cli
from tandem_training.config import group_options
from tandem_training.inventory import take_inventory


def test_an_environment_is_described_by_its_embodiment():
    blockfind = take_inventory()["env"]["blockfind"]
    assert blockfind["id"] == "tandem/BlockFind-v0"
    assert blockfind["cameras"] == ["top 64x64 rgb8"]
    assert blockfind["action"][0] == "agent/dx (cell, -1..1, delta_step)"


def test_every_option_of_every_group_is_there_and_everything_can_be_imported():
    inventory = take_inventory()
    for group in ("policy", "preset", "stage", "trainer"):
        assert list(inventory[group]) == group_options(group)
    assert {"inprocess", "ros2"} <= set(inventory["backend"])
    assert "cannot be imported" not in json.dumps(inventory)


def test_the_list_fits_a_pipe_and_imports_no_torch():
    code = (
        "import sys; from tandem_training.cli import main; status = main(['list'])\n"
        "assert not {'torch', 'rclpy'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tinyvla/nano" in done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(done.stdout.split())
    assert "state: 48 numbers, torso (rad, -2.45..2.45) to right_gripper/force" in words
    assert next(at for at, line in enumerate(lines) if not line.strip()) < 70  # nine environments, on a page or two


def test_json_is_the_whole_inventory(capsys):
    assert cli.main(["list", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out) == take_inventory()
