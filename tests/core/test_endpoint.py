"""Endpoints: what a declaration must look like, its strings both ways, the methods made of it, and its description."""

from __future__ import annotations

import enum
import inspect
import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calandria import _spellings, _text
from calandria.plugin import (
    ClientEndpoint,
    DatagramClientEndpoint,
    DatagramServerEndpoint,
    LayerEndpoint,
    OctalMode,
    ServerEndpoint,
    Text,
    Transport,
)
from calandria.protocol import ClientFactory, DatagramProtocol

if TYPE_CHECKING:
    import types
    from collections.abc import Callable
    from ssl import SSLContext

Volume = NewType("Volume", int)


class Parity(enum.Enum):
    NONE = "N"
    EVEN = "E"
    ODD = "O"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


def parseRange(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last) + 1)


def formatRange(value: range) -> str:
    return f"{value.start}-{value.stop - 1}"


@dataclass(frozen=True)
class ConnectSerial(ClientEndpoint):
    """A serial port.   serial:/dev/ttyUSB0:baudrate=115200"""

    device: str
    baudrate: int = 9600
    parity: Literal["N", "E", "O"] = "N"

    def connect(self, reactor: Any, factory: Any) -> Any:
        return reactor, factory, self


@dataclass(frozen=True)
class ListenEverything(ServerEndpoint):
    """Every type that has a text."""

    host: str
    port: int | str
    number: int = 5
    real: float = 1.5
    flag: bool = False
    name: str = ""
    raw: bytes = b""
    path: Path = Path("/")
    pure: PurePosixPath | None = None
    parity: Parity = Parity.NONE
    size: Size | None = None
    choice: Literal["a", 1, "1", True, None, "none"] = "a"
    maybe: str | None = None
    limit: float | None = 30.0
    whole: int | None = None
    address: tuple[str, int] | None = None
    mode: Annotated[int, OctalMode] = 0o666
    some: Annotated[range, Text(parseRange, formatRange, "a range such as 1-5")] = range(1)
    volume: Annotated[Volume, "how loud"] = Volume(3)

    def listen(self, reactor: Any, factory: Any) -> Any:
        return reactor, factory, self


@dataclass(frozen=True)
class ListenSecret(ServerEndpoint):
    """Things that no string can say."""

    port: int
    context: SSLContext | None = None
    handler: Callable[[], None] | str = ""
    permission: Permission = Permission.READ
    table: dict[str, int] = field(default_factory=dict[str, int])
    first: types.SimpleNamespace | None = None
    password: str = field(default="", repr=False)
    note: str = field(default="", kw_only=True, metadata={"doc": "what for"})

    def listen(self, reactor: Any, factory: Any) -> Any:
        return reactor, factory, self


@dataclass(frozen=True)
class ListenPacket(DatagramServerEndpoint):
    port: int
    group: str = ""

    def listen(self, reactor: Any, protocol: Any) -> Any:
        return reactor, protocol, self


@dataclass(frozen=True)
class ConnectPacket(DatagramClientEndpoint):
    host: str
    port: int

    def connect(self, reactor: Any, protocol: Any) -> Any:
        return reactor, protocol, self


@dataclass(frozen=True)
class Shout(LayerEndpoint):
    """Louder."""

    volume: int = 11
    key: str | None = None

    def layer(self, reactor: Any, *, client: bool, below: Any) -> Any:
        return client, below


@dataclass(frozen=True)
class Whisper(LayerEndpoint):
    def layer(self, reactor: Any, *, client: bool, below: Any) -> Any:
        return client, below


transports = {
    "serial": Transport("Serial", connect=ConnectSerial),
    "every": Transport("Every", listen=ListenEverything, aliases=("all",)),
    "secret": Transport("Secret", listen=ListenSecret),
    "packet": Transport("Packet", listen=ListenPacket, connect=ConnectPacket),
    "shout": Transport("Shout", layer=Shout, aliases=("loud",)),
    "whisper": Transport("Whisper", layer=Whisper),
}
transports["all"] = transports["every"]
transports["loud"] = transports["shout"]


def find(name: str) -> Transport:
    return transports[name.partition("@")[0]]


def listening(text: str, **options: Any) -> Any:
    return _spellings.read(text, "listen", find, **options)


