"""Play the scene: `python -m examples.scene [--once|--console] [--directory DIRECTORY]`, from the top of the checkout.

Exit status: 0 when every step was seen, 1 when one was not, 130 when it was interrupted in the middle.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.markup import escape

from compass.client.core.blocking_api import ApiProblem
from examples.scene.deployment import PROGRAMS, Deployment, SceneProblem
from examples.scene.play import Play, Step
from examples.scene.stir import PAUSE_SECONDS, stir

TOPOLOGY = Path(__file__).parents[1] / "uss.toml"
DIRECTORY = Path("var/scene")
TEXT_WIDTH = 102


def main() -> int:
    """Build, play, and unless it is played once, stay."""
    parser = argparse.ArgumentParser(prog="python -m examples.scene", description="A name service doing its job.")
    parser.add_argument("--once", action="store_true", help="end after the last step")
    parser.add_argument("--console", action="store_true", help="start all and let things happen, to be looked at")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where everything is kept (%(default)s)")
    given = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    # A supervisor's SIGTERM ends the scene as Ctrl-C does: with everything that it started.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        deployment = Deployment(given.directory, TOPOLOGY)
    except SceneProblem as problem:
        console.print(f"[red]{escape(str(problem))}[/]")
        return 1
    try:
        if given.console:
            return show_console(console, deployment)
        return play(console, deployment, once=given.once)
    except KeyboardInterrupt:
        console.print("\n[yellow]interrupted[/]")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        deployment.close()


def play(console: Console, deployment: Deployment, *, once: bool) -> int:
    """All steps; gives the exit status."""
    begun = time.monotonic()
    steps = Play(deployment).steps
    if not seen(console, deployment, steps):
        return 1
    console.print(f"\n[bold green]All {len(steps)} steps were seen[/] in {time.monotonic() - begun:.1f} s.")
    if not once:
        stay(console, deployment)
    return 0


def seen(console: Console, deployment: Deployment, steps: Sequence[tuple[str, Step]]) -> bool:
    """Play some steps; whether all of them were seen."""
    for number, (title, step) in enumerate(steps, 1):
        console.print(f"\n[bold]{number}  {escape(title)}[/]")
        try:
            for text, seconds in step():
                took = "" if seconds is None else f"{seconds * 1000:8.1f} ms"
                console.print(f"   [green]✓[/] {escape(text):<{TEXT_WIDTH}}[cyan]{took}[/]")
        except (SceneProblem, ApiProblem) as problem:
            console.print(f"   [red]✗ {escape(str(problem))}[/]")
            console.print(f"\nStep {number} was not seen. What each process said is in {deployment.directory}/logs.")
            return False
    return True


def show_console(console: Console, deployment: Deployment) -> int:
    """Start everything, say where the console is, and let something happen every few seconds until Ctrl-C."""
    if not seen(console, deployment, Play(deployment).steps[:2]):
        return 1
    console.print(
        f"""
The console of this scene (Ctrl-C ends it):

  https://{deployment.https_endpoint}/console/
  token of an administrator   {deployment.bearer("operator", "admin")}
  token of who only looks     {deployment.bearer("guest", "viewer")}

The browser warns of an authority that it does not know: that of this scene, in
{deployment.directory}/tls/authority.crt. Import it, or go on for this once. docs/reference/console.md says how.
""",
        markup=False,
    )
    try:
        for text in stir(deployment):
            console.print(f"   {escape(text)}")
            time.sleep(PAUSE_SECONDS)
    except KeyboardInterrupt:
        console.print("\nEnding everything that was started.")
    return 0


def stay(console: Console, deployment: Deployment) -> None:
    """Keep everything up until Ctrl-C, and say what can be tried."""
    scripts = {name: Path(sys.executable).with_name(name) for name in PROGRAMS}
    opengnsc, admin = scripts["opengnsc"], scripts["opengnsadmin"]
    web1 = deployment.hosts["web1"]
    living = next(serving for serving in reversed(deployment.serving) if serving.process.poll() is None)
    console.print(
        f"""
Everything stays up until Ctrl-C. In another terminal, try:

  export OPENGNS_API={web1.url} OPENGNSADMIN_CONFIG={deployment.directory}/opengnsadmin.toml
  {opengnsc} watch portal.web                 # and leave it running during the next ones
  {opengnsc} query portal.web
  {opengnsc} resolve chinaserver.openuss
  kill -9 {living.pid}                        # {living.service} at {living.endpoint}
  {admin} status
  {admin} log updates --last 10
  {admin} impact openuss
  {admin} lag
  {admin} token add me --role admin             # for the console: https://{deployment.https_endpoint}/console/
""",
        markup=False,
    )
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        console.print("\nEnding everything that was started.")


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
