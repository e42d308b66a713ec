"""What every command line shares: mistakes are one line on stderr and exit code 2, never a traceback."""

import re
import sys
from argparse import Action, Namespace
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from simple_parsing import ArgumentParser, DashVariant, SimpleHelpFormatter

from experiments.configs import suggestion
from experiments.errors import UserError

__all__ = ["Parser", "run"]

BAD_INPUT, INTERRUPTED = 2, 130


class _Help(SimpleHelpFormatter):
    """Help that may contain a percent sign, without defaults that say nothing."""

    def start_section(self, heading: str | None) -> None:
        """Leaves out where simple-parsing puts the fields."""
        super().start_section("fields" if heading and heading.endswith("['config']") else heading)

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        return super()._get_default_metavar_for_optional(action) if action.type else action.dest.upper()

    def _get_default_metavar_for_positional(self, action: Action) -> str:
        return super()._get_default_metavar_for_positional(action) if action.type else action.dest

    def _get_help_string(self, action: Action) -> str | None:
        if action.default is None:
            return (action.help or "").replace("%", "%%")
        return re.sub(r"%(?!\(default\))", "%%", super()._get_help_string(action) or "")


class Parser(ArgumentParser):
    """Flags from dataclasses (`add_arguments`) and from `add_argument`; dashes and underscores are the same.

    Every mistake is a `UserError` that names the flag and, where it is unknown, the closest one.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        """Takes the name of the command and `argparse.ArgumentParser`'s options."""
        options = {"allow_abbrev": False, "formatter_class": _Help, **options}
        super().__init__(prog=prog, add_option_string_dash_variants=DashVariant.DASH, **options)

    def error(self, message: str) -> NoReturn:
        """Raises the mistake instead of printing the usage and leaving."""
        raise UserError(" ".join(message.split()))

    def parse(self, argv: Sequence[str]) -> Namespace:
        """Parses a command line.

        Args:
            argv: the arguments, without the command's name.

        Returns:
            The namespace; `--help` prints and leaves with 0.

        Raises:
            UserError: for any mistake.
        """
        args, unknown = self.parse_known_args([_dashes(argument) for argument in argv])
        if unknown:
            flag = unknown[0].split("=")[0]
            kind = "flag" if flag.startswith("-") else "argument"
            known = [option for option in self._option_string_actions if option.startswith("--")]
            self.error(f"unknown {kind} {flag}{suggestion(flag, known)} (`{self.prog} --help` lists the flags)")
        return args


def _dashes(argument: str) -> str:
    """Writes the flag in `--some_flag=some_value` with dashes."""
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


def run(main: Callable[[Sequence[str]], int | None], prog: str) -> NoReturn:
    """Runs a command and leaves with its exit code.

    Args:
        main: takes the arguments and returns the exit code (`None` is 0).
        prog: name of the command, which begins every error line.
    """
    try:
        code = main(sys.argv[1:]) or 0
    except (UserError, OSError) as error:  # OSError: a full disk, a file that may not be written
        print(f"{prog}: {' '.join(str(error).split())}", file=sys.stderr)
        code = BAD_INPUT
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)
