"""Speed of sampling: `python -m benchmarks.sample [MODEL_DATA ...]`; `--help` lists the flags."""

from functools import partial

from benchmarks import command
from experiments import cli

if __name__ == "__main__":
    cli.run(partial(command.run, "sample"), "benchmarks.sample")
