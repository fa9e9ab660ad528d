"""The first of several hosts: an address by which it knows itself, and the others reach it."""

import ipaddress
import socket

import psutil

from moviegen.launch.job import Job
from moviegen.launch.watch import JobError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressError(JobError):
    """The scheduler's address is not one that leads every host to the first."""


def check_first_host(job: Job) -> None:
    """Refuses what would otherwise show after `cluster_time_out`, in silence until then.

    msrun starts the scheduler where `master_addr` is an address of the machine it runs on, whatever its node_rank.

    Raises:
        AddressError: it leads nowhere, each host to itself, or to another than node_rank says.
    """
    if job.host_num == 1:
        return
    named, address = job.master_addr, _resolved(job.master_addr)
    shown = named if named == str(address) else f"{named} ({address})"
    if address.is_loopback or address.is_unspecified:
        raise AddressError(
            f"{shown} is each of the {job.host_num} hosts itself: name the first one in launch.master_addr, as the "
            f"others reach it{_one_of_ours() if job.node_rank == 0 else ''}"
        )
    is_here = address in _own()
    if job.node_rank == 0 and not is_here:
        raise AddressError(
            f"launch.master_addr {shown} is no address of this host, which launch.node_rank 0 says is the first: start "
            f"it there, or name this one{_one_of_ours()}"
        )
    if job.node_rank > 0 and is_here:
        raise AddressError(
            f"launch.master_addr {shown} is this host, which launch.node_rank {job.node_rank} says is not the first: "
            f"node_rank is 0 here, and another on each other host"
        )


def _resolved(name: str) -> Address:
    """The address that msrun takes a name for."""
    plain = name.strip().removeprefix("[").removesuffix("]")
    try:
        return _address(str(socket.getaddrinfo(plain, None, type=socket.SOCK_STREAM)[0][4][0]))
    except (OSError, UnicodeError) as error:
        raise AddressError(f"launch.master_addr {name!r} is not known here ({error}): name its IP address") from None


def _own() -> list[Address]:
    families = (socket.AF_INET, socket.AF_INET6)
    cards = psutil.net_if_addrs().values()
    return [_address(one.address) for card in cards for one in card if one.family in families]


def _one_of_ours() -> str:
    reached = [str(address) for address in _own() if not address.is_loopback and not address.is_link_local]
    return f", by one of {', '.join(reached)}" if reached else ""


def _address(text: str) -> Address:
    address = ipaddress.ip_address(text.partition("%")[0])  # without the card's name
    return getattr(address, "ipv4_mapped", None) or address
