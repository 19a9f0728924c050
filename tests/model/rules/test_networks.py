"""Networks that daemons connect to because a row names them."""

from __future__ import annotations

import pytest

from compass.model.names import InvalidAddress, parse_network
from compass.model.rules.networks import ProbeNetworks, may_dial


@pytest.mark.parametrize(
    ("address", "origin", "certified", "may"),
    [
        ("192.0.2.7", "192.0.2.7", (), True),
        ("192.0.2.7", "::ffff:192.0.2.7", (), True),
        ("192.0.2.8", "192.0.2.7", (), False),
        ("192.0.2.8", "192.0.2.7", ("192.0.2.8",), True),
        ("2001:db8::1", "192.0.2.7", ("2001:db8::1",), True),
        ("127.0.0.1", "192.0.2.7", ("127.0.0.1",), False),
        ("127.0.0.1", "127.0.0.1", (), True),
        ("127.0.0.77", "127.0.0.1", (), False),
        ("127.0.0.77", "127.0.0.1", ("127.0.0.77",), True),
        ("169.254.169.254", "192.0.2.7", ("169.254.169.254",), False),
        ("169.254.169.254", "127.0.0.1", ("169.254.169.254",), False),
        ("169.254.1.1", "169.254.1.2", ("169.254.1.1",), True),
        ("fe80::1", "192.0.2.7", ("fe80::1",), False),
        ("::1", "192.0.2.7", ("::1",), False),
        ("192.0.2.7", "a socket", (), False),
    ],
)
def test_a_host_is_dialled_only_where_it_lives(
    address: str, origin: str, certified: tuple[str, ...], may: bool
) -> None:
    """W7: the address of its session, or one in its certificate; what is local only for a session that is local."""
    assert may_dial(address, origin, certified) is may


LOCAL = ("127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1")
LINKS = ("169.254.169.254", "fe80::1", "::ffff:169.254.0.1")
OTHERS = ("10.0.0.1", "192.0.2.1", "2001:db8::1", "::ffff:10.0.0.1")


@pytest.mark.parametrize("address", [*LOCAL, *LINKS, *OTHERS])
def test_the_loopback_and_the_link_are_denied_by_default(address: str) -> None:
    """W8: unless the daemon serves its own machine only, and then the link is denied all the same."""
    assert bool(ProbeNetworks().refusal(address)) is (address not in OTHERS)
    assert bool(ProbeNetworks(is_local=True).refusal(address)) is (address in LINKS)


def test_networks_are_allowed_and_denied_by_name() -> None:
    """A denied network is denied whatever else is allowed; an allowed one is allowed although it is local."""
    networks = ProbeNetworks(
        (parse_network("10.0.0.0/8"), parse_network("127.0.0.8")), (parse_network("10.9.0.0/16"),), is_local=True
    )
    addresses = (*LOCAL, *LINKS, *OTHERS, "127.0.0.8", "10.9.1.1")
    probed = [address for address in addresses if not networks.refusal(address)]
    assert probed == ["10.0.0.1", "::ffff:10.0.0.1", "127.0.0.8"]
    assert networks.refusal("10.9.1.1") == "10.9.1.1 is in probe_networks_denied"
    assert networks.refusal("192.0.2.1") == "192.0.2.1 is in none of probe_networks"


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "example.org", "10.0.0.0/8 "])
def test_a_network_is_an_address_and_a_length(text: str) -> None:
    """Bits behind the length are a mistake."""
    with pytest.raises(InvalidAddress, match="is not a network such as"):
        parse_network(text)
