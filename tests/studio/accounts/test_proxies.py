"""Behind a proxy: which address an attempt to log in counts under."""

import pytest

import loops
from clearhead.errors import OptionError
from clearhead.studio.accounts.throttle import address_key
from clearhead.studio.app import serving
from clearhead.studio.web.settings import Settings


def client_of(settings: Settings, forwarded: str) -> str:
    """The address a request counts under that comes from 127.0.0.1 and says it was forwarded for another."""
    seen: list[str] = []

    async def probe(scope: dict[str, object], _receive: object, _send: object) -> None:
        seen.append(scope["client"][0])  # type: ignore[index]

    config = serving.config(probe, settings)  # type: ignore[arg-type]
    config.load()
    scope = {
        "type": "http",
        "headers": [(b"x-forwarded-for", forwarded.encode())],
        "client": ("127.0.0.1", 9),
        "scheme": "http",
    }
    loops.run(config.loaded_app(scope, None, None))
    return seen[0]


def test_forwarded_addresses_count_only_from_a_trusted_proxy() -> None:
    assert client_of(Settings(), "203.0.113.9") == "127.0.0.1"
    assert client_of(Settings(proxies=("127.0.0.1",)), "203.0.113.9") == "203.0.113.9"
    assert client_of(Settings(proxies=("192.0.2.1",)), "203.0.113.9") == "127.0.0.1"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "counts_as"),
    [
        (("127.0.0.1",), "198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the first is what the client said of itself
        (("127.0.0.1",), "127.0.0.1, 203.0.113.9", "203.0.113.9"),
        (("127.0.0.1", "192.0.2.0/24"), "198.51.100.1, 203.0.113.9, 192.0.2.7", "203.0.113.9"),
        (("127.0.0.1",), "203.0.113.9, 192.0.2.7", "192.0.2.7"),  # a second proxy that is not named
        (("127.0.0.1",), "198.51.100.1,  [2001:db8::1]:4711 ", "2001:db8::1"),
        (("127.0.0.1",), "", "127.0.0.1"),
    ],
)
def test_of_a_chain_the_last_address_before_the_trusted_proxies_counts(
    proxies: tuple[str, ...], forwarded: str, counts_as: str
) -> None:
    assert client_of(Settings(proxies=proxies), forwarded) == counts_as


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.1/8", "", "127.0.0.1, 10.0.0.1", "unix:"])
def test_a_trusted_proxy_is_an_address_or_a_network(proxy: str) -> None:
    with pytest.raises(OptionError, match="expected its address or network"):
        Settings(proxies=("127.0.0.1", proxy))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),  # one customer may send from each of them
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("2001:DB8:0001:2::1", "2001:db8:1:2::2%eth0", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unknown", "_hidden", True),  # no address: a proxy may say anything in its place
    ],
)
def test_spellings_of_an_address_count_as_one(one: str, other: str, same: bool) -> None:
    assert (address_key(one) == address_key(other)) is same
