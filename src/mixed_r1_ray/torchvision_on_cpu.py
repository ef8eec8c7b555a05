"""Lets torchvision's CUDA wheel be imported beside a CPU build of torch.

The registry's torchvision wheel is compiled for CUDA. Beside a CPU torch its extension cannot load, so the operators
`nms` and `qnms` are never declared and `import torchvision` dies, and with it every Qwen2.5-VL and InternVL processor.
Nothing here calls these operators; declaring them is enough.

The declaration must happen in every process, bare children of vLLM included, so `python -m
mixed_r1_ray.torchvision_on_cpu` writes a `.pth` file that arms an import hook whenever Python starts. Where
torchvision's extension loads (a CPU build beside CPU torch, CUDA beside CUDA) the hook does nothing.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import sysconfig
from pathlib import Path

PTH_NAME = "mixed_r1_ray_torchvision.pth"
PTH_LINE = (
    "import importlib.util as u; "
    "s = u.find_spec('mixed_r1_ray'); "
    "s and __import__('mixed_r1_ray.torchvision_on_cpu', fromlist=['arm']).arm()\n"
)
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[object] = []  # keeps the torch.library.Library alive: its operators vanish with it


class _TorchvisionFinder:
    """Runs `declare_missing_operators` once, just before torchvision is first imported, then steps aside."""

    @staticmethod
    def find_spec(name: str, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(_TorchvisionFinder)
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None and spec.origin is not None:
                declare_missing_operators(Path(spec.origin).parent)
        return None


def arm() -> None:
    """Installs the import hook in this process."""
    if "torchvision" not in sys.modules and _TorchvisionFinder not in sys.meta_path:
        sys.meta_path.insert(0, _TorchvisionFinder)


def declare_missing_operators(torchvision_folder: Path) -> None:
    """Declares `nms` and `qnms` unless the compiled extension in `torchvision_folder` provides them."""
    import torch

    for extension in torchvision_folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
            return
        except (OSError, RuntimeError):
            continue  # built for another torch or for CUDA; torchvision itself ignores this too
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in OPERATORS:
        library.define(schema)
    _declared.append(library)


def install() -> Path:
    """Writes the `.pth` file into this environment's site-packages and returns its path."""
    pth = Path(sysconfig.get_paths()["purelib"]) / PTH_NAME
    pth.write_text(PTH_LINE)
    return pth


if __name__ == "__main__":
    print(f"wrote {install()}")
