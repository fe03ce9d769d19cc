"""The peers, our package among them: a table of specs; a module is imported only in the process that measures it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from backprop_gpu.errors import ConfigError, did_you_mean

from .spec import TRAINING, PeerSpec

_THREE = ("relu", "tanh", "sigmoid")
PEERS = (  # ours first: the first that runs is what the others are compared with
    PeerSpec("ours", ".ours:Ours", {"kernels": "auto"}),
    PeerSpec("ours-reference", ".ours:Ours", {"kernels": "reference"}),
    PeerSpec("numpy", ".plain_numpy:PlainNumpy"),
    PeerSpec("sklearn", ".scikit:Scikit", {}, {"sklearn": "scikit-learn"}, activations=_THREE, adam="epsilon_hat"),
    PeerSpec("torch", ".pytorch:Torch", packages={"torch": "torch"}),
    PeerSpec("torch-compile", ".pytorch:Torch", {"compiled": True}, {"torch": "torch"}),
    PeerSpec("jax-jit", ".jax_nets:JaxSteps", packages={"jax": "jax"}),
    PeerSpec("jax-scan", ".jax_nets:JaxScan", packages={"jax": "jax"}, modes=TRAINING),
    PeerSpec(
        "onnxruntime",
        ".onnx_runtime:OnnxRuntime",
        packages={"onnx": "onnx", "onnxruntime": "onnxruntime"},
        modes=("inference",),
        activations=_THREE,
    ),
)


_JAX = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # it would take three quarters of the card
_TORCH, _JAXES = {"torch": "torch"}, {"jax": "jax"}


def device_peers(device: str) -> list[PeerSpec]:
    """The peers of a device (``"cuda"``, or ``"cpu"`` to try it out): in float32 on every workload, in a lower
    precision on b, which is almost all products. Ours first.
    """
    torch_device = "cuda" if device.startswith("cu") else "cpu"

    def spec(name: str, home: str, options: dict[str, Any], precision: str = "fp32", **more: Any) -> PeerSpec:
        only = () if precision == "fp32" else ("b",)
        return PeerSpec(name, home, options, precision=precision, workloads=only, **more)

    def ours(name: str, kernels: str, precision: str = "fp32", eager: bool = False, **more: Any) -> PeerSpec:
        return spec(name, ".ours:Ours", {"kernels": kernels, "device": device, "eager": eager}, precision, **more)

    def torch(mode: str, precision: str = "fp32") -> PeerSpec:
        name = f"torch-{mode}" if precision == "fp32" else f"torch-{mode}-{precision}"
        options = {"device": torch_device, "mode": mode, "precision": precision}
        return spec(name, ".torch_device:TorchOnDevice", options, precision, packages=_TORCH)

    def jax(name: str, peer: str, precision: str = "fp32") -> PeerSpec:
        options = {"precision": "highest" if precision == "fp32" else "tensorfloat32"}
        return spec(name, f".jax_nets:{peer}", options, precision, packages=_JAXES, variables=dict(_JAX))

    return [
        ours("ours-cuda", "cuda"),
        ours("ours-cuda-eager", "cuda", eager=True),
        ours("ours-cuda-tf32", "cuda-tf32", "tf32"),
        ours("ours-cuda-bf16", "cuda-bf16", "bf16"),
        ours("ours-reference", "reference"),
        ours("ours-reference-tf32", "reference", "tf32", variables={"CUPY_TF32": "1"}),
        spec("naive", ".naive:Naive", {"device": device}),
        *(torch(mode) for mode in ("graph", "compile", "eager")),
        jax("jax-scan", "JaxScan"),
        jax("jax-jit", "JaxOnDevice"),
        *(torch(mode, precision) for precision in ("tf32", "bf16") for mode in ("graph", "compile")),
        jax("jax-scan-tf32", "JaxScan", "tf32"),
    ]


def check_names(names: Iterable[str], known: Collection[str], kind: str = "peer") -> None:
    """Raise ConfigError for a name that is not known."""
    for name in names:
        if name not in known:
            raise ConfigError(f"no {kind} is called {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}")