def connecting(text: str, **options: Any) -> Any:
    return _spellings.read(text, "connect", find, **options)


# Reading


def test_requiredFieldsArePositionalAndOptionsKeywords() -> None:
    assert connecting("serial:/dev/ttyUSB0") == ConnectSerial("/dev/ttyUSB0")
    assert connecting("serial:/dev/ttyUSB0:baudrate=115200:parity=E") == ConnectSerial("/dev/ttyUSB0", 115200, "E")
    assert connecting("serial:parity=O:device=/dev/ttyUSB0") == ConnectSerial("/dev/ttyUSB0", parity="O")


@pytest.mark.parametrize(
    ("text", "device"),
    [
        (r"serial:a\:b", "a:b"),
        (r"serial:a\=b", "a=b"),
        (r"serial:\\", "\\"),
        (r"serial:\[a]", "[a]"),
        ("serial:[::1]", "::1"),
        ("serial:[a=b:c\\]", "a=b:c\\"),
        ("serial:[[::1]:80]", "[::1]:80"),
        ("serial:[]", ""),
        ("serial:a[b", "a[b"),
        ("serial:device=a=b", "a=b"),
        ("serial:device=[a:b]", "a:b"),
        ("serial:device=", ""),
        (r"serial:\d\e", "de"),
        (r"serial:\<x>", "<x>"),
    ],
)
def test_theGrammar(text: str, device: str) -> None:
    assert connecting(text) == ConnectSerial(device)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("number=0", 0),
        ("number=-12", -12),
        ("real=0.25", 0.25),
        ("real=3", 3.0),
        ("real=1e-3", 0.001),
        ("real=inf", math.inf),
        ("flag=true", True),
        ("flag=off", False),
        ("flag=1", True),
        ("raw=é", "é".encode()),
        ("path=/etc", Path("/etc")),
        ("pure=a/b", PurePosixPath("a/b")),
        ("pure=none", None),
        ("parity=ODD", Parity.ODD),
        ("size=LARGE", Size.LARGE),
        ("choice=1", 1),
        ("choice=[1]", "1"),
        ("choice=true", True),
        ("choice=none", None),
        ("choice=[none]", "none"),
        ("maybe=none", None),
        ("maybe=[none]", "none"),
        (r"maybe=\none", "none"),
        ("maybe=nones", "nones"),
        ("limit=none", None),
        ("limit=2.5", 2.5),
        ("whole=7", 7),
        ("address=[127.0.0.1:80]", ("127.0.0.1", 80)),
        (r"address=127.0.0.1\:80", ("127.0.0.1", 80)),
        ("address=[[::1]:0]", ("::1", 0)),
        ("address=none", None),
        ("mode=600", 0o600),
        ("mode=0755", 0o755),
        ("some=2-4", range(2, 5)),
        ("volume=9", 9),
    ],
)
def test_theTypesThatHaveAText(option: str, value: object) -> None:
    endpoint = listening(f"every:host:80:{option}")
    found = getattr(endpoint, option.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


def test_aUnionIsReadByTheNarrowerType() -> None:
    assert listening("every:host:80").port == 80
    assert listening("every:host:http").port == "http"
    assert listening("every:host:[80]").port == "80"


def test_anAliasIsTheSameThing() -> None:
    assert listening("all:host:80") == listening("every:host:80")
    assert str(listening("all:host:80")) == "every:host:80"


# What is refused


def refusalOf(text: str, side: Literal["listen", "connect"]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its text is what is looked at
        _spellings.read(text, side, find)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("serial:x:baudrate=fast", "serial: baudrate takes a whole number, not 'fast'"),
        ("serial:x:baudrate=", "baudrate takes a whole number, not ''"),
        ("serial:x:parity=Q", "parity takes N, E or O, not 'Q'"),
        ("serial:x:baudrat=1", "no option 'baudrat'; did you mean 'baudrate'? (serial:device[:baudrate=…][:parity=…])"),
        ("serial:x:colour=red", "no option 'colour' (serial:device[:baudrate=…][:parity=…])"),
        ("serial", "no device given (serial:device[:baudrate=…][:parity=…])"),
        ("serial:", "no device given"),
        ("serial:x:9600", "'9600' is one argument too many, options are written key=value"),
        ("serial:x:", "'' is one argument too many"),
        ("serial:x:device=y", "device is given twice"),
        ("serial:x:parity=N:parity=N", "parity is given twice"),
        ("serial:x:=5", "an option without a name"),
        ("serial:x\\", "the backslash at the end makes nothing literal"),
        ("serial:[x", "there is none"),
        ("serial:[x]y", "where it must end"),
        ("serial:<Port>", "'<Port>' stands for a value that has no text"),
        ("shout:x", "shout is a layer, which goes over a transport: shout+tcp:…"),
        ("serial+packet:a:1", "serial is no layer"),
        ("shout+packet:a:1", "shout goes over streams, and packet carries datagrams"),
        ("shout+shout+serial:x", "only once"),
        ("shout+serial:x:shout.volum=3", "shout: no option 'volum'; did you mean 'volume'?"),
        ("shout+serial:x:shot.volume=3", "'shot.volume' is an option of nobody here; did you mean 'shout'?"),
        ("serial:x:shout.volume=3", "'shout.volume' is an option of nobody here"),
        ("shout+serial:x:volume=3", "serial: no option 'volume'"),
        ("every:x", "every can only listen, and this is to connect"),
    ],
)
def test_whatIsWrongWithAString(text: str, expected: str) -> None:
    assert expected in refusalOf(text, "connect")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        *[
            (f"number={text}", "number takes a whole number, not")
            for text in ("+5", "08", "1_0", " 5", "٣", "-0", "5.0")
        ],
        *[(f"real={text}", "real takes a number, not") for text in ("+1.5", "1_0.0", "NaN", "infinity", "1,5", "")],
        *[(f"flag={text}", "flag takes true or false, not") for text in ("True", "2", "y", "")],
        ("parity=EVN", "parity takes NONE, EVEN or ODD, not 'EVN'; did you mean 'EVEN'?"),
        ("choice=b", "choice takes a, 1, true or none, not 'b'"),
        ("size=none:limit=often", "limit takes a number or none, not 'often'"),
        ("mode=888", "mode takes a mode in octal, such as 660, not '888'"),
        ("mode=77777", "mode takes a mode in octal, such as 660, not '77777'"),
        ("some=x", "some takes a range such as 1-5, not 'x'; invalid literal for int()"),
        ("address=[::1]", "address takes host:port or none, not '::1'; an IPv6 address goes in brackets"),
        ("address=localhost", "not 'localhost'; the value goes in brackets: [127.0.0.1:0]"),
        ("address=[localhost:http]", "address takes host:port or none"),
    ],
)
def test_whatIsNoValue(option: str, expected: str) -> None:
    assert expected in refusalOf(f"every:host:80:{option}", "listen")


