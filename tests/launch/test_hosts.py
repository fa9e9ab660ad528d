"""Names that people give the first of several hosts: each leads every host to it, or is refused with a way out."""

import re
import socket
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from moviegen.launch.hosts import AddressError, check_first_host
from moviegen.launch.job import Job

NAMES = {
    "localhost": "127.0.0.1", "ip6-localhost": "::1", "debian": "127.0.1.1", "node0": "10.0.0.5", "0": "0.0.0.0",
    "node0.cluster.example.": "10.0.0.5", "node1": "10.0.0.6", "six": "fd00::5", "mapped": "::ffff:10.0.0.5",
}  # fmt: skip
OWN = {
    "lo": [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    "eth0": [(socket.AF_INET, "10.0.0.5"), (socket.AF_INET6, "fd00::5"), (socket.AF_INET6, "fe80::1%eth0"),
             (psutil.AF_LINK, "52:54:00:12:34:56")],
}  # fmt: skip


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """This host is 10.0.0.5 and fd00::5."""

    def look_up(name, *rest, **options):
        if name not in NAMES and not re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]+", name):
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (NAMES.get(name, name), 0))]

    cards = {name: [SimpleNamespace(family=f, address=a) for f, a in card] for name, card in OWN.items()}
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: cards)


def check(address, node_rank, hosts=2):
    check_first_host(
        Job(("python",), Path("logs"), worker_num=2 * hosts, local_worker_num=2, master_addr=address,
            node_rank=node_rank, master_port=8200)
    )  # fmt: skip


ITSELF = ("127.0.0.1", "127.0.1.1", "localhost", "debian", "::1", "[::1]", "ip6-localhost", "0.0.0.0", "0", "::")


@pytest.mark.parametrize("node_rank", [0, 1])
@pytest.mark.parametrize("address", ITSELF)
def test_an_address_that_is_each_host_itself_is_refused(address, node_rank):
    with pytest.raises(AddressError, match="is each of the 2 hosts itself") as caught:
        check(address, node_rank)
    assert address in str(caught.value)
    assert ("by one of 10.0.0.5, fd00::5" in str(caught.value)) == (node_rank == 0)


@pytest.mark.parametrize(
    "address", ["10.0.0.5", "node0", "node0.cluster.example.", "fd00::5", "[fd00::5]", "FD00:0::5", "six", "mapped"]
)
def test_the_first_host_knows_itself_and_no_other_takes_itself_for_it(address):
    check(address, 0)
    with pytest.raises(AddressError, match=r"is this host, which launch.node_rank 1 says is not the first"):
        check(address, 1)


@pytest.mark.parametrize("address", ["10.0.0.6", "node1", "fd00::6"])
def test_another_host_is_not_the_first(address):
    check(address, 1)
    with pytest.raises(AddressError, match=r"is no address of this host, .*name this one, by one of 10.0.0.5, fd00::5"):
        check(address, 0)


@pytest.mark.parametrize("node_rank", [0, 1])
@pytest.mark.parametrize("address", ["nowhere", "no.such.invalid", "", "http://node0"])
def test_a_name_that_nobody_knows_is_said(address, node_rank):
    with pytest.raises(AddressError, match=r"launch.master_addr .* is not known here .*: name its IP address"):
        check(address, node_rank)


def test_one_host_needs_no_address():
    check("nowhere", 0, hosts=1)
