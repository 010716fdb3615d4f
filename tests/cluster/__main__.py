"""`python -m tests.cluster up|down|status|load|build|env`: the cluster from the command line."""

import argparse
import sys
from pathlib import Path

from tests.cluster import cluster, images
from tests.cluster.binaries import binary
from tests.cluster.cluster import Cluster, connect
from tests.cluster.console import ClusterError


def main() -> int:
    """Run one command; mistakes and failures are one message and exit status 1."""
    arguments = _parser().parse_args()
    try:
        return int(arguments.command(arguments) or 0)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _up(arguments: argparse.Namespace) -> None:
    _print_env(_connect(arguments))


def _down(arguments: argparse.Namespace) -> None:
    if arguments.kubeconfig:
        raise ClusterError("`down` only takes away what `up` made; it leaves the cluster of a kubeconfig alone.")
    cluster.down()


def _status(arguments: argparse.Namespace) -> int:
    if arguments.kubeconfig:
        print(_connect(arguments).kubectl("get", "nodes"), end="")
        return 0
    for name, pid in cluster.status().items():
        print(f"{name:<24} {'down' if pid is None else f'pid {pid}'}")
    print("up" if cluster.is_up() else "down")
    return 0 if cluster.is_up() else 1


def _load(arguments: argparse.Namespace) -> None:
    target_cluster = _connect(arguments)
    for target in arguments.targets:
        image = images.load(target, target_cluster.registry)
        print(f"{target}\t{image.reference}\t{image.digest}")


def _build(arguments: argparse.Namespace) -> None:
    images.prepare(*arguments.targets)


def _env(arguments: argparse.Namespace) -> None:
    if not arguments.kubeconfig and not cluster.is_up():
        raise ClusterError("The cluster is down: `python -m tests.cluster up` brings it up.")
    _print_env(_connect(arguments))


def _print_env(found: Cluster) -> None:
    """Says what a shell needs to be this cluster's: its address, and programs that few machines have."""
    folders = dict.fromkeys(str(each.parent) for each in (binary("kubectl"), binary("helm"), Path(sys.executable)))
    print(f"export KUBECONFIG={found.kubeconfig}\nexport REGISTRY={found.registry.host}")
    print(f"export PATH={':'.join(folders)}:$PATH")


def _connect(arguments: argparse.Namespace) -> Cluster:
    return connect(arguments.kubeconfig, arguments.registry)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    backend = argparse.ArgumentParser(add_help=False)
    backend.add_argument("--kubeconfig", default="", help="use this cluster instead of a node on this machine")
    backend.add_argument("--registry", default="", help="with --kubeconfig: HOST[:PORT] that the cluster pulls from")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    known = ", ".join([*images.TARGETS, *images.PROGRAMS])
    for name, command, what in (
        ("up", _up, "bring the node up (a healthy one is left as it is) and print its environment"),
        ("down", _down, "end what `up` started; images and programs stay in the cache"),
        ("status", _status, "say what runs; exit status 1 unless all is well"),
        ("load", _load, f"build and push images: {known}"),
        ("build", _build, f"build images and push none, so that a later `load` is quick: {known}"),
        ("env", _env, "print the environment: eval $(python -m tests.cluster env)"),
    ):
        added = commands.add_parser(name, help=what, description=what, parents=[backend])
        added.set_defaults(command=command)
        if name in {"load", "build"}:
            added.add_argument("targets", nargs="+", metavar="TARGET")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
