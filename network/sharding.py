"""Which shard a user belongs to, and how members are dealt out to the shards."""

import numpy as np

from peerwatch.network.graph import Networks
from peerwatch.network.kernels import Int32s, Int64s, i4s, i8, i8s, kernel, nothing


def split(networks: Networks, shards: int) -> list[Networks]:
    """The same networks once a shard, each with that shard's members only, named by their place in the shard.

    User u belongs to shard u % shards and stands there at place u // shards.
    """
    if shards == 1:
        return [networks]
    offsets = np.zeros((shards, len(networks.offsets)), np.int64)
    members = np.empty((shards, len(networks.members)), np.int32)
    _split(networks.offsets, networks.members, shards, offsets.reshape(-1), members.reshape(-1))
    return [Networks(ends, found[: ends[-1]]) for ends, found in zip(offsets, members, strict=True)]


@kernel(nothing(i8s, i4s, i8, i8s, i4s))
def _split(offsets: Int64s, members: Int32s, shards: int, to_offsets: Int64s, to_members: Int32s) -> None:
    questions, room = len(offsets) - 1, len(members)
    ends = np.zeros(shards, np.int64)
    for q in range(questions):
        for i in range(offsets[q], offsets[q + 1]):
            place = members[i] // shards
            shard = members[i] - place * shards
            to_members[shard * room + ends[shard]] = place
            ends[shard] += 1
        for shard in range(shards):
            to_offsets[shard * (questions + 1) + q + 1] = ends[shard]
