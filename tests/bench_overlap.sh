#!/usr/bin/env bash
# The share of the gradient exchange that the backward pass hides, over a link with a bandwidth: two ranks in two
# network namespaces, joined by a veth pair that tc holds to RATE (10 Gbit/s), a core each, Open MPI over TCP. Over shared
# memory the copy runs inside the poll and nothing could be hidden. The kernel's part of TCP runs on the ranks' own cores and
# is not hidden. Bar: 60 %. Needs root, iproute2 and two cores.
# The last block's gradients can only leave at the end, so there are 12 blocks; short cells keep the exchange large beside the
# noise of the computation.
#   BLOCKS=12 TOKENS=256 ROUNDS=5 RATE=10gbit tests/bench_overlap.sh
set -u
. tests/environment
skip() { echo "not run: $*"; exit 77; }
need_cores 2
for tool in ip tc taskset mpirun; do command -v $tool >/dev/null || skip "no $tool here (Debian packages iproute2, util-linux, openmpi-bin)"; done
tag=cyto$$ dir=$(mktemp -d)
trap 'for i in 0 1; do ip netns del "$tag-$i" 2>/dev/null; done; rm -rf "$dir"' EXIT
make_link() { # two namespaces $tag-0 and $tag-1, addresses 10.77.0.1 and .2
    local i
    for i in 0 1; do ip netns add "$tag-$i" || return; done
    ip -n "$tag-0" link add link0 type veth peer name link1 netns "$tag-1" || return
    for i in 0 1; do
        ip -n "$tag-$i" addr add 10.77.0.$((i + 1))/24 dev link$i && ip -n "$tag-$i" link set link$i up &&
            ip -n "$tag-$i" link set lo up &&
            tc -n "$tag-$i" qdisc add dev link$i root tbf rate "${RATE:-10gbit}" burst 1mb latency 20ms || return
    done
}
make_link 2>"$dir/log" || skip "network namespaces cannot be made here: $(tail -1 "$dir/log")"

# What mpirun starts a daemon on the other host with, and what each rank is: they are two hosts by name too.
cat >"$dir/enter" <<END
#!/bin/sh
shift # the address: there is one other host
exec ip netns exec $tag-1 unshare -u sh -c 'hostname $tag-b; exec sh -c "\$1"' sh "\$*"
END
cat >"$dir/rank" <<'END'
#!/bin/sh
exec taskset -c "$OMPI_COMM_WORLD_RANK" "$@"
END
chmod +x "$dir/enter" "$dir/rank"
export OMP_NUM_THREADS=1
ip netns exec "$tag-0" unshare -u sh -c 'hostname "$0"; exec "$@"' "$tag-a" mpirun -n 2 --host 10.77.0.1:1,10.77.0.2:1 --bind-to none \
    --mca plm_rsh_agent "$dir/enter" --mca oob_tcp_if_include 10.77.0.0/24 --mca btl self,tcp --mca pml ob1 \
    --mca btl_tcp_if_include 10.77.0.0/24 --mca mpi_yield_when_idle 0 -x PATH -x OMP_NUM_THREADS \
    --wdir "$PWD" "$dir/rank" "$B/tests/tool_overlap" "${BLOCKS:-12}" "${TOKENS:-256}" "${ROUNDS:-5}"
