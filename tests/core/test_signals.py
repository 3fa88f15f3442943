"""Signals: who takes them, when, and that everything is as before afterwards. Each test is a process of its own.

A program tells what it does by printing; what it prints to its standard error counts too, so a traceback or a warning
that nobody expected fails the test.
"""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests.helpers import Program, runPython

PREAMBLE = """
import functools, os, signal, sys, threading, time
from calandria import Reactor, defer, error
print = functools.partial(print, flush=True)
reactor = Reactor()
def noteShutdown():
    for phase in ("before", "during", "after"):
        reactor.addSystemEventTrigger(phase, "shutdown", print, phase)
"""


def program(code: str, backendName: str) -> Program:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PREAMBLE + code + "\nreactor.close()\nprint('end')"]
    return Program(command, env={"CALANDRIA_BACKEND": backendName})


def outcome(code: str, backendName: str = "") -> str:
    """What a program that ends by itself prints, line by line in one line; it must end well and complain of nothing."""
    done = runPython(
        PREAMBLE + code + "\nreactor.close()\nprint('end')",
        env={"CALANDRIA_BACKEND": backendName or None, "PYTHONDEVMODE": "1"},
        timeout=30,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    lines = done.stdout.split("\n")
    assert lines[-2:] == ["end", ""]
    return ", ".join(lines[:-2])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_theSignal_stopsASleepingReactor(backendName: str, number: signal.Signals) -> None:
    """A5."""
    code = """
noteShutdown()
reactor.callWhenRunning(print, "running")
reactor.run()
print("returned")
"""
    with program(code, backendName) as process:
        process.waitFor("running")
        assert process.stop(number) == 0
        assert process.output.split() == ["running", "before", "during", "after", "returned", "end"]


def test_theSignal_stopsABusyReactor_andTheCallbackEndsFirst(backendName: str) -> None:
    """L27: a first Ctrl-C never tears a callback apart."""
    assert (
        outcome(
            """
def busy():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
    print("callback done")
noteShutdown()
reactor.callLater(0, busy)
reactor.run()
""",
            backendName,
        )
        == "callback done, before, during, after"
    )


def test_aProgramMayRunAgain_andBeStoppedAgain() -> None:
    code = """
for life in (1, 2, 3):
    reactor.callWhenRunning(print, "life", life)
    reactor.run()
"""
    with program(code, "") as process:
        for life in (1, 2):
            process.waitFor(f"life {life}")
            process.process.send_signal(signal.SIGTERM if life == 1 else signal.SIGINT)
        process.waitFor("life 3")
        assert process.stop() == 0
        assert process.output.split("\n")[-2] == "end"


WAITING = """
never = defer.Deferred()
reactor.shutdownTimeout = None
noteShutdown()
reactor.addSystemEventTrigger("before", "shutdown", lambda: never)
reactor.addSystemEventTrigger("before", "shutdown", print, "waiting")
reactor.callWhenRunning(print, "running")
try:
    reactor.run()
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""


class TestSecondSignal:
    def test_aSecondSIGINT_leavesRun(self, backendName: str) -> None:
        """A5: as KeyboardInterrupt, at once, though the shutdown would wait for ever; the phases are gone through."""
        with program(WAITING, backendName) as process:
            process.waitFor("running")
            process.process.send_signal(signal.SIGINT)
            process.waitFor("waiting")
            assert process.stop(signal.SIGINT) == 0
            assert process.output.split() == [
                "running", "before", "waiting", "during", "after", "KeyboardInterrupt", "end",
            ]  # fmt: skip

    def test_aSecondSIGINT_insideACallback_leavesRun(self, backendName: str) -> None:
        """Also when it hits a callback that is stuck."""
        code = """
def stuck():
    print("stuck")
    time.sleep(60)
reactor.addSystemEventTrigger("before", "shutdown", reactor.callLater, 0, stuck)
"""
        with program(code + WAITING, backendName) as process:
            process.waitFor("running")
            process.process.send_signal(signal.SIGINT)
            process.waitFor("stuck")
            assert process.stop(signal.SIGINT) == 0
            assert process.output.split() == [
                "running", "before", "waiting", "stuck", "during", "after", "KeyboardInterrupt", "end",
            ]  # fmt: skip

    def test_aSecondSIGTERM_forcesTheNextPhase(self, backendName: str) -> None:
        """L05."""
        with program(WAITING, backendName) as process:
            process.waitFor("running")
            process.process.send_signal(signal.SIGTERM)
            process.waitFor("waiting")
            assert process.stop(signal.SIGTERM) == 0
            assert process.output.split() == ["running", "before", "waiting", "during", "after", "end"]

    def test_aThirdSignal_changesNothing(self) -> None:
        """L05: while the last phases, or the threads, take their time."""
        code = """
def slow():
    print("slow")
    while not go.wait(0.01):
        pass
go = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: go.set())
reactor.addSystemEventTrigger("during", "shutdown", slow)
"""
        with program(code + WAITING, "") as process:
            process.waitFor("running")
            process.process.send_signal(signal.SIGTERM)
            process.waitFor("waiting")
            process.process.send_signal(signal.SIGTERM)
            process.waitFor("slow")
            process.process.send_signal(signal.SIGTERM)
            assert process.stop(signal.SIGUSR1) == 0
            assert process.output.split() == ["running", "before", "waiting", "slow", "during", "after", "end"]


class TestStorms:
    def test_SIGTERMandSIGINTtogether(self, backendName: str) -> None:
        """L06: one orderly shutdown."""
        assert (
            outcome(
                """