def test_aLongOrStrangeValueIsShownShortAndPlain() -> None:
    message = refusalOf(f"every:host:80:number={'9' * 5000}", "listen")
    assert len(message) < 200
    assert message.isascii() or "…" in message
    assert "\\x1b[2J" in refusalOf("every:host:80:number=\x1b[2J", "listen")
    assert "\\u0435" in refusalOf("every:host:80:number=\u0435", "listen")


def test_whatHasNoTextIsRefusedByName() -> None:
    assert refusalOf("secret:80:context=x", "listen") == (
        "secret: context takes none (or a value of type SSLContext, which has no text), not 'x'"
    )
    assert "permission takes a value of type Permission, which has no text" in refusalOf(
        "secret:80:permission=READ", "listen"
    )
    assert "table takes a value of type dict[str, int], which has no text" in refusalOf("secret:80:table=x", "listen")
    assert listening("secret:80:handler=x").handler == "x"
    assert "handler takes text (or a value of type" in refusalOf("secret:80:handler=<function>", "listen")


def test_whatTheDataclassRefusesIsSaidWithTheScheme() -> None:
    @dataclass(frozen=True)
    class Picky(ServerEndpoint):
        port: int

        def __post_init__(self) -> None:
            if self.port > 65535:
                raise ValueError(f"port must be 0-65535, not {self.port}")

        def listen(self, reactor: Any, factory: Any) -> Any: ...

    picky = Transport("Picky", listen=Picky)
    with pytest.raises(ValueError, match=r"^picky: port must be 0-65535, not 70000$"):
        _spellings.read("picky:70000", "listen", lambda name: picky)


