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
    """Refuses a `master_addr` with which the hosts would wait in silence until `cluster_time_out`.

    msrun starts the scheduler where `master_addr` is an address of the machine it runs on, whatever its node_rank.

    Raises:
        AddressError: the name has no address, is each host's own, or belongs to another host than node_rank says.
    """
    if job.host_num == 1:
        return
    name, address = job.master_addr, _resolved(job.master_addr)
    shown = name if name == str(address) else f"{name} ({address})"
    if address.is_loopback or address.is_unspecified:
        raise AddressError(
            f"{shown} is each of the {job.host_num} hosts itself: name the first one in launch.master_addr, as the "
            f"others reach it{_suggestion() if job.node_rank == 0 else ''}"
        )
    is_here = address in _own_addresses()
    if job.node_rank == 0 and not is_here:
        raise AddressError(
            f"launch.master_addr {shown} is no address of this host, which launch.node_rank 0 says is the first: start "
            f"it there, or name this one{_suggestion()}"
        )
    if job.node_rank > 0 and is_here:
        raise AddressError(
            f"launch.master_addr {shown} is this host, which launch.node_rank {job.node_rank} says is not the first: "
            f"node_rank is 0 here, and another on each other host"
        )


def _resolved(name: str) -> Address:
    """The address that msrun resolves a name to."""
    plain = name.strip().removeprefix("[").removesuffix("]")
    try:
        return _address(str(socket.getaddrinfo(plain, None, type=socket.SOCK_STREAM)[0][4][0]))
    except (OSError, UnicodeError) as error:
        raise AddressError(f"launch.master_addr {name!r} is not known here ({error}): name its IP address") from None


def _own_addresses() -> list[Address]:
    families = (socket.AF_INET, socket.AF_INET6)
    interfaces = psutil.net_if_addrs().values()
    return [_address(entry.address) for entries in interfaces for entry in entries if entry.family in families]


def _suggestion() -> str:
    """Addresses of this host that others can reach, to end a sentence with."""
    reachable = [str(address) for address in _own_addresses() if not address.is_loopback and not address.is_link_local]
    return f", by one of {', '.join(reachable)}" if reachable else ""


def _address(text: str) -> Address:
    address = ipaddress.ip_address(text.partition("%")[0])  # without the interface's name
    return getattr(address, "ipv4_mapped", None) or address
