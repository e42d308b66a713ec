"""Trains a config: `python -m experiments.train CONFIG --workdir DIR [--field value ...]`.

Running the same command again resumes; Ctrl-C saves and says how to go on.
"""

import dataclasses
import shlex
from argparse import Namespace
from collections.abc import Sequence

from experiments import cli, configs
from experiments.config import Config
from experiments.errors import UserError

__all__ = ["main"]

PROG = "python -m experiments.train"

AT_LEAST = {"steps": 0, "batch_size": 1, "seed": 0, "log_every": 1, "checkpoint_every": 1, "keep": 1}


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: the arguments.

    Returns:
        The exit code: 0 done, 1 the loss is no longer finite, 130 interrupted.

    Raises:
        UserError: for bad input.
    """
    name, args = _parse(argv)
    _check_fields(args.config)
    from experiments import devices, loop, runs

    _connect(args)
    devices.setup()
    parallel = args.parallel or loop.default_parallel()
    placement = devices.placement(parallel)
    run = runs.build(args.workdir, name, args.config)
    loop.check_batch(run, placement)
    with loop.owned(run):
        return loop.train(run, placement, parallel=parallel, again=shlex.join([*PROG.split(), *argv]))


def _parse(argv: Sequence[str]) -> tuple[str, Namespace]:
    """Name of the config and its flags; without a name there can only be `--help`."""
    name = _config_name(argv)
    if name is None:
        if {"-h", "--help"} & set(argv):
            _parser(f"{PROG} CONFIG", "Trains a config.", Config, epilog=_listing()).parse(["--help"])
        raise UserError(f"the config is missing: {PROG} CONFIG --workdir DIR (configs: {', '.join(configs.names())})")
    module = configs.load(name)
    parser = _parser(f"{PROG} {name}", module.__doc__ or "", module.Config, epilog=_datasets())
    rest = list(argv)
    rest.remove(name)
    return name, parser.parse(rest)


def _config_name(argv: Sequence[str]) -> str | None:
    """The config stands first; a known name is also found later."""
    if argv and not argv[0].startswith("-"):
        return argv[0]
    return next((argument for argument in argv if argument in configs.names()), None)


def _parser(prog: str, description: str, fields: type[Config], *, epilog: str) -> cli.Parser:
    usage = f"{prog} --workdir DIR [--field value ...]"
    parser = cli.Parser(prog, usage=usage, description=description, epilog=epilog)
    parser.add_argument("--workdir", required=True, metavar="DIR", help="run directory; made if it is not there")
    text = "how to use the devices: jit, pmap or mesh; pmap where there is more than one device"
    parser.add_argument("--parallel", choices=("jit", "pmap", "mesh"), help=text)
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 of several processes listens")
    parser.add_argument("--num-processes", type=int, metavar="int", help="number of processes")
    parser.add_argument("--process-id", type=int, metavar="int", help="number of this process, from 0")
    parser.add_arguments(fields, "config")
    return parser


def _listing() -> str:
    width = max(map(len, configs.names())) + 2
    lines = [f"  {name:{width}}{configs.summary(name)}" for name in configs.names()]
    return "\n".join(["configs (CONFIG --help shows all fields of one):", *lines, "", _datasets()])


def _datasets() -> str:
    from experiments import data

    return "\n".join(["data sets:", *(f"  {name:24}{text}" for name, text in data.describe().items())])


def _check_fields(config: Config) -> None:
    for name, least in AT_LEAST.items():
        if (value := getattr(config, name)) < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise UserError(f"--{field.name.replace('_', '-')} must be a finite number, got {value}")


def _connect(args: Namespace) -> None:
    """Joins the other processes of a run on several machines."""
    given = [args.coordinator, args.num_processes, args.process_id]
    if any(value is not None for value in given):
        if None in given:
            raise UserError("--coordinator, --num-processes and --process-id must be given together")
        import jax

        jax.distributed.initialize(args.coordinator, args.num_processes, args.process_id)


if __name__ == "__main__":
    cli.run(main, PROG)
