"""Examples under ``--help`` of every command that does not have its own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

# Under the command's words; each line is the rest of a command line, and what it does.
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("train flats.csv --set data.target=rent", "a model of a table"),
        ("report runs/*", "compare what was trained"),
        ("explain", "where the 1/m goes"),
    ),
    "train": (
        ("train", "the default network"),
        ("train flats.yaml --run-dir flats", "what a configuration says"),
        ("train flats.csv --set data.target=rent --set model.hidden=[64,32]", "a table, with settings"),
        ("train --resume flats", "go on after an interruption"),
    ),
    "evaluate": (
        ("evaluate flats", "the run's own test rows"),
        ("evaluate flats new.csv --json", "all rows of a labelled file"),
    ),
    "show": (("show flats", "how each column is read, and the network"),),
    "importance": (("importance flats", "on the run's own test rows"),),
    "predict": (
        ("predict flats new.csv --keep id", "to the terminal, with an identifier"),
        ("predict shop new.csv --proba --out predicted.csv", "with probabilities, to a file"),
    ),
    "gradcheck": (
        ("gradcheck", "the default network"),
        ("gradcheck flats.yaml --rows 4 --set model.activation=gelu", "a configuration with another activation"),
    ),
    "devices": (
        ("devices", "what was found"),
        ("devices --plan flats.yaml --set training.batch_size=512", "what a run would use"),
    ),
    "config": (("config list", "configurations to start from"), ("config show moons", "with every default")),
    "config validate": (("config validate flats.yaml", "one line if something is wrong"),),
    "config show": (("config show flats.yaml --set seed=1", "what a run would take"),),
    "config schema": (("config schema", "for an editor: save it as a file"),),
    "config list": (("config list", "their names and first lines"),),
    "parity": (
        ("parity run runs/flats --device cuda", "every tensor of a step"),
        ("parity diff moons --devices numpy,cupy:0", "two devices"),
    ),
    "parity run": (
        ("parity run moons --device cpu --steps 3", "three steps, each from the device's own state"),
        ("parity run runs/flats --save flats.case", "with the step for somewhere else"),
    ),
    "parity probe": (("parity probe moons --device cpu", "at the model's own shapes"),),
    "parity exact": (("parity exact moons --device cpu", "right to the last bit"),),
    "parity diff": (("parity diff moons --devices numpy,cupy:0", "which of them is wrong, if one is"),),
    "parity replay": (("parity replay flats.case", "without the device"),),
}


def add_examples(parser: argparse.ArgumentParser) -> None:
    """Put its examples before the epilog of each command."""
    for words, each in _commands(parser, ""):
        if words not in EXAMPLES:
            continue
        lines = [(f"  {parser.prog} {line}", text) for line, text in EXAMPLES[words]]
        width = max(len(line) for line, _ in lines)
        shown = "\n".join(["examples:", *(f"{line:{width}}  {text}" for line, text in lines)])
        each.epilog = shown + (f"\n\n{each.epilog}" if each.epilog else "")
        each.formatter_class = argparse.RawDescriptionHelpFormatter


def _commands(parser: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command by its words, verbs included."""
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                yield from _commands(each, f"{words} {name}".strip())
