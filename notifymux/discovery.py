"""Where the primary is, where REDIS_URL names others who know it: Sentinels, or nodes of a Cluster.

They are asked anew for every connection, by redis-py's own classes. That blocks: the listener asks in the thread that
makes its connection, and an event loop by `discover`.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import redis
from redis.cluster import ClusterNode, NodesManager
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.sentinel import MasterNotFoundError, Sentinel

from notifymux.redis_errors import Fault, FaultError, fault, lacks_command
from notifymux.redis_url import Address, ClusterNodes, RedisUrl, Sentinels
from notifymux.shared_call import shared_call
from notifymux.sync_connection import NEVER, NO_MAINTENANCE, RESP2, SYNC_CLASSES, connection_options

_TIMEOUT_SECONDS = 1.0  # for connecting to one of those who know, and for each answer: then the next one is asked
_LIMIT_SECONDS = 6.0  # for an event loop that waits for all of them


class Discovery(Protocol):
    """Whom to ask where the primary is. One thread at a time asks."""

    def __hash__(self) -> int: ...

    def find(self) -> Address:
        """Return the primary's address.

        Raises:
            FaultError: nobody knows it now.
        """


def discovery(url: RedisUrl, key: str) -> Discovery | None:
    """Return whom to ask; None if the URL has the address itself.

    Args:
        url: as parsed.
        key: the one whose hash slot the node of a Cluster has to have.
    """
    match url.found_by:
        case Sentinels():
            return SentinelDiscovery(url, url.found_by)
        case ClusterNodes():
            return ClusterDiscovery(url, url.found_by, key)
        case _:
            return None


async def discover(asked: Discovery) -> Address:
    """Return the primary's address, for an event loop.

    Raises:
        FaultError: nobody knows it now, or nobody answers within six seconds.
    """
    try:
        return await shared_call(asked, asked.find, _LIMIT_SECONDS)
    except TimeoutError:
        raise FaultError(Fault(f"nobody said within {_LIMIT_SECONDS:g} s where Redis's primary is")) from None


def _options(url: RedisUrl) -> dict[str, Any]:
    timeouts = {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _TIMEOUT_SECONDS}
    return connection_options(url) | timeouts | {"protocol": RESP2}


class SentinelDiscovery:
    """Sentinels. The one that answered last is asked first."""

    def __init__(self, url: RedisUrl, sentinels: Sentinels) -> None:
        without = {"username", "password", "db", "client_name"}  # which are for Redis
        options = {name: value for name, value in _options(url).items() if name not in without} | sentinels.credentials
        pool_class = SYNC_CLASSES[url.transport]
        self._name = sentinels.master
        self._sentinel: Any = Sentinel(())  # type: ignore[no-untyped-call]
        self._clients = [_SentinelClient(address, pool_class, options) for address in sentinels.addresses]
        self._sentinel.sentinels = list(self._clients)

    def find(self) -> Address:
        """Return the primary's address.

        Raises:
            FaultError: no Sentinel answers, or none knows a primary of this name that is up.
        """
        for client in self._clients:
            client.answer = None
        try:
            host, port = self._sentinel.discover_master(self._name)
        except MasterNotFoundError:
            raise FaultError(self._fault()) from None
        return Address(host, port)

    def _fault(self) -> Fault:
        answers = [client.answer for client in self._clients if isinstance(client.answer, dict)]
        if any(self._name in masters for masters in answers):
            return Fault(f"the Sentinels take {self._name}, the primary, for down, and have promoted no replica yet")
        if answers:
            known = ", ".join(sorted({name for masters in answers for name in masters})) or "none"
            return Fault(
                f"the Sentinels know no master {self._name}", f"correct its name in REDIS_URL; they know: {known}"
            )
        found = [client.fault for client in self._clients]
        remedy = next((each.remedy for each in found if each.remedy), "")
        return Fault(f"no Sentinel says where the primary is: {_listed(each.what for each in found)}", remedy)


class _SentinelClient(redis.Redis):
    """One Sentinel, and its last answer."""

    def __init__(self, address: Address, connection_class: Any, options: dict[str, Any]) -> None:
        self._address = address
        self.answer: dict[str, Any] | RedisError | None = None
        options = options | {"host": address.host, "port": address.port, "retry": NEVER}
        super().__init__(connection_pool=redis.ConnectionPool(connection_class, **options))

    def sentinel_masters(self) -> Any:
        """Return the masters that it knows, by name.

        Raises:
            redis.ConnectionError: it says nothing, or refuses. redis-py goes on with the next one then.
        """
        try:
            self.answer = dict(super().sentinel_masters())  # type: ignore[arg-type]
        except RedisError as error:
            self.answer = error
            raise RedisConnectionError(str(error)) from error
        finally:
            self.connection_pool.disconnect()
        return self.answer

    @property
    def fault(self) -> Fault:
        """Why it did not answer."""
        match self.answer:
            case AuthenticationError() | NoPermissionError():
                return Fault(
                    f"{self._address} refuses this login: {fault(self.answer).what}",
                    "check sentinel_username and sentinel_password in REDIS_URL",
                )
            case ResponseError() if lacks_command(self.answer):
                return Fault(f"{self._address} is no Sentinel", "name the Sentinels' ports in REDIS_URL, often 26379")
            case RedisError():
                return fault(self.answer)
            case _:
                return Fault(f"{self._address} was not asked")


class ClusterDiscovery:
    """Nodes of a Cluster: those that the URL names, and those that they have named."""

    def __init__(self, url: RedisUrl, nodes: ClusterNodes, key: str) -> None:
        self._addresses, self._slot = nodes.addresses, key_slot(key.encode())
        self._pool_class, self._options = SYNC_CLASSES[url.transport], _options(url)
        self._nodes: NodesManager | None = None

    def find(self) -> Address:
        """Return the address of the node that has the slot.

        Raises:
            FaultError: no node answers, or none has the slot.
        """
        try:
            if self._nodes is None:
                self._nodes = self._connect()
            else:
                self._nodes.initialize(additional_startup_nodes_info=list(self._addresses))
            node = self._nodes.get_node_from_slot(self._slot)
        except (SlotNotCoveredError, IndexError):  # IndexError: it has no slots at all
            raise FaultError(
                Fault(
                    f"no node of the Redis Cluster has the slot {self._slot}", "see redis-cli --cluster check HOST:PORT"
                )
            ) from None
        except RedisClusterException as error:
            raise FaultError(_cluster_fault(error.__cause__)) from error
        return Address(node.host, node.port)

    def _connect(self) -> NodesManager:
        return NodesManager(
            [ClusterNode(*address) for address in self._addresses],  # type: ignore[no-untyped-call]
            from_url=True,
            connection_pool_class=self._pool,
            maint_notifications_config=NO_MAINTENANCE,
            **{name: value for name, value in self._options.items() if name != "maint_notifications_config"},
        )

    def _pool(self, **options: Any) -> redis.ConnectionPool:
        return redis.ConnectionPool(self._pool_class, **options)


def _cluster_fault(error: BaseException | None) -> Fault:
    """Return why the last node that was asked did not say who has which slot."""
    if isinstance(error, RedisClusterException):  # redis-py's text for whatever a node refused with
        error = error.__context__
    if error is None:
        return Fault("no node of the Redis Cluster answers")
    if "cluster support disabled" in str(error):
        return Fault(
            "REDIS_URL leads to a Redis that is no Cluster", "begin it with redis://, or with redis+sentinel://"
        )
    found = fault(error)
    return Fault(f"no node of the Redis Cluster says who has our slot: {found.what}", found.remedy)


def _listed(texts: Iterable[str]) -> str:
    """The same texts in any order are one text, which is logged once."""
    return "; ".join(sorted(set(texts)))