noteShutdown()
def both():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
reactor.callLater(0, both)
reactor.run()
""",
                backendName,
            )
            == "before, during, after"
        )

    def test_manySIGTERMs_duringTheShutdown(self, backendName: str) -> None:
        """L06: no traceback, nothing twice, and it ends well."""
        code = """
def waits():
    deferred = defer.Deferred()
    print("waiting")
    reactor.callLater(0.05, deferred.callback, None)
    return deferred
reactor.addSystemEventTrigger("before", "shutdown", waits)
noteShutdown()
reactor.callWhenRunning(print, "running")
reactor.run()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("returned")
"""
        with program("signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n" + code, backendName) as process:
            process.waitFor("running")
            deadline = time.monotonic() + 20
            sent = 0
            # Past the end of the shutdown; one that comes after the handlers were put back ends the process.
            process.process.send_signal(signal.SIGTERM)
            process.waitFor("waiting")
            while sent < 10_000 and process.process.poll() is None and time.monotonic() < deadline:
                process.process.send_signal(signal.SIGTERM)
                sent += 1
            status = process.wait()
            told = ["running", "waiting", "before", "during", "after"]
            assert (status, process.output.split()) in ((0, [*told, "returned", "end"]), (-signal.SIGTERM, told))

    def test_theWakeupDescriptorSaturated(self, backendName: str) -> None:
        """L09: every distinct signal is handled, nothing is said about a full buffer, and the reactor calms down."""
        assert (
            outcome(
                """
handled = {signal.SIGUSR1: 0, signal.SIGUSR2: 0, signal.SIGCHLD: 0}
def handler(number, frame):
    handled[number] += 1
for number in handled:
    signal.signal(number, handler)
def storm():
    for _ in range(7000):
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGCHLD)
    os.kill(os.getpid(), signal.SIGUSR2)
    reactor.callLater(0.05, calm)
def calm():
    before = time.process_time()
    thread = threading.Timer(0.2, reactor.callFromThread, (after, before))
    thread.start()
def after(before):
    print("idle" if time.process_time() - before < 0.1 else "spins")
    reactor.stop()
reactor.callLater(0, storm)
reactor.run()
print(all(handled.values()))
""",
                backendName,
            )
            == "idle, True"
        )


class TestThreads:
    def test_aSignalForAWorkerThread_isHandledAtOnce(self, backendName: str) -> None:
        """L08: Python runs handlers in the main thread, which sleeps: the wakeup descriptor ends its sleep."""
        assert (
            outcome(
                """
def handler(number, frame):
    print("at once" if time.monotonic() - sent[0] < 1 else "late")
