"""How a network is made modular: numbers alone, without torch.

The paper gives modules and layers (§7.1: 1 × 16 for the MLP, 4 × 16 for ResNet-18, the last three blocks × 32 for VGG-16 and
ResNet-34) and no widths. With ρ = `ratio` a stage of C channels has modules of width h = max(4, ⌈C / ρ⌉) inside. `FORMS` have about the
original's size with all modules, and VGG-16's sub-models are of 3 to 25 M parameters, as in Fig. 13; k modules cost what the
original stage does at ρ of about 2.7 (k = 4, stages of four convolutions).
"""

from dataclasses import dataclass
from math import ceil

from schemas.modules import Modules

EACH, RUN = "each", "run"
LEAST = 4
"""No module is narrower."""


@dataclass(frozen=True)
class Form:
    """`modules` of a layer, N: N-1 shrunk ones and the residual one. `ratio`: ρ. `k` are active for a sample. `last`: only so many of
    the network's last stages become module layers; 0: all. `norm` of modules: "batch" or "group", which has no running statistics.
    `hidden` layers: "each" is a stage of its own but for the first, which is the stem; or a "run" of them is one, the first among them."""

    modules: int = 16
    ratio: float = 8.0
    k: int = 4
    last: int = 0
    norm: str = "batch"
    hidden: str = EACH

    def __post_init__(self) -> None:
        if self.modules < 2:
            raise ValueError(f"a layer has a shrunk module and the residual one at least, not {self.modules} modules")
        if not self.ratio >= 1:
            raise ValueError(f"ratio is how much narrower modules are, 1 at least, not {self.ratio}")
        if not 1 <= self.k <= self.modules:
            raise ValueError(f"k is 1 to {self.modules}, the modules of a layer, not {self.k}")
        if self.last < 0:
            raise ValueError(f"last is a number of stages, or 0 for all, not {self.last}")
        if self.norm not in ("batch", "group"):
            raise ValueError(f"norm must be batch or group, not {self.norm!r}")
        if self.hidden not in (EACH, RUN):
            raise ValueError(f"hidden must be each or run, not {self.hidden!r}")

    def width(self, channels: int) -> int:
        """h, inside the modules of a stage of so many channels."""
        return max(LEAST, ceil(channels / self.ratio))


FORMS = {
    "mlp": Form(),
    "resnet18": Form(),
    "resnet34": Form(modules=32, ratio=10, last=3),
    "vgg16": Form(modules=32, ratio=12, last=3),
}
"""By model (`learning/models.py`) at its full width. At width 16 a `ratio` of 4 is better: below `LEAST` nothing shrinks."""


def form_of(model: str, how: Modules) -> Form:
    """The form of a task's model: that of its name, or else the usual one, but for what the task says itself. Raises `ValueError` for
    what does not go together."""
    usual = FORMS.get(model, Form())
    return Form(
        modules=usual.modules if how.modules is None else how.modules,
        ratio=usual.ratio if how.ratio is None else how.ratio,
        k=min(usual.k, how.modules or usual.modules) if how.k is None else how.k,
        last=usual.last if how.last is None else how.last,
        norm=usual.norm if how.norm is None else how.norm,
        hidden=usual.hidden if how.hidden is None else how.hidden,
    )
