"""Names to addresses: the resolver in threads, and what becomes of one that misbehaves.

The world of these tests is a backend whose getaddrinfo the test holds in its hand; one test asks the real one.
"""

from __future__ import annotations

import gc
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from calandria import Reactor, defer, error
from calandria._resolver import THREADS, ThreadedResolver, asciiName, literal, resolve
from calandria.address import IPv4Address, IPv6Address
from tests.helpers import DEADLINE, runPython, runUntil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calandria.interfaces import HostResolution, ResolutionReceiver
    from tests.helpers import LogCapture

# What an own getaddrinfo answers: name to addresses.
Answers = dict[str, list[str]]


class World:
    """A getaddrinfo under control. Names in `held` wait until `release` is set."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.held: set[str] = set()
        self.begun: dict[str, threading.Event] = {}
        self.release = threading.Event()
        self.asked: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def hold(self, name: str) -> threading.Event:
        """Let `name` take until `release` is set; what is given is set when it has begun."""
        self.held.add(name)
        self.answers.setdefault(name, ["192.0.2.1"])
        self.begun[name] = threading.Event()
        return self.begun[name]

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        self.asked.append((host, port, family, type))
        self.threads.add(threading.current_thread().name)
        if host in self.held:
            self.begun[host].set()
            assert self.release.wait(DEADLINE)
        if host not in self.answers:
            return socket.getaddrinfo(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        found: list[Any] = []
        for each in self.answers[host]:
            sixth = ":" in each
            if family in (0, socket.AF_INET6 if sixth else socket.AF_INET):
                bare, _, scope = each.partition("%")
                where: tuple[Any, ...] = (bare, port, 0, int(scope or 0)) if sixth else (each, port)
                found.append((socket.AF_INET6 if sixth else socket.AF_INET, type, 6, "", where))
        return found


@pytest.fixture
def world(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world of `reactor`, whose threads have all ended in the end."""
    world = World()
    monkeypatch.setattr(reactor.backend, "getaddrinfo", world.getaddrinfo)
    yield world
    world.release.set()


class Receiver:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.thread: int | None = None

    def resolutionBegan(self, resolution: HostResolution) -> None:
        self.events.append(resolution.name)

    def addressResolved(self, address: Any) -> None:
        self.events.append(address)

    def resolutionComplete(self) -> None:
        self.thread = threading.get_ident()
        self.events.append("complete")


def outcome(reactor: Reactor, deferred: defer.Deferred[Any]) -> Any:
    """What a Deferred fires with: the result, or the exception."""
    results: list[Any] = []
    deferred.addCallbacks(results.append, lambda reason: results.append(reason.value))
    if not results:
        runUntil(reactor, lambda: results)
    return results[0]


def whenIdle(reactor: Reactor) -> None:
    """Wait for the resolver's threads to have done what there is to do."""
    resolver = reactor.nameResolver
    assert isinstance(resolver, ThreadedResolver)
    pool = resolver.pool()
    for thread in pool.threads:
        while thread in pool.working:
            thread.join(0.001)


# Calls that make no sense, and what is said of them.
SENSELESS: list[tuple[tuple[Any, ...], str]] = [
    (("", 1), "cannot be empty"),
    (("a\0b", 1), "cannot contain NUL"),
    (("a..b", 1), "1 to 63 characters"),
    (("a", 70000), "port must be 0-65535, not 70000"),
    (("a", 1, []), "IPv4Address, IPv6Address or both"),
    (("a", 1, [str]), "IPv4Address, IPv6Address or both"),
    (("a", 1, None, "SCTP"), "'TCP' or 'UDP'"),
]


