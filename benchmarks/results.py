"""Regenerates the tables of docs/results.md that are made of searches and of predictors, by one command.

    .venv/bin/bonas data prepare nasbench201 --source FILE
    .venv/bin/bonas data prepare nasbench101-cells --source FILE
    .venv/bin/bonas data prepare nasbench101-surrogate --source FILE
    .venv/bin/python benchmarks/results.py [--only NAME ...] [--jobs N] [--out DIR]
    .venv/bin/python benchmarks/results.py --list

Each line of RUNS is a `bonas benchmark` with a folder of its own under DIR. The tables are printed as they come and
gathered in DIR/results.md. What was stopped goes on where it was when the command is given again, and what is there
already is only printed. All of it takes tens of hours of one core: `--only` picks some.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from bonas_core.errors import StoreError
from bonas_core.storage import make_folder, write_whole

_CIFAR100 = "--set evaluator.objective=cifar100_val_200 --set evaluator.test=cifar100_test_200"
_OURS = "bonas-all,bonas-ea,bonas-rs,bonas-rl,bonas-paper-ea,bonas-paper-rs"
_EVOLUTION = "re,re-real,re-nas-benchmarks,re-notebook,re-naszilla,re-autodl,re-repeats"
_OPEN_ENDED = f"--seeds 50 --methods {_OURS},random,{_EVOLUTION},local-search,bananas,optuna-tpe"
_CAPPED = "--seeds 50 --methods optuna-gp,weaknas --set budget.trials=200"
_NOISY = "--seeds 50 --methods bonas-all,re,local-search --set budget.trials=600 --set evaluator.objective"
_CELLS = "--space nasbench101 --seeds 20"
_SURROGATE = "--space nasbench101-surrogate --seeds 20"

RUNS = {
    "samples-cifar10": f"table2 {_OPEN_ENDED}",
    "samples-cifar10-capped": f"table2 {_CAPPED}",
    "samples-cifar100": f"table2 {_OPEN_ENDED} {_CIFAR100}",
    "samples-cifar100-capped": f"table2 {_CAPPED} {_CIFAR100}",
    "samples-12-epochs": f"table2 {_NOISY}=cifar10_val_12",
    "samples-one-seed-cifar10": f"table2 {_NOISY}=cifar10_test_200_oneseed",
    "samples-one-seed-cifar100": f"table2 {_NOISY}=cifar100_test_200_oneseed",
    "protocol": "protocol --seeds 20",
    "batches": "batches --seeds 50",
    "losses": "figure5 --seeds 20",
    "losses-surrogate": f"figure5 {_SURROGATE} --set budget.trials=400",
    "curves": "figure4 --seeds 20 --methods bonas-all,bonas-ea,bonas-rs,bonas-rl,re,local-search,bananas",
    "predictors": "table1 --seeds 10",
    "predictors-cells": "table1 --space nasbench101 --seeds 10",
    "scatter": "figure3",
    "cells": f"table2 {_CELLS} --methods bonas-all,bonas-ea,bonas-rs,re,local-search,random --set budget.trials=600",
    "cells-capped": f"table2 {_CELLS} --methods bonas-rl,bananas,weaknas --set budget.trials=200",
    "surrogate": f"table2 {_SURROGATE} --methods bonas-ea,bonas-all,random,re --set budget.trials=5000",
    "surrogate-600": f"table2 {_SURROGATE} --methods bonas-rs --set budget.trials=600",
    "surrogate-200": f"table2 {_SURROGATE} --methods bonas-rl,weaknas --set budget.trials=200",
    "transfer": f"transfer {_SURROGATE} --set budget.trials=2000",
}
"""What `bonas benchmark` is asked for, by the name of the folder."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Regenerates the tables of docs/results.md.")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME", help="some of --list")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--out", type=Path, default=Path(".bonas/results"), help="folder")
    parser.add_argument("--list", action="store_true", help="prints the commands and ends")
    arguments = parser.parse_args()
    if arguments.list:
        for name in arguments.only:
            print(f"{name}\n    bonas benchmark {RUNS[name]}")
        return 0
    try:
        make_folder(arguments.out, "--out")
    except StoreError as error:
        print(f"results: {error}", file=sys.stderr)
        return 2
    parts, failed = [], []
    for name in arguments.only:
        head = f"## {name}\n\n    bonas benchmark {RUNS[name]}\n"
        print(head, flush=True)
        own = [*shlex.split(RUNS[name]), "--jobs", str(arguments.jobs), "--out", str(arguments.out / name)]
        done = subprocess.run(
            [sys.executable, "-m", "flows.command", "benchmark", *own], stdout=subprocess.PIPE, text=True
        )
        print(done.stdout, flush=True)
        if done.returncode < 0 or done.returncode == 130:
            return 130  # interrupted: the rest was not asked for
        if done.returncode:
            failed.append(name)
        parts.append(f"{head}\n{done.stdout or 'failed'}")
        write_whole(arguments.out / "results.md", "\n".join(parts).encode())
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
