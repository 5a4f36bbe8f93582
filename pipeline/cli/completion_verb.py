"""The verb `completion`: print what lets a shell complete verbs, options and files."""

from argparse import ArgumentParser, Namespace

from pipeline.cli.verb import Verb
from pipeline.console import answer

SHELLS = ("bash", "zsh", "fish")


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")


def _completion(args: Namespace) -> None:
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415 - keeps `moerank --help` fast

    answer(shellcode(["moerank"], shell=args.shell))


VERB = Verb(
    "completion",
    "print what lets a shell complete verbs, options and files",
    "moerank completion bash > ~/.local/share/bash-completion/completions/moerank",
    _arguments,
    _completion,
)