class TestThreadedResolver:
    def test_localhost_isFound(self, reactor: Reactor) -> None:
        receiver = Receiver()
        reactor.nameResolver.resolveHostName(receiver, "localhost", 80)
        assert receiver.events == ["localhost"]
        runUntil(reactor, lambda: receiver.events[-1] == "complete")
        assert IPv4Address("TCP", "127.0.0.1", 80) in receiver.events
        assert receiver.thread == threading.get_ident()

    def test_addresses_comeInOrder_eachOnce(self, reactor: Reactor, world: World) -> None:
        world.answers["host"] = ["::2", "192.0.2.1", "::2", "::1"]
        receiver = Receiver()
        resolution = reactor.nameResolver.resolveHostName(receiver, "host", 7)
        assert resolution.name == "host"
        runUntil(reactor, lambda: receiver.events[-1] == "complete")
        assert receiver.events[1:-1] == [
            IPv6Address("TCP", "::2", 7),
            IPv4Address("TCP", "192.0.2.1", 7),
            IPv6Address("TCP", "::1", 7),
        ]
        assert world.threads == {"calandria resolver"}

    def test_scopes_areKept(self, reactor: Reactor, world: World) -> None:
        world.answers["host"] = ["fe80::1%1", "fe80::1%99999"]
        receiver = Receiver()
        reactor.nameResolver.resolveHostName(receiver, "host", 7)
        runUntil(reactor, lambda: receiver.events[-1] == "complete")
        name = socket.if_indextoname(1)
        assert receiver.events[1:-1] == [
            IPv6Address("TCP", f"fe80::1%{name}", 7, 0, 1),
            IPv6Address("TCP", "fe80::1%99999", 7, 0, 99999),
        ]

    @pytest.mark.parametrize(
        ("types", "family", "found"),
        [
            ([IPv4Address], socket.AF_INET, ["192.0.2.1"]),
            ([IPv6Address], socket.AF_INET6, ["::1"]),
            ([IPv4Address, IPv6Address], 0, ["::1", "192.0.2.1"]),
            (None, 0, ["::1", "192.0.2.1"]),
        ],
    )
    def test_kindsOfAddresses_canBeChosen(
        self, reactor: Reactor, world: World, types: Any, family: int, found: list[str]
    ) -> None:
        world.answers["host"] = ["::1", "192.0.2.1"]
        receiver = Receiver()
        reactor.nameResolver.resolveHostName(receiver, "host", 7, types, "UDP")
        runUntil(reactor, lambda: receiver.events[-1] == "complete")
        assert [(each.type, each.host) for each in receiver.events[1:-1]] == [("UDP", host) for host in found]
        assert world.asked == [("host", 7, family, socket.SOCK_DGRAM)]

    @pytest.mark.parametrize("name", ["127.0.0.1", "::1", "fe80::1%1", "fe80::1%nope"])
    def test_literals_needNoThread(self, reactor: Reactor, world: World, name: str) -> None:
        receiver = Receiver()
        reactor.nameResolver.resolveHostName(receiver, name, 7)
        assert receiver.events[0] == name
        assert receiver.events[-1] == "complete"
        assert len(receiver.events) == (2 if name.endswith("nope") else 3)
        assert world.asked == []
        only6 = Receiver()
        reactor.nameResolver.resolveHostName(only6, name, 7, [IPv6Address])
        assert len(only6.events) == (3 if name in ("::1", "fe80::1%1") else 2)

    @pytest.mark.parametrize(("arguments", "message"), SENSELESS)
    def test_whatMakesNoSense_isRefusedAtTheCall(
        self, reactor: Reactor, arguments: tuple[Any, ...], message: str
    ) -> None:
        receiver = Receiver()
        with pytest.raises(ValueError, match=message):
            reactor.nameResolver.resolveHostName(receiver, *arguments)
        assert receiver.events == []

    def test_slowNames_stopNeitherTheLoopNorThePool(self, reactor: Reactor, world: World) -> None:
        receivers = [Receiver() for _ in range(THREADS + 2)]
        for number, receiver in enumerate(receivers):
            world.hold(f"slow{number}")
            reactor.nameResolver.resolveHostName(receiver, f"slow{number}")
        for number in range(THREADS):
            assert world.begun[f"slow{number}"].wait(DEADLINE)
        assert len(world.asked) == THREADS
        done: list[int] = []
        reactor.callInThread(done.append, 1)
        runUntil(reactor, lambda: done)
        assert [receiver.events for receiver in receivers] == [[f"slow{n}"] for n in range(THREADS + 2)]
        world.release.set()
        runUntil(reactor, lambda: all(receiver.events[-1] == "complete" for receiver in receivers))

    def test_cancelled_itHearsNothing_andIsNotLookedUp(self, reactor: Reactor, world: World) -> None:
        receivers = [Receiver() for _ in range(THREADS + 1)]
        resolutions: list[HostResolution] = []
        for number, receiver in enumerate(receivers):
            world.hold(f"slow{number}")
            resolutions.append(reactor.nameResolver.resolveHostName(receiver, f"slow{number}"))
        for number in range(THREADS):
            assert world.begun[f"slow{number}"].wait(DEADLINE)
        # One that is being looked up, and one that still waits.
        resolutions[0].cancel()
        resolutions[-1].cancel()
        resolutions[0].cancel()
        world.release.set()
        runUntil(reactor, lambda: all(receiver.events[-1] == "complete" for receiver in receivers[1:-1]))
        world.answers["last"] = ["192.0.2.1"]
        last = Receiver()
        reactor.nameResolver.resolveHostName(last, "last")
        runUntil(reactor, lambda: last.events[-1] == "complete")
        assert receivers[0].events == ["slow0"]
        assert receivers[-1].events == [f"slow{THREADS}"]
        assert f"slow{THREADS}" not in [asked[0] for asked in world.asked]

    def test_cancellingAtTheFirstAddress_isTheEnd(self, reactor: Reactor, world: World) -> None:
        world.answers["host"] = ["192.0.2.1", "192.0.2.2"]

        class Contented(Receiver):
            def addressResolved(self, address: Any) -> None:
                super().addressResolved(address)
                resolution.cancel()

        receiver = Contented()
        resolution = reactor.nameResolver.resolveHostName(receiver, "host")
        runUntil(reactor, lambda: len(receiver.events) > 1)
        assert receiver.events == ["host", IPv4Address("TCP", "192.0.2.1", 0)]

    def test_aReceiverThatRaises_isLogged(self, reactor: Reactor, world: World, logs: LogCapture) -> None:
        world.answers["host"] = ["192.0.2.1", "192.0.2.2"]

        class Broken(Receiver):
            def addressResolved(self, address: Any) -> None:
                super().addressResolved(address)
                raise ZeroDivisionError("the receiver")

        receiver = Broken()
        reactor.nameResolver.resolveHostName(receiver, "host")
        runUntil(reactor, lambda: len(receiver.events) > 1)
        assert "the receiver" in logs.takeErrors()[0].message
        assert len(receiver.events) == 2

    def test_theEndOfARun_endsIt_andTheNextRunBeginsAnew(
        self, reactor: Reactor, world: World, logs: LogCapture
    ) -> None:
        begun = world.hold("slow")
        world.answers["fast"] = ["192.0.2.1"]
        receiver = Receiver()
        reactor.nameResolver.resolveHostName(receiver, "slow")
        assert begun.wait(DEADLINE)
        reactor.callWhenRunning(reactor.stop)
        reactor.run(installSignalHandlers=False)
        assert receiver.events == ["slow", "complete"]
        world.release.set()
        again = Receiver()
        reactor.nameResolver.resolveHostName(again, "fast")
        runUntil(reactor, lambda: again.events[-1] == "complete")
        assert again.events[1:-1] == [IPv4Address("TCP", "192.0.2.1", 0)]
        # The late answer of the first run is for nobody.
        assert receiver.events == ["slow", "complete"]
        assert logs.take(30) == []

    def test_whoAsksAgainAtTheEndOfARun_getsNothingAtOnce(self, reactor: Reactor, world: World) -> None:
        begun = world.hold("slow")
        second = Receiver()

        class Persistent(Receiver):
            def resolutionComplete(self) -> None:
                super().resolutionComplete()
                reactor.nameResolver.resolveHostName(second, "other")
                assert second.events == ["other", "complete"]

        receiver = Persistent()
        reactor.nameResolver.resolveHostName(receiver, "slow")
        assert begun.wait(DEADLINE)
        reactor.callWhenRunning(reactor.stop)
        reactor.run(installSignalHandlers=False)
        assert receiver.events == ["slow", "complete"]

    def test_theReason_isKept_butNotItsFrames(self, reactor: Reactor, world: World) -> None:
        receiver = Receiver()
        resolution: Any = reactor.nameResolver.resolveHostName(receiver, "nobody")
        runUntil(reactor, lambda: receiver.events[-1] == "complete")
        assert isinstance(resolution.error, socket.gaierror)
        assert resolution.error.__traceback__ is None

    def test_anAnswerBetweenTwoRuns_comesInTheNextOne(self, reactor: Reactor, world: World) -> None:
        for count in (1, 2):
            receiver = Receiver()
            begun = world.hold(f"slow{count}")
            reactor.nameResolver.resolveHostName(receiver, f"slow{count}")
            runUntil(reactor, begun.is_set)
            world.release.set()
            whenIdle(reactor)
            assert receiver.events == [f"slow{count}"]
            runUntil(reactor, lambda: receiver.events[-1] == "complete")  # noqa: B023  (it is run at once)
            world.release.clear()

    def test_close_endsIt(self, backendName: str, logs: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
        reactor = Reactor(backend=backendName)
        world = World()
        monkeypatch.setattr(reactor.backend, "getaddrinfo", world.getaddrinfo)
        begun = world.hold("slow")
        receiver = Receiver()
        resolver = reactor.nameResolver
        resolver.resolveHostName(receiver, "slow")
        results: list[Any] = []
        resolve(reactor, "slow", 80).addErrback(results.append)
        assert begun.wait(DEADLINE)
        (thread,) = [
            thread for thread in threading.enumerate() if thread.name == "calandria resolver" and thread.is_alive()
        ][:1]
        reactor.close()
        assert receiver.events == ["slow", "complete"]
        assert type(results[0].value) is error.DNSLookupError
        assert "the reactor was stopped" in str(results[0].value)
        world.release.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert receiver.events == ["slow", "complete"]
        after = Receiver()
        resolver.resolveHostName(after, "slow")
        assert after.events == ["slow", "complete"]
        assert logs.take(30) == []

    def test_withoutThreads_literalsStillWork(self, backendName: str) -> None:
        with Reactor(backend=backendName) as reactor:

            def callInThread(function: Callable[[], object]) -> None:
                raise RuntimeError("can't start new thread")

            reactor.backend.callInThread = callInThread  # type: ignore[method-assign]  # a world without threads
            found = outcome(reactor, resolve(reactor, "localhost", 80))
            assert type(found) is error.DNSLookupError
            assert "can't start new thread" in str(found)
            assert outcome(reactor, resolve(reactor, "::1", 80)) == [IPv6Address("TCP", "::1", 80)]
            ran: list[int] = []
            reactor.callFromThread(ran.append, 1)
            runUntil(reactor, lambda: ran)

    def test_aStuckLookup_doesNotKeepTheProcessAlive(self) -> None:
        done = runPython(
            "import threading\n"
            "from calandria import Reactor\n"
            "from calandria._resolver import resolve\n"
            "begun = threading.Event()\n"
            "with Reactor() as reactor:\n"
            "    def stuck(*args): begun.set(); threading.Event().wait()\n"
            "    reactor.backend.getaddrinfo = stuck\n"
            "    def begin():\n"
            "        resolve(reactor, 'host', 80).addErrback(lambda reason: print(reason.type.__name__))\n"
            "        begun.wait()\n"
            "        reactor.stop()\n"
            "    reactor.callWhenRunning(begin)\n"
            "    reactor.run()\n"
            "print('end')",
            timeout=DEADLINE,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "DNSLookupError\nend\n", "")

    def test_aLookup_leavesNoCycle(self, reactor: Reactor, world: World, logs: LogCapture) -> None:
        logs.keepToItself()
        world.answers["host"] = ["192.0.2.1"]
        results: list[Any] = []
        gc.collect()
        gc.disable()
        try:
            gone: list[weakref.ref[defer.Deferred[Any]]] = []
            for name in ("host", "nobody", "127.0.0.1"):
                deferred = resolve(reactor, name, 80, timeout=DEADLINE)
                gone.append(weakref.ref(deferred))
                deferred.addCallbacks(results.append, lambda reason: results.append(reason.type))
                del deferred
            runUntil(reactor, lambda: len(results) == 3)
            # The thread may still be on its way back from handing the result over.
            whenIdle(reactor)
            assert [each() for each in gone] == [None, None, None]
        finally:
            gc.enable()
        assert reactor.getDelayedCalls() == []


class TestResolve:
    def test_aName(self, reactor: Reactor, world: World) -> None:
        world.answers["host"] = ["::1", "192.0.2.1"]
        assert outcome(reactor, resolve(reactor, "host", 80)) == [
            IPv6Address("TCP", "::1", 80),
            IPv4Address("TCP", "192.0.2.1", 80),
        ]

    @pytest.mark.parametrize(
        ("host", "found"),
        [
            ("127.0.0.1", IPv4Address("TCP", "127.0.0.1", 80)),
            ("::1", IPv6Address("TCP", "::1", 80)),
            ("::ffff:127.0.0.1", IPv6Address("TCP", "::ffff:127.0.0.1", 80)),
            ("fe80::1%1", IPv6Address("TCP", "fe80::1%1", 80, 0, 1)),
            (
                f"fe80::1%{socket.if_indextoname(1)}",
                IPv6Address("TCP", f"fe80::1%{socket.if_indextoname(1)}", 80, 0, 1),
            ),
        ],
    )
    def test_aLiteral_isThereAtOnce(self, reactor: Reactor, world: World, host: str, found: Any) -> None:
        results: list[Any] = []
        resolve(reactor, host, 80).addBoth(results.append)
        assert results == [[found]]
        assert world.asked == []

    @pytest.mark.parametrize(
        ("host", "message"),
        [
            ("", "cannot be empty"),
            ("a\0b", "cannot contain NUL"),
            ("a" * 64, "1 to 63 characters"),
            ("a..b", "1 to 63 characters"),
            (".", "1 to 63 characters"),
            (".".join(["a" * 63] * 4) + ".b", "253 characters"),
            ("a" * 1_000_000, "253 characters"),
            ("ü" * 64, "no host name"),
            ("\ud800", "no host name"),
            ("fe80::1%nope", "no network interface 'nope'"),
            ("fe80::1%", "no network interface ''"),
            ("fe80::1%4294967296", "no network interface '4294967296'"),
            ("1::2::3", "neither a name nor an IPv6 address"),
            ("[::1]", "neither a name nor an IPv6 address"),
        ],
    )
    def test_whatCannotBeAName_isNotLookedUp(self, reactor: Reactor, world: World, host: str, message: str) -> None:
        found = outcome(reactor, resolve(reactor, host, 80))
        assert type(found) is error.DNSLookupError
        assert message in str(found)
        assert len(str(found)) < 300
        assert world.asked == []

    @pytest.mark.parametrize("host", [None, 7, b"localhost", ["localhost"]])
    def test_whatIsNoString_isATypeError(self, reactor: Reactor, host: Any) -> None:
        found = outcome(reactor, resolve(reactor, host, 80))
        assert type(found) is TypeError
        assert repr(host) in str(found)

    @pytest.mark.parametrize(
        ("port", "kind"),
        [
            (-1, ValueError),
            (65536, ValueError),
            ("65536", ValueError),
            (None, TypeError),
            (8.0, TypeError),
            (True, TypeError),
        ],
    )
    def test_whatIsNoPort_isSaid(self, reactor: Reactor, port: Any, kind: type[Exception]) -> None:
        found = outcome(reactor, resolve(reactor, "127.0.0.1", port))
        assert type(found) is kind
        assert "0-65535" in str(found)
        assert str(found).endswith(f"not {int(port) if isinstance(port, str) else port!r}")

    @pytest.mark.parametrize("host", ["127.0.0.1", "host"])
    def test_services_haveNumbers(self, reactor: Reactor, world: World, host: str) -> None:
        world.answers["host"] = ["127.0.0.1"]
        assert outcome(reactor, resolve(reactor, host, "http")) == [IPv4Address("TCP", "127.0.0.1", 80)]
        assert world.threads == {"calandria resolver"}
        assert outcome(reactor, resolve(reactor, host, "8080")) == [IPv4Address("TCP", "127.0.0.1", 8080)]

    @pytest.mark.parametrize("service", ["no-such-service", "", "ä", "a\0b", "x" * 100_000])
    def test_anUnknownService_isSaid(self, reactor: Reactor, service: str) -> None:
        found = outcome(reactor, resolve(reactor, "127.0.0.1", service))
        assert type(found) is error.ServiceNameUnknownError
        assert repr(service)[:50] in str(found)
        assert len(str(found)) < 300

    def test_services_withAForeignResolver(self, reactor: Reactor) -> None:
        reactor.installNameResolver(Odd(answerNothing))
        assert outcome(reactor, resolve(reactor, "127.0.0.1", "http")) == [IPv4Address("TCP", "127.0.0.1", 80)]

    def test_otherAlphabets_areAsciiOnTheWire(self, reactor: Reactor, world: World) -> None:
        world.answers["xn--bcher-kva.example"] = ["192.0.2.1"]
        assert outcome(reactor, resolve(reactor, "bücher.example", 80)) == [IPv4Address("TCP", "192.0.2.1", 80)]

    def test_noAddress_isAFailure_withTheReason(self, reactor: Reactor, world: World) -> None:
        found = outcome(reactor, resolve(reactor, "nobody.invalid", 80))
        assert type(found) is error.DNSLookupError
        assert "'nobody.invalid' could not be resolved" in str(found)
        assert isinstance(found.__cause__, socket.gaierror)
        world.answers["empty"] = []
        assert "it has no address" in str(outcome(reactor, resolve(reactor, "empty", 80)))

    def test_timeout_endsIt(self, reactor: Reactor, world: World) -> None:
        world.hold("slow")
        found = outcome(reactor, resolve(reactor, "slow", 80, timeout=0.01))
        assert type(found) is error.TimeoutError
        assert "'slow' was not resolved in 0.01 s" in str(found)

    def test_inTime_noTimerIsLeft(self, reactor: Reactor, world: World) -> None:
        world.answers["host"] = ["192.0.2.1"]
        outcome(reactor, resolve(reactor, "host", 80, timeout=DEADLINE))
        assert reactor.getDelayedCalls() == []

    def test_cancelling_endsIt(self, reactor: Reactor, world: World) -> None:
        begun = world.hold("slow")
        results: list[Any] = []
        deferred = resolve(reactor, "slow", "http")
        deferred.addBoth(results.append)
        runUntil(reactor, begun.is_set)
        deferred.cancel()
        assert type(results[0].value) is defer.CancelledError
        world.release.set()
        world.answers["host"] = ["192.0.2.1"]
        outcome(reactor, resolve(reactor, "host", 80))
        assert len(results) == 1


class Odd:
    """A resolver that does what the test says; the receiver is all that it gets."""

    def __init__(self, behaviour: Callable[[ResolutionReceiver], Any]) -> None:
        self.behaviour = behaviour

    def resolveHostName(
        self,
        receiver: ResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        return self.behaviour(receiver)


def answerNothing(receiver: ResolutionReceiver) -> Any:
    """A behaviour."""


class Resolution:
    """What a resolver returns."""

    name = "host"

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


GOOD = IPv4Address("TCP", "192.0.2.9", 80)


class TestForeignResolvers:
    @pytest.fixture
    def ask(self, reactor: Reactor) -> Callable[[Callable[[ResolutionReceiver], Any]], Any]:
        """Ask a resolver that behaves in some way; what comes of it, for which there is one chance."""

        def ask(behaviour: Callable[[ResolutionReceiver], Any]) -> Any:
            reactor.installNameResolver(Odd(behaviour))
            return outcome(reactor, resolve(reactor, "host", 80))

        return ask

    def test_aGoodOne(self, ask: Callable[..., Any]) -> None:
        def answer(receiver: ResolutionReceiver) -> Resolution:
            resolution = Resolution()
            receiver.resolutionBegan(resolution)
            receiver.addressResolved(GOOD)
            receiver.resolutionComplete()
            return resolution

        assert ask(answer) == [GOOD]

    def test_oneThatRaises(self, ask: Callable[..., Any]) -> None:
        def answer(receiver: ResolutionReceiver) -> Resolution:
            raise ZeroDivisionError("on purpose")

        found = ask(answer)
        assert type(found) is error.DNSLookupError
        assert "the resolver raised ZeroDivisionError: on purpose" in str(found)
        assert isinstance(found.__cause__, ZeroDivisionError)

    def test_oneThatRaises_havingAnswered(self, ask: Callable[..., Any]) -> None:
        def answer(receiver: ResolutionReceiver) -> Resolution:
            receiver.addressResolved(GOOD)
            receiver.resolutionComplete()
            raise ZeroDivisionError("too late")

        assert ask(answer) == [GOOD]

    @pytest.mark.parametrize("rubbish", [None, "192.0.2.1", 7, defer.succeed("192.0.2.1").result])
    def test_oneThatReturnsRubbish(self, ask: Callable[..., Any], rubbish: Any) -> None:
        def answer(receiver: ResolutionReceiver) -> Any:
            return rubbish

        found = ask(answer)
        assert type(found) is error.DNSLookupError
        assert f"the resolver returned {rubbish!r}" in str(found)

    @pytest.mark.parametrize(
        "rubbish",
        [None, "192.0.2.1", ("192.0.2.1", 80), IPv4Address("TCP", b"192.0.2.1", 80)],  # type: ignore[arg-type]
    )
    def test_oneThatGivesRubbish(self, ask: Callable[..., Any], rubbish: Any) -> None:
        resolution = Resolution()

        def answer(receiver: ResolutionReceiver) -> Resolution:
            receiver.resolutionBegan(resolution)
            receiver.addressResolved(GOOD)
            receiver.addressResolved(rubbish)
            receiver.addressResolved(rubbish)
            receiver.resolutionComplete()
            return resolution

        found = ask(answer)
        assert type(found) is error.DNSLookupError
        assert "which is no address" in str(found)
        assert resolution.cancelled == 1

    def test_oneThatAnswersTwice(self, ask: Callable[..., Any]) -> None:
        def answer(receiver: ResolutionReceiver) -> Resolution:
            for _ in range(2):
                receiver.addressResolved(GOOD)
                receiver.resolutionComplete()
            receiver.addressResolved(None)
            return Resolution()

        assert ask(answer) == [GOOD]

    def test_oneThatHasNothing(self, ask: Callable[..., Any]) -> None:
        def answer(receiver: ResolutionReceiver) -> Resolution:
            receiver.resolutionComplete()
            return Resolution()

        found = ask(answer)
        assert type(found) is error.DNSLookupError
        assert "it has no address" in str(found)

    def test_oneThatAnswersFromAnotherThread(self, ask: Callable[..., Any]) -> None:
        def answer(receiver: ResolutionReceiver) -> Resolution:
            def elsewhere() -> None:
                receiver.addressResolved(GOOD)
                receiver.resolutionComplete()

            threading.Thread(target=elsewhere).start()
            return Resolution()

        found = ask(answer)
        assert type(found) is error.DNSLookupError
        assert "answered in another thread" in str(found)

    def test_oneWhoseCancellingRaises(self, reactor: Reactor, logs: LogCapture) -> None:
        class Broken(Resolution):
            def cancel(self) -> None:
                raise ZeroDivisionError("cancel")

        reactor.installNameResolver(Odd(lambda receiver: Broken()))
        results: list[Any] = []
        deferred = resolve(reactor, "host", 80)
        deferred.addBoth(results.append)
        deferred.cancel()
        assert type(results[0].value) is defer.CancelledError
        assert len(logs.takeErrors()) == 1


@pytest.mark.parametrize(
    ("host", "name"),
    [("example.org", "example.org"), ("example.org.", "example.org."), ("bücher.example", "xn--bcher-kva.example")],
)
def test_asciiName(host: str, name: str) -> None:
    assert asciiName(host) == name


def test_literal_looksLikeOne() -> None:
    assert literal("127.1", 80) is None
    assert literal("1", 80) is None
    assert literal("127.0.0.1", 80, "UDP") == IPv4Address("UDP", "127.0.0.1", 80)


def test_theDefaultResolver_isOurs(reactor: Reactor) -> None:
    assert type(reactor.nameResolver) is ThreadedResolver
    assert reactor.nameResolver is reactor.nameResolver
