"""Finds out whether an object store keeps its word about conditional writes, by trying, alone and in a race.

Some stores accept If-None-Match and If-Match and ignore them, which is worse than refusing: two updates would overwrite
each other.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from skill_store import layout
from skill_store.errors import AccessDenied, BucketMissing, PreconditionFailed, StoreError, StoreUnavailable, StoreUnfit
from skill_store.protocol import ObjectStore

WRITERS = 8
_NEVER_AN_ETAG = '"00000000000000000000000000000000"'


def check_conditional_writes(store: ObjectStore) -> None:
    """Returns when both conditions hold for one writer after another and for eight at once.

    Raises:
        StoreUnfit: when one is ignored or refused.
    """
    folder = f"{layout.PROBES}{secrets.token_hex(8)}/"
    keys = [folder + name for name in ("alone", "race")]
    try:
        _alone(store, keys[0])
        _race(store, keys[1])
    finally:
        store.delete(keys)


def _alone(store: ObjectStore, key: str) -> None:
    if not _accepted(store, lambda: store.put(key, b"first", if_absent=True)):
        raise _unfit(store, "refuses If-None-Match: * for an object that does not exist")
    if _accepted(store, lambda: store.put(key, b"second", if_absent=True)):
        raise _unfit(store, "ignores If-None-Match: *")
    if _accepted(store, lambda: store.put(key, b"third", if_match=_NEVER_AN_ETAG)):
        raise _unfit(store, "ignores If-Match")
    etag = store.get(key).etag
    if not _accepted(store, lambda: store.put(key, b"fourth", if_match=etag)):
        raise _unfit(store, "refuses If-Match with the right ETag")


def _race(store: ObjectStore, key: str) -> None:
    if _winners(store, lambda data: store.put(key, b"first " + data, if_absent=True)) != 1:
        raise _unfit(store, f"lets several of {WRITERS} writers at once pass If-None-Match: *")
    etag = store.get(key).etag  # of the content alone, so that the writers' contents must all be new
    if _winners(store, lambda data: store.put(key, b"second " + data, if_match=etag)) != 1:
        raise _unfit(store, f"lets several of {WRITERS} writers at once pass If-Match")


def _winners(store: ObjectStore, write: Callable[[bytes], str]) -> int:
    with ThreadPoolExecutor(WRITERS) as pool:
        return sum(pool.map(lambda number: _accepted(store, lambda: write(b"writer %d" % number)), range(WRITERS)))


def _accepted(store: ObjectStore, write: Callable[[], str]) -> bool:
    try:
        write()
    except PreconditionFailed:
        return False
    except (AccessDenied, BucketMissing, StoreUnavailable):
        raise
    except StoreError as error:
        raise _unfit(store, f"refuses conditional writes ({error.message})") from error
    return True


def _unfit(store: ObjectStore, what: str) -> StoreUnfit:
    return StoreUnfit(
        f"{store.uri}: the object store {what}; a model repository needs PutObject with If-None-Match: * and"
        " with If-Match, both atomic (AWS S3, SeaweedFS 4.17 or later, Ceph, MinIO have them)"
    )