signal.signal(signal.SIGUSR1, handler)
sent = []
def worker():
    time.sleep(0.05)
    sent.append(time.monotonic())
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    time.sleep(0.05)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
thread = threading.Thread(target=worker)
reactor.callWhenRunning(thread.start)
reactor.callLater(60, print)
reactor.run()
thread.join()
print("stopped" if time.monotonic() - sent[0] < 2 else "late")
""",
                backendName,
            )
            == "at once, stopped"
        )

    def test_outsideTheMainThread_noneIsTaken(self, backendName: str) -> None:
        """L12, A5: run() works there all the same, asked for signal handlers or not."""
        assert outcome(
            """
def look():
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM))
    reactor.callLater(0, reactor.stop)
for wanted in (True, False, "force"):
    reactor.callWhenRunning(look)
    thread = threading.Thread(target=reactor.run, args=(wanted,))
    thread.start()
    thread.join()
""",
            backendName,
        ) == ", ".join(["True 0"] * 3)

    def test_onlyTheMainThreadsReactor_isStopped(self, backendName: str) -> None:
        code = """
other = Reactor()
thread = threading.Thread(target=other.run)
thread.start()
reactor.callWhenRunning(print, "running")
reactor.run()
answered = threading.Event()
other.callFromThread(answered.set)
print("still there" if answered.wait(20) else "gone")
other.callFromThread(other.stop)
thread.join()
other.close()
"""
        with program(code, backendName) as process:
            process.waitFor("running")
            assert process.stop() == 0
            assert process.output.split("\n") == ["running", "still there", "end", ""]


RESTORED = """
import socket
before, after = socket.socketpair()
before.setblocking(False)
signal.set_wakeup_fd(before.fileno(), warn_on_full_buffer=False)
def state():
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    return {number: signal.getsignal(number) for number in signal.valid_signals()}, wakeup
there = state()
"""


class TestRestoring:
    def test_everythingIsAsBefore(self) -> None:
        """L10: after a run that was stopped, that crashed, that an exception left, that was forced, and that failed."""
        assert (
            outcome(
                RESTORED
                + """
def leave():
    raise SystemExit(3)
def check(what):
    print(what, state() == there)
reactor.callLater(0, reactor.stop)
reactor.run()
check("stopped")
reactor.callLater(0, reactor.crash)
reactor.run()
check("crashed")
reactor.callLater(0, leave)
try:
    reactor.run()
except SystemExit:
    check("left")
reactor.callLater(0, os.kill, os.getpid(), signal.SIGTERM)
reactor.run()
check("signalled")
reactor.callLater(0, reactor.stop)
reactor.run("force")
check("forced")
reactor.callLater(0, reactor.stop)
reactor.run(installSignalHandlers=False)
check("without")
reactor.startRunning()
reactor.stop()
reactor.iterate()
check("hosted")
with Reactor() as another:
    another.startRunning()
check("closed by with")
signal.set_wakeup_fd(-1)
before.close()
after.close()
"""
            )
            == "stopped True, crashed True, left True, signalled True, forced True, without True, hosted True, "
            "closed by with True"
        )

    def test_whatAHostInstallsMeanwhile_stays(self) -> None:
        """Put back is what we took; a handler that a callback installs during the run is not ours to remove."""
        assert (
            outcome(
                """
def mine(number, frame):
    print("mine")
def install():
    signal.signal(signal.SIGTERM, mine)
    reactor.stop()
reactor.callLater(0, install)
reactor.run()
print(signal.getsignal(signal.SIGTERM) is mine)
"""
            )
            == "True"
        )


class TestHosts:
    def test_aHostsOwnHandlers_stay(self) -> None:
        """A5: and work; "force" takes them, and gives them back."""
        assert (
            outcome(
                """
def mine(number, frame):
    print("mine", signal.Signals(number).name)
signal.signal(signal.SIGINT, mine)
signal.signal(signal.SIGTERM, mine)
def kill():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    reactor.callLater(0, print, "still running")
    reactor.callLater(0.01, reactor.stop)
