"""Process numbers of other PID namespaces: translated by what the kernel says, or refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from compass.system.machine import Machine, this_machine
from compass.system.process_numbers import (
    INVISIBLE,
    NO_PROCESS,
    SEARCHED_MAX,
    Caller,
    ForeignProcess,
    descriptor_of_peer,
    local_number,
    process_of_peer,
)
from tests.e2e.containers import NEEDS_NAMESPACES, UNSHARE

HERE = this_machine().processes


class Proc:
    """A proc file system with the processes of a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "self").symlink_to(str(os.getpid()))

    def add(self, numbers: list[int], parent: int, user: int = 1000) -> int:
        """A process with its numbers in our namespace and in those below."""
        own = self.directory / str(numbers[0])
        (own / "task" / str(numbers[0])).mkdir(parents=True)
        (own / "task" / str(numbers[0]) / "children").write_text("")
        users = "\t".join([str(user)] * 4)
        nested = "\t".join(map(str, numbers))
        (own / "status").write_text(f"Name:\tx\nPPid:\t{parent}\nUid:\t{users}\nNSpid:\t{nested}\n")
        above = self.directory / str(parent) / "task" / str(parent) / "children"
        if above.exists():
            above.write_text(above.read_text() + f"{numbers[0]} ")
        return numbers[0]


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """Process 10 of the host; a container with the first process 20, its children 21 and 22, and 23, a child of 21."""
    made = Proc(tmp_path)
    made.add([1], 0, user=0)
    made.add([10], 1)
    made.add([20, 1], 10)
    made.add([21, 7], 20)
    made.add([22, 8], 20)
    made.add([23, 9], 21)
    return made


@pytest.mark.parametrize(("number", "here"), [(7, 21), (1, 20), (8, 22), (9, 23)])
def test_a_number_of_the_callers_namespace_is_found_in_ours(proc: Proc, number: int, here: int) -> None:
    assert local_number(number, Caller(1000, 21), proc.directory) == here


def test_a_number_of_our_own_namespace_is_what_it_is(proc: Proc) -> None:
    assert local_number(22, Caller(1000, 10), proc.directory) == 22


def test_a_number_that_nobody_has_there_is_refused(proc: Proc) -> None:
    """Although we have a process of that number: it is another one."""
    with pytest.raises(ForeignProcess, match="finds no process 10"):
        local_number(10, Caller(1000, 21), proc.directory)


def test_a_program_that_was_sent_into_a_container_is_searched_from_itself(proc: Proc) -> None:
    """`docker exec`: its parent is outside, so the container's own processes cannot be found from it."""
    proc.add([30, 12], 10)
    assert local_number(12, Caller(1000, 30), proc.directory) == 30
    with pytest.raises(ForeignProcess):
        local_number(7, Caller(1000, 30), proc.directory)


def test_a_caller_that_we_cannot_see_is_refused(proc: Proc) -> None:
    with pytest.raises(ForeignProcess, match="--pid host"):
        local_number(10, Caller(1000, INVISIBLE), proc.directory)


@pytest.mark.parametrize("said", ["another boot/4026531836", "4026531836"])
def test_over_tcp_what_the_caller_says_of_itself_is_compared(said: str) -> None:
    with pytest.raises(ForeignProcess, match="another PID namespace"):
        local_number(os.getpid(), Caller(os.getuid(), NO_PROCESS, said))
    assert local_number(os.getpid(), Caller(os.getuid(), NO_PROCESS, HERE)) == os.getpid()
    assert local_number(os.getpid(), Caller(os.getuid(), NO_PROCESS)) == os.getpid(), "an older client says nothing"


def test_a_process_of_another_user_is_refused_unless_it_is_a_descendant(proc: Proc) -> None:
    """A supervisor may start a program that becomes another user's."""
    proc.add([40], 10, user=33)
    with pytest.raises(ForeignProcess, match="belongs to user 0, and user 1000 asks"):
        local_number(1, Caller(1000, NO_PROCESS), proc.directory)
    with pytest.raises(ForeignProcess):
        local_number(40, Caller(1000, 22), proc.directory)
    assert local_number(40, Caller(1000, 10), proc.directory) == 40
    assert local_number(40, Caller(0, NO_PROCESS), proc.directory) == 40, "root may name any process"
    assert local_number(40, Caller(-1, NO_PROCESS), proc.directory) == 40, "the kernel does not name the user"


def test_the_search_is_bounded(proc: Proc) -> None:
    """A process is found among SEARCHED_MAX, and not beyond."""
    for number in range(SEARCHED_MAX - 4):
        proc.add([1000 + number, 100 + number], 20)
    assert local_number(7, Caller(1000, 22), proc.directory) == 21
    proc.add([5000, 5000], 20)
    found = [number for number in (7, 9, 5000) if _is_found(number, proc)]
    assert found != [7, 9, 5000]


def _is_found(number: int, proc: Proc) -> bool:
    try:
        return bool(local_number(number, Caller(1000, 22), proc.directory))
    except ForeignProcess:
        return False


def test_a_proc_of_another_namespace_is_not_believed(proc: Proc) -> None:
    """The numbers in it are not ours."""
    (proc.directory / "self").unlink()
    (proc.directory / "self").symlink_to("999999")
    assert local_number(7, Caller(1000, 21), proc.directory) == 7


def test_the_kernel_names_the_process_of_a_unix_socket() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert process_of_peer(one) == os.getpid()
        descriptor = descriptor_of_peer(one)
        assert descriptor is not None
        os.close(descriptor)
    with socket.socket() as tcp:
        assert process_of_peer(tcp) == NO_PROCESS and descriptor_of_peer(tcp) is None


@NEEDS_NAMESPACES
def test_a_namespace_has_a_name_of_its_own() -> None:
    code = "from compass.system.machine import this_machine; print(this_machine().processes)"
    inside = subprocess.run([*UNSHARE, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    there = inside.stdout.strip()
    assert there.partition("/")[0] == HERE.partition("/")[0] and there != HERE


def test_machines_are_told_apart() -> None:
    here = Machine("boot", "ns", "id", "web1")
    assert here.has_processes_of(here._replace(host="web2", id=""))
    for other, words in (
        (here._replace(namespace="other"), "another PID namespace"),
        (here._replace(boot="other"), "started again, or on another machine"),
        (here._replace(boot="other", id="other"), "on another machine"),
        (Machine(), "older version"),
    ):
        assert not here.has_processes_of(other) and words in here.difference(other)
    assert not Machine().has_processes_of(Machine()), "what is not known is no proof"
