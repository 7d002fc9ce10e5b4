"""``python -m training_reference train --data DIR --output DIR``: make the bundled weights from nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from .learn import LONG, SMOKE, Plan
from .train import train


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training_reference", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("train", help="train, calibrate, export and record all models")
    run.add_argument(
        "--data", type=Path, required=True, help="prepared folder, or folder of ZTF packets or tarballs"
    )
    run.add_argument("--foreign", type=Path, help="folder of inspected stamps of other surveys")
    run.add_argument("--test", type=Path, help="folder with decam, rubin and packets, to test by")
    run.add_argument("--kinds", type=Path, help="table of inspected kinds of bogus: row, kind")
    run.add_argument("--output", type=Path, required=True)
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--workers", type=int, help="processes; by default one per core")
    run.add_argument(
        "--smoke",
        action="store_true",
        help="a run of about a minute that proves the programs, not the models",
    )
    run.add_argument("--long", action="store_true", help="eight hours on two cores")
    run.add_argument("--limit", type=int, help="use the first alerts only")
    install = commands.add_parser(
        "install", help="put a run's weights, manifest, cards and table into the repository"
    )
    install.add_argument("run", type=Path)
    ablation = commands.add_parser("ablation", help="what each part of the recipe is worth")
    ablation.add_argument("run", type=Path, help="output of a finished train")
    ablation.add_argument("--data", type=Path, required=True, help="what the run was trained on")
    ablation.add_argument("--decam", type=Path, help="folder of the DECam set, to judge on")
    ablation.add_argument("--folds", type=int, default=3, help="how many of the run's folds")
    ablation.add_argument("--workers", type=int, help="processes; by default one per core")
    arguments = parser.parse_args()
    if arguments.command == "train":
        train(
            arguments.data,
            arguments.output,
            SMOKE if arguments.smoke else LONG if arguments.long else Plan(),
            foreign=arguments.foreign,
            test=arguments.test,
            kinds=arguments.kinds,
            seed=arguments.seed,
            workers=arguments.workers,
            limit=arguments.limit,
            resamples=50 if arguments.smoke else 1000,
        )
    elif arguments.command == "ablation":
        from .ablation import ablate

        ablate(arguments.run, arguments.data, arguments.decam, arguments.folds, arguments.workers)
    else:
        from .install import install as put

        put(arguments.run)


if __name__ == "__main__":
    main()
