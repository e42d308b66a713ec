"""Speed of the train step: `python -m benchmarks.train_step [MODEL_DATA ...]`; `--help` lists the flags."""

from functools import partial

from benchmarks import command
from experiments import cli

if __name__ == "__main__":
    cli.run(partial(command.run, "train_step"), "benchmarks.train_step")
