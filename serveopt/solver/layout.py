"""How one worker splits the model over its GPUs."""

from typing import NamedTuple


class Layout(NamedTuple):
    """Tensor, pipeline, attention-data, expert-tensor, expert and context parallel degrees."""

    tp: int = 1
    pp: int = 1
    attn_dp: int = 1
    moe_tp: int = 1
    moe_ep: int = 1
    cp: int = 1

    @property
    def n_gpus(self) -> int:
        """GPUs of one worker."""
        return self.tp * self.pp * self.attn_dp * self.cp

    def parallel(self, moe: bool) -> str:
        """The layout as users read it.

        >>> Layout(tp=4, pp=2).parallel(moe=False)
        'tp4pp2'
        """
        text = f"tp{self.tp}pp{self.pp}"
        if moe:
            text += f"dp{self.attn_dp}etp{self.moe_tp}ep{self.moe_ep}"
        return text + (f"cp{self.cp}" if self.cp > 1 else "")