def test_onlyWhatIsAllowedIsLookedUp() -> None:
    def never(name: str) -> Transport:
        raise AssertionError(name)

    assert connecting("serial:x", allowed={"serial"}) == ConnectSerial("x")
    assert connecting("shout+serial:x", allowed={"serial", "shout"})
    for text in ("serial:x", "shout+serial:x", "serial@other:x"):
        with pytest.raises(ValueError, match="is not allowed here; allowed: serial2, shout"):
            _spellings.read(text, "connect", never, {"shout", "serial2"})


# Writing


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (ConnectSerial("/dev/ttyUSB0", baudrate=115200), "serial:/dev/ttyUSB0:baudrate=115200"),
        (ConnectSerial("x", parity="N"), "serial:x"),
        (ConnectSerial("::1"), "serial:[::1]"),
        (ConnectSerial("a=b"), r"serial:a\=b"),
        (ConnectSerial("a:b]"), r"serial:a\:b]"),
        (ConnectSerial("[x]"), r"serial:\[x]"),
        (ConnectSerial(""), "serial:[]"),
        (ConnectSerial("<x>"), "serial:[<x>]"),
        (ListenEverything("h", 80, real=30.0), "every:h:80:real=30"),
        (ListenEverything("h", "80"), "every:h:[80]"),
        (ListenEverything("h", 80, maybe="none"), "every:h:80:maybe=[none]"),
        (ListenEverything("h", 80, limit=None), "every:h:80:limit=none"),
        (ListenEverything("h", 80, address=("::1", 0)), "every:h:80:address=[[::1]:0]"),
        (ListenEverything("h", 80, mode=0o600, flag=True), "every:h:80:flag=true:mode=600"),
        (ListenSecret(80, handler=print), "secret:80:handler=<builtin_function_or_method>"),
        (ListenSecret(80, table={"a": 1}, note="x"), "secret:80:table=<dict>:note=x"),
        (ListenSecret("80"), "secret:<str>"),  # type: ignore[arg-type]  # what nobody has checked yet
    ],
)
def test_theStringOfAnEndpoint(endpoint: object, text: str) -> None:
    assert str(endpoint) == text


def test_aSecretIsShownNowhere() -> None:
    endpoint = ListenSecret(80, password="hunter2")
    assert str(endpoint) == "secret:80:password=<str>"
    assert "hunter2" not in repr(endpoint)
    assert listening("secret:80:password=hunter2") == endpoint

    @dataclass(frozen=True)
    class Coded(ServerEndpoint):
        pin: int = field(repr=False)

        def listen(self, reactor: Any, factory: Any) -> Any: ...

    coded = Transport("Coded", listen=Coded)
    with pytest.raises(ValueError, match=r"pin takes a whole number, not what was given$"):
        _spellings.read("coded:hunter2", "listen", lambda name: coded)


def test_anEndpointThatNoTransportNamesIsShownAsItIs() -> None:
    @dataclass(frozen=True)
    class Louder(ConnectSerial):
        pass

    assert str(Louder("x")) == repr(Louder("x"))


text = st.text(max_size=8) | st.text(alphabet="[]\\:=.<>n1", max_size=8) | st.sampled_from(["none", "80", "true", "[]"])
everything = st.builds(
    ListenEverything,
    host=text,
    port=st.integers() | text,
    number=st.integers(min_value=-(10**99), max_value=10**99),
    real=st.floats(allow_nan=False),
    flag=st.booleans(),
    name=text,
    raw=st.binary(max_size=8),
    path=text.map(Path),
    pure=st.none() | text.map(PurePosixPath),
    parity=st.sampled_from(Parity),
    size=st.none() | st.sampled_from(Size),
    choice=st.sampled_from(["a", 1, "1", True, None, "none"]),
    maybe=st.none() | text,
    limit=st.none() | st.floats(allow_nan=False),
    whole=st.none() | st.integers(min_value=-(10**99), max_value=10**99),
    address=st.none() | st.tuples(text, st.integers(0, 65535)),
    mode=st.integers(0, 0o7777),
    some=st.builds(range, st.integers(0, 9), st.integers(10, 99)),
    volume=st.integers(0, 99).map(Volume),
)
unhurried = settings(deadline=None, max_examples=80)
layers = st.lists(
    st.builds(Shout, st.integers(0, 99), st.none() | text) | st.builds(Whisper), max_size=2, unique_by=type
)