reactor.callLater(0, kill)
reactor.run()
reactor.callLater(0, os.kill, os.getpid(), signal.SIGTERM)
safety = reactor.callLater(20, print, "not stopped")
reactor.run("force")
safety.cancel()
os.kill(os.getpid(), signal.SIGINT)
"""
            )
            == "mine SIGINT, mine SIGTERM, still running, mine SIGINT"
        )

    def test_anIgnoredSignal_staysIgnored(self) -> None:
        """A program started in the background of a shell has SIGINT ignored, and is meant to."""
        assert (
            outcome(
                """
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def kill():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    reactor.callLater(0.01, print, "still running")
    reactor.callLater(0.02, reactor.stop)
reactor.callLater(0, kill)
reactor.run()
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
"""
            )
            == "still running, True True"
        )

    def test_unasked_noneIsTaken(self) -> None:
        assert (
            outcome(
                """
def look():
    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM))
    reactor.stop()
reactor.callLater(0, look)
reactor.run(installSignalHandlers=False)
"""
            )
            == "True 0"
        )

    def test_KeyboardInterrupt_ofAHostsHandlers_leavesRunInOrder(self) -> None:
        """With the host's default handler in place, Ctrl-C raises wherever the main thread is: A6 holds."""
        code = """
noteShutdown()
reactor.callWhenRunning(print, "running")
try:
    reactor.run(installSignalHandlers=False)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""
        with program(code, "") as process:
            process.waitFor("running")
            assert process.stop(signal.SIGINT) == 0
            assert process.output.split() == ["running", "before", "during", "after", "KeyboardInterrupt", "end"]

    def test_theyAreTakenAfterBeforeStartup(self) -> None:
        """C10: 'before startup' triggers may still use blocking calls as they know them."""
        assert (
            outcome(
                """
def look(what):
    print(what, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
reactor.addSystemEventTrigger("before", "startup", look, "before")
reactor.addSystemEventTrigger("during", "startup", look, "during")
reactor.addSystemEventTrigger("after", "shutdown", look, "after shutdown")
reactor.callWhenRunning(reactor.stop)
reactor.run()
look("returned")
"""
            )
            == "before True, during False, after shutdown False, returned True"
        )

    def test_aHostThatIterates_isStoppedToo(self) -> None:
        assert (
            outcome(
                """
noteShutdown()
reactor.startRunning()
os.kill(os.getpid(), signal.SIGTERM)
turns = 0
while reactor.running and turns < 10:
    reactor.iterate()
    turns += 1
print(turns < 10)
"""
            )
            == "before, during, after, True"
        )


def test_interruptsAtAnyMoment(backendName: str) -> None:
    """L27: many lives, each ended by one SIGINT at another moment: none is torn, nothing is lost or made twice."""
    assert (
        outcome(
            """
import random
chance = random.Random(27)
main = threading.main_thread().ident
made, wanted = [], 0
begun, ended = threading.Semaphore(0), threading.Semaphore(0)
def interrupt():
    for _ in range(200):
        begun.acquire()
        for _ in range(chance.randrange(2000)):
            pass
        signal.pthread_kill(main, signal.SIGINT)
        ended.acquire()
thread = threading.Thread(target=interrupt)
thread.start()
def again():
    calls[0].cancel()
    calls[0] = reactor.callLater(60, print)
    reactor.callFromThread(made.append, 0)
    global wanted
    wanted += 1
    reactor.callLater(0, again)
calls = [reactor.callLater(60, print)]
chain = reactor.callLater(0, again)
for _ in range(200):
    reactor.callWhenRunning(begun.release)
    reactor.run()
    ended.release()
thread.join()
print(len(made) == wanted, wanted > 200, len(reactor.getDelayedCalls()))
""",
            backendName,
        )
        == "True True 2"
    )


def test_sigInt_sigTerm_sigBreak(backendName: str) -> None:
    """B.1: the reactor's own handlers, for hosts that install handlers of their own."""
    assert (
        outcome(
            """
for name in ("sigInt", "sigTerm", "sigBreak"):
    reactor.callLater(0, getattr(reactor, name), signal.SIGTERM)
    safety = reactor.callLater(20, reactor.crash)
    reactor.run(installSignalHandlers=False)
    print(name, safety.active())
    safety.cancel()
""",
            backendName,
        )
        == "sigInt True, sigTerm True, sigBreak True"
    )
