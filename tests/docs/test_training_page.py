"""The commands of docs/training.md run on small synthetic cohorts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import blocks_of

BLOCKS = [
    block.body
    for block in blocks_of("docs/training.md")
    if "run on small cohorts" in (block.note or "")
]


def test_the_training_commands_produce_bundles(tmp_path):
    block, local = BLOCKS
    lines = [line.split("#")[0].strip() for line in block.splitlines()]
    assert [line.split()[:2] for line in lines] == [
        ["m3h-model", "cohort"],
        ["m3h-model", "cohort"],
        ["m3h-model", "train"],
        ["m3h-model", "score"],
        ["m3h-model", "behaviour"],
        ["m3h-export", "runs/m3h-open"],
    ]
    config = tmp_path / "quick.toml"
    config.write_text("epochs = 1\nmembers = 2\n[net]\nwidth = 8\nimage_channels = [8]\n")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "M3H_DATA": str(tmp_path),
    }
    runs = tmp_path / "runs"
    for line in [*lines, *local.splitlines()]:
        small = re.sub(r"cohort (eicu|nih_cxr) ", "cohort synthetic ", line)
        # Recalibration refuses the patients that the bundle learned from.
        small = small.replace("cohort mimic_iv ", "cohort synthetic --masked ")
        if " train " in small:
            small += f" --config {config}"
        if "cohort synthetic" in small and "nih_cxr" in small:  # the same patients again
            shutil.copytree(runs / "eicu", runs / "nih_cxr")
            continue
        done = subprocess.run(
            small,
            check=False,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{small}: {done.stderr[-2000:]}"
    for name in ("m3h-open", "local"):
        assert (tmp_path / "bundles" / name / "manifest.json").is_file()