@unhurried
@given(everything, layers)
def test_everyEndpointSurvivesItsString(endpoint: Any, around: list[LayerEndpoint]) -> None:
    for layer in around:
        endpoint = endpoint.over(layer)
    written = str(endpoint)
    back = listening(written)
    assert back == endpoint
    assert repr(back) == repr(endpoint)  # 1, True and 1.0 are equal
    assert str(back) == written


arguments = st.builds(_text.Argument, st.none() | st.sampled_from(["key", "a.b"]), text, st.booleans())


@unhurried
@given(st.lists(arguments, max_size=4))
@example([_text.Argument(None, ":]", True)])
def test_whatIsJoinedIsSplitAgain(given: list[_text.Argument]) -> None:
    scheme, back = _text.split(_text.join("scheme", given))
    assert scheme == "scheme"
    assert [each[:2] for each in back] == [each[:2] for each in given]
    assert all(each.literal for each, before in zip(back, given, strict=True) if before.literal and before.value)


def test_theWordNoneAmongWords() -> None:
    codec = _text.codecOf(Literal["none", "some"] | None)
    assert codec.parse("none", False) is None
    assert codec.parse("none", True) == "none"
    assert codec.format("none") == ("none", True)
    assert codec.format(None) == ("none", False)


def test_whatIsQuoted() -> None:
    assert _text.quoteStringArgument("a\\b:c=d[e]<f>") == r"a\\b\:c\=d\[e]<f>"
    assert _text.quoteStringArgument("<f>") == r"\<f>"


@unhurried
@given(text)
@example("<x>")
def test_quotedIsLiteral(value: str) -> None:
    assert connecting(f"serial:{_text.quoteStringArgument(value) or '[]'}") == ConnectSerial(value)
    assert connecting(f"serial:device={_text.quoteStringArgument(value)}") == ConnectSerial(value)


@unhurried
@given(st.text(max_size=30) | st.text(alphabet="[]\\:=.+x", max_size=12))
def test_whateverTheStringOnlyAValueErrorComesOut(value: str) -> None:
    try:
        connecting(f"serial:{value}")
    except ValueError:
        pass


# Layers


def test_layersStackOutermostFirst() -> None:
    endpoint = connecting("whisper+shout+serial:x:shout.volume=3:baudrate=1:serial.parity=E:shout.key=[a:b]")
    assert endpoint == ConnectSerial("x", 1, "E").over(Shout(3, "a:b")).over(Whisper())
    assert str(endpoint) == "whisper+shout+serial:x:baudrate=1:parity=E:shout.volume=3:shout.key=[a:b]"
    assert connecting("loud+serial:x:loud.volume=3") == ConnectSerial("x").over(Shout(3))


def test_aLayerAloneIsToldByItsOptions() -> None:
    assert str(Shout(3)) == "shout:volume=3"


def test_onlyLayersGoOver() -> None:
    with pytest.raises(TypeError, match="over\\(\\) takes a layer"):
        ConnectSerial("x").over(ConnectSerial("y"))  # type: ignore[arg-type]  # what is to be refused
    assert not hasattr(ListenPacket(1), "over")


def test_aLayerMayDoMoreThanALayerPerConnection() -> None:
    @dataclass(frozen=True)
    class Own(LayerEndpoint):
        def listenOver(self, below: Any, reactor: Any, factory: Any) -> Any:
            return "listen", below, reactor, factory

        def connectOver(self, below: Any, reactor: Any, factory: Any) -> Any:
            return "connect", below, reactor, factory

    Transport("Own", layer=Own)
    reactor: Any = object()
    factory: Any = ClientFactory()
    client, server = ConnectSerial("x"), ListenEverything("h", 1)
    connected: Any = client.over(Own()).connect(reactor, factory)
    assert connected == ("connect", client, reactor, factory)
    listened: Any = server.over(Own()).listen(reactor, factory)
    assert listened == ("listen", server, reactor, factory)


# Declarations


def problemsOf(name: Any = "Bad", **sides: Any) -> str:
    with pytest.raises(TypeError) as caught:
        Transport(name, **sides)
    return str(caught.value)


