"""The GPUs that costs are told for: what their data sheets promise."""

from dataclasses import dataclass

# Dense bf16 FLOP/s by what the device calls itself.
PEAK_BF16 = {"A100": 312e12, "A800": 312e12, "H100": 989e12, "H200": 989e12, "H800": 989e12}


@dataclass(frozen=True)
class Gpu:
    """One kind of card (SXM), and the link to the host that it has."""

    name: str
    peak_bf16: float
    peak_fp32: float
    """FLOP/s outside the tensor cores."""
    memory: float
    """Bytes."""
    host_link: float
    """Bytes per second each way over PCIe x16, four fifths of the nominal rate: generation 4, or 5."""

    def peak(self, precision: str) -> float:
        """FLOP/s in matrix products."""
        return self.peak_bf16 if precision == "bf16" else self.peak_fp32


A800 = Gpu("A100/A800", PEAK_BF16["A100"], 19.5e12, 80e9, 25e9)
H100 = Gpu("H100", PEAK_BF16["H100"], 67e12, 80e9, 50e9)
H200 = Gpu("H200", PEAK_BF16["H200"], 67e12, 141e9, 50e9)
GPUS = (A800, H100, H200)
