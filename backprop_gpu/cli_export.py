"""``backprop-gpu export``: a trained model for other programs."""

from __future__ import annotations

import argparse

from .errors import DataError

_EXAMPLES = """\
examples:
  backprop-gpu export flats --to onnx --out flats.onnx        raw columns in, labels or values out: onnxruntime
  backprop-gpu export flats --to numpy --out flats.py         then: python flats.py rows.csv
  backprop-gpu export flats --to torch --out flats.safetensors   the weights of torch.nn.Sequential
"""


def add_export(parser: argparse.ArgumentParser) -> None:
    """Give the parser its options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument("run", help="run folder or model.safetensors")
    text = (
        "onnx: a graph with preprocessing and labels; numpy: a Python file that needs NumPy alone; torch: weights by "
        "PyTorch's names, as safetensors"
    )
    parser.add_argument("--to", choices=("onnx", "numpy", "torch"), required=True, help=text)
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write")
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from .export import to_numpy_file, to_onnx, to_torch_state
    from .model import load

    model = load(options.run, "cpu")
    try:
        if options.to == "torch":
            from safetensors.numpy import save

            from .atomic_file import replace_file

            with replace_file(options.out) as file:
                file.write(save(to_torch_state(model.net)))
        else:
            {"onnx": to_onnx, "numpy": to_numpy_file}[options.to](model, options.out)
    except OSError as error:
        raise DataError(f"cannot write {options.out}: {error.strerror}") from None
    print(options.out)
    return 0