class TestADeclaration:
    @pytest.mark.parametrize("name", ["", "serial", "Se-rial", "Sérial", "9P", "A" * 33, 5, "Serial\n"])
    def test_itsName(self, name: Any) -> None:
        assert "the name must be a capital" in problemsOf(name, connect=ConnectSerial)

    def test_somethingToDo(self) -> None:
        assert problemsOf() == "Transport('Bad'): it needs listen=, connect= or layer="

    def test_everythingIsSaidAtOnce(self) -> None:
        problems = problemsOf("bad", listen=5, aliases="tls", api="banana")
        assert problems.count(";") == 3
        assert "aliases are a tuple of schemes in lower case, not 'tls'" in problems
        assert "api is the number of a version of the plugin interface, not 'banana'" in problems
        assert "listen= takes a subclass of ServerEndpoint or DatagramServerEndpoint, not 5" in problems

    def test_theRightBase(self) -> None:
        assert "connect= takes a subclass of ClientEndpoint or DatagramClientEndpoint" in problemsOf(
            connect=ListenPacket
        )
        assert "layer= takes a subclass of LayerEndpoint" in problemsOf(layer=ListenPacket)

    def test_aDataclass(self) -> None:
        class Plain(ServerEndpoint):
            port: int

            def listen(self, reactor: Any, factory: Any) -> Any: ...

        assert (
            problemsOf(listen=Plain) == "Transport('Bad'): Plain is no dataclass: put @dataclass(frozen=True) before it"
        )

    def test_aFrozenOne(self) -> None:
        @dataclass
        class Soft(ServerEndpoint):
            port: int

            def listen(self, reactor: Any, factory: Any) -> Any: ...

        assert "Soft can be changed, and endpoints are values" in problemsOf(listen=Soft)

    def test_aForgottenDecorator(self) -> None:
        class More(ConnectSerial):
            extra: int = 5

        assert "More has no @dataclass(frozen=True) of its own, so extra is no field" in problemsOf(connect=More)

    def test_itsMethod(self) -> None:
        @dataclass(frozen=True)
        class Idle(ServerEndpoint):
            port: int

        @dataclass(frozen=True)
        class Odd(ClientEndpoint):
            port: int

            def connect(self) -> Any: ...  # type: ignore[override]  # what is to be refused

        assert "Idle has no method listen(self, reactor, factory)" in problemsOf(listen=Idle)
        assert "Odd.connect must take (self, reactor, factory)" in problemsOf(connect=Odd)

    def test_namesThatAreTaken(self) -> None:
        @dataclass(frozen=True)
        class Clash(ServerEndpoint):
            factory: str

            def listen(self, reactor: Any, factory: Any) -> Any: ...

        assert "a field of Clash is called 'factory', which is something else" in problemsOf(listen=Clash)

    def test_itsConstructor(self) -> None:
        @dataclass(frozen=True, init=False)
        class Own(ServerEndpoint):
            port: int

            def __init__(self, where: str) -> None: ...

            def listen(self, reactor: Any, factory: Any) -> Any: ...

        problems = problemsOf(listen=Own)
        assert "Own is made with (where: 'str')" in problems
        assert problems.endswith("which are not its fields (port)")

    def test_aLayersFieldsAllHaveDefaults(self) -> None:
        @dataclass(frozen=True)
        class Needy(LayerEndpoint):
            key: str

            def layer(self, reactor: Any, *, client: bool, below: Any) -> Any: ...

        @dataclass(frozen=True)
        class Idle(LayerEndpoint):
            pass

        @dataclass(frozen=True)
        class Odd(LayerEndpoint):
            def layer(self, reactor: Any) -> Any: ...  # type: ignore[override]  # what is to be refused

        assert "every field of a layer needs a default, and Needy has none for key" in problemsOf(layer=Needy)
        assert "Idle has no method layer(self, reactor, *, client, below)" in problemsOf(layer=Idle)
        assert "Odd.layer must take (self, reactor, *, client, below)" in problemsOf(layer=Odd)

    def test_aClassBelongsToOneTransport(self) -> None:
        assert "ConnectSerial belongs to Transport('Serial', connect=ConnectSerial) already" in problemsOf(
            connect=ConnectSerial
        )

    def test_aTextTakesFunctions(self) -> None:
        with pytest.raises(TypeError, match="Text takes two functions"):
            Text(5)  # type: ignore[arg-type]  # what is to be refused


