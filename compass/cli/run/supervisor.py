"""Supervisor of `opengnsc run`: one command, its signals and its restarts.

All events arrive in one queue. Threads wait for them: one for signals, and those of `process`; the main thread alone
starts, signals and ends the command, and starts the next process after the whole tree of the one before has ended.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from queue import Empty, Queue

from compass.cli.run import state_machine
from compass.cli.run.dependency_env import DependencyEnvironment, Notes
from compass.cli.run.notify_socket import NotifySocket
from compass.cli.run.process import RunContext, RunOptions, SupervisedProcess
from compass.cli.run.process_tree import ProcessTree, become_reaper, has_terminal
from compass.cli.run.readiness import accepts
from compass.cli.run.registered_address import RegisteredAddress
from compass.cli.run.restart_policy import RestartCounter
from compass.cli.run.spawn import PYTHON_IGNORES
from compass.client.core.blocking_api import HostApi
from compass.model.exit_codes import ExitCode
from compass.model.names import format_endpoint
from compass.system.systemd import VARIABLES, SdNotify

STUCK_EVENTS = 100
"""Events in the queue; with more, the main thread hangs and no signs of life are sent."""
FROM_KERNEL = 0x80
"""SI_KERNEL of sigaction(2): the terminal sent the signal, to the whole foreground process group."""


class Supervisor:
    """Supervisor of one command, and of each process that replaces a process of it."""

    def __init__(self, api: HostApi, options: RunOptions, notes: Notes) -> None:
        # The manager wants signs of life from its main process, which may be a wrapper of this one.
        manager = SdNotify({name: value for name, value in options.environment.items() if name != "WATCHDOG_PID"})
        # The command is not the main process: the manager would refuse its messages, or worse, believe them.
        environment = {name: value for name, value in options.environment.items() if name not in VARIABLES}
        self._tree = ProcessTree()
        watchdog = NotifySocket(options.plan.watchdog_seconds, self._tree) if options.plan.watchdog_seconds else None
        environment |= watchdog.environment if watchdog is not None else {}
        address = RegisteredAddress(api, options.registrations)
        self._has_terminal = has_terminal()
        self._run = RunContext(
            api=api,
            options=options,
            environment=environment,
            notes=notes,
            manager=manager,
            events=Queue(),
            tree=self._tree,
            address=address,
            watchdog=watchdog,
            has_terminal=self._has_terminal,
        )
        service = options.registrations[0].service
        self._dependencies = DependencyEnvironment(api, service, options.dependencies_file, notes)
        self._signals: frozenset[int] = frozenset()
        self._stopped = False
        """True once a stop signal has come while no process ran."""

    def run(self) -> int:
        """Run the command until it ends for good. Returns the exit status."""
        options, manager = self._run.options, self._run.manager
        for several in self._run.address.endpoints():
            if options.check.accepts and any(accepts(endpoint) for endpoint in several):
                at = " or ".join(format_endpoint(*endpoint) for endpoint in several)
                self._run.notes.print_note(
                    f"another process accepts connections at {at}; end it, or choose another --port"
                )
                return ExitCode.CONFLICT
        become_reaper()
        self._signals = _block_signals()
        threading.Thread(target=self._await_signals, daemon=True).start()
        if self._run.watchdog is not None:
            self._run.watchdog.start()
        if manager.watchdog_seconds:
            threading.Thread(target=self._send_signs_of_life, daemon=True).start()
        self._run.environment.update(self._dependencies.variables())
        self._dependencies.start()
        restarts = RestartCounter(options.restart, options.restart_limit)
        while True:
            started = time.monotonic()
            process = SupervisedProcess(self._run)
            try:
                status = process.run()
            finally:
                self._end_tree()
            stopped = self._stopped or bool(process.state.forwarded & state_machine.STOP_SIGNALS)
            refused = process.state.exit_status is not None
            ran = time.monotonic() - started
            pause = None if stopped or process.could_not_start else restarts.pause(status, ran, refused=refused)
            if pause is None:
                if restarts.exhausted and not stopped:
                    self._run.notes.print_note(
                        f"the command ended {options.restart_limit + 1} times in a row: giving up"
                    )
                return status
            self._run.notes.print_note(f"restarting the command in {pause:g} s")
            manager.status("waiting to start again")
            if self._wait_for_stop(pause):
                return status

    def _end_tree(self) -> None:
        """End what the command has left behind, before anything else is started or this program ends."""
        left = self._tree.all()
        if not left:
            self._tree.reap_others(0)
            return
        several = f"{len(left)} processes" if len(left) > 1 else f"process {left[0]}"
        self._run.notes.print_note(f"the command has ended and left {several} behind: stopping")
        for pid in self._tree.end(state_machine.KILL_SECONDS, self._hurried):
            self._run.notes.print_note(f"process {pid} cannot be ended; it may still hold the port")

    def _hurried(self) -> bool:
        """Return whether a further stop signal has arrived."""
        while True:
            try:
                event = self._run.events.get_nowait()
            except Empty:
                return False
            if isinstance(event, state_machine.Signalled) and event.number in state_machine.STOP_SIGNALS:
                self._stopped = True
                return True

    def _wait_for_stop(self, seconds: float) -> bool:
        """Wait. Returns whether a stop signal ended the wait."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                event = self._run.events.get(timeout=left)
            except Empty:
                return False
            if isinstance(event, state_machine.Signalled) and event.number in state_machine.STOP_SIGNALS:
                return True
        return False

    def _await_signals(self) -> None:
        while True:
            seen = signal.sigwaitinfo(self._signals)
            if seen.si_signo == signal.SIGCHLD:
                self._run.events.put(None)
            elif not (seen.si_signo in PYTHON_IGNORES and seen.si_pid == os.getpid()):
                # Without a terminal the command has a group of its own, which no terminal has signalled.
                shared = seen.si_code == FROM_KERNEL and self._has_terminal
                self._run.events.put(state_machine.Signalled(seen.si_signo, shared=shared))

    def _send_signs_of_life(self) -> None:
        """Send signs of life to the service manager as long as the main thread takes events."""
        while True:
            if self._run.events.qsize() < STUCK_EVENTS:
                self._run.manager.alive()
            time.sleep(self._run.manager.watchdog_seconds)


def _block_signals() -> frozenset[int]:
    """Block the signals that `sigwaitinfo` receives from now on, but no ignored one. Returns those blocked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in PYTHON_IGNORES:
        # Ignored by the interpreter, not by the program that started this one.
        signal.signal(number, signal.SIG_DFL)
    taken = {number for number in state_machine.FORWARDED_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    taken.add(signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    return frozenset(taken)