def test_annotationsForTypeCheckersOnlyAreNoObstacle() -> None:
    """What `SSLContext` is cannot be known at run time; that it may be None instead can."""
    types = {each.name: bool(each.codec.takes) for each in _spellings.fieldsOf(ListenSecret)}
    assert types == {
        "port": True,
        "context": True,
        "handler": True,
        "permission": False,
        "table": False,
        "first": True,
        "password": True,
        "note": True,
    }


# Methods


def test_theMethodHasTheSignatureOfTheDeclaration() -> None:
    method = _spellings.makeMethod(transports["serial"], "connect")
    assert method.__name__ == "connectSerial"
    assert method.__qualname__ == "Reactor.connectSerial"
    assert method.__doc__ == ConnectSerial.__doc__
    signature = inspect.signature(method)
    assert list(signature.parameters) == ["self", "device", "factory", "baudrate", "parity"]
    assert signature.parameters["baudrate"].default == 9600
    assert signature.parameters["baudrate"].annotation == "int"
    datagrams = inspect.signature(_spellings.makeMethod(transports["packet"], "connect"))
    assert list(datagrams.parameters) == ["self", "host", "port", "protocol"]
    secret = inspect.signature(_spellings.makeMethod(transports["secret"], "listen"))
    assert secret.parameters["note"].kind is inspect.Parameter.KEYWORD_ONLY
    assert repr(secret.parameters["table"].default) == "…"


def test_theMethodMakesTheEndpointAndUsesIt() -> None:
    method = _spellings.makeMethod(transports["serial"], "connect")
    factory = ClientFactory()
    assert method("reactor", "x", factory) == ("reactor", factory, ConnectSerial("x"))
    assert method("reactor", "x", factory, 1200, parity="E") == ("reactor", factory, ConnectSerial("x", 1200, "E"))
    assert method("reactor", factory=factory, device="x") == ("reactor", factory, ConnectSerial("x"))
    protocol = DatagramProtocol()
    assert _spellings.makeMethod(transports["packet"], "listen")("r", 5, protocol) == ("r", protocol, ListenPacket(5))
    (_, _, made) = _spellings.makeMethod(transports["secret"], "listen")("r", 80, factory, note="x")
    assert made == ListenSecret(80, note="x")


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, "connectSerial() missing a required argument: 'device'"),
        (("x",), {}, "connectSerial() missing a required argument: 'factory'"),
        (("x", ClientFactory(), 1, "N", 5), {}, "connectSerial() too many positional arguments"),
        (("x", ClientFactory()), {"baudrat": 5}, "unexpected keyword argument 'baudrat'; did you mean 'baudrate'?"),
        (("x", ClientFactory()), {"device": "y"}, "multiple values for argument 'device'"),
        ((ClientFactory(), "x"), {}, "connectSerial() takes a factory (with buildProtocol), not 'x'"),
    ],
)
def test_aWrongCallNamesWhatIsTaken(args: tuple[Any, ...], kwargs: dict[str, Any], expected: str) -> None:
    method = _spellings.makeMethod(transports["serial"], "connect")
    with pytest.raises(TypeError) as caught:
        method("reactor", *args, **kwargs)
    assert expected in str(caught.value)
    assert str(caught.value).endswith("connectSerial(device, factory, baudrate=9600, parity='N')")


# Descriptions


def test_theDescriptionIsPlainData() -> None:
    import json

    (told,) = _spellings.describe(transports["serial"])
    assert told["use"] == "connect"
    assert told["method"] == "connectSerial(device, factory, baudrate=9600, parity='N')"
    assert told["string"] == "serial:device[:baudrate=…][:parity=…]"
    assert told["fields"][1] == {
        "name": "baudrate",
        "type": "int",
        "takes": "a whole number",
        "required": False,
        "default": 9600,
        "textual": True,
        "doc": "",
    }
    described = {name: _spellings.describe(transport) for name, transport in transports.items()}
    assert json.loads(json.dumps(described)) == described
    (layer,) = described["shout"]
    assert (layer["method"], layer["string"]) == (None, "shout+tcp:…[:shout.volume=…][:shout.key=…]")
    fields = {each["name"]: each for each in described["secret"][0]["fields"]}
    assert fields["context"]["takes"] == "none"
    assert fields["table"]["takes"] is None
    assert fields["note"]["doc"] == "what for"
