"""Cores and memory that control groups leave, from trees as systems have them."""

import os
from pathlib import Path

import pytest

from embedsvc.diagnosis import computing
from embedsvc.system import machine
from embedsvc.system.cgroups import read_limits

GIB = 1 << 30
NONE_V1 = "9223372036854771712"
V2 = "31 24 0:27 {group} {folder} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:29 {group} {folder} rw,nosuid shared:10 - cgroup cgroup rw,{controllers}\n"
OTHERS = "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n"


class Tree:
    """A root folder with what is written into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts = OTHERS

    def own(self, *lines: str) -> "Tree":
        return self.file("proc/self/cgroup", "".join(f"{line}\n" for line in lines))

    def mount(self, text: str, folder: str, group: str = "/", controllers: str = "") -> "Tree":
        written = folder.replace(" ", "\\040")
        self._mounts += text.format(group=group, folder=written, controllers=controllers)
        return self.file("proc/self/mountinfo", self._mounts)

    def file(self, name: str, text: str) -> "Tree":
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self

    def v1(self, group: str = "/", **folders: str) -> "Tree":
        for controllers, folder in folders.items():
            self.mount(V1, folder, group, controllers.replace("_", ","))
        return self

    def found(self) -> tuple[float | None, int | None]:
        cores, memory = read_limits(self.root)
        return cores.value if cores else None, int(memory.value) if memory else None


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_unit_of_systemd_is_limited_by_itself_and_the_slices_above_it(tree: Tree) -> None:
    top = "/sys/fs/cgroup"
    tree.own("0::/system.slice/embedsvc.service").mount(V2, top)
    assert tree.found() == (None, None)
    tree.file(f"{top}/system.slice/embedsvc.service/cpu.max", "350000 100000\n")
    tree.file(f"{top}/system.slice/embedsvc.service/memory.max", "max\n")
    assert tree.found() == (3.5, None)
    tree.file(f"{top}/system.slice/cpu.max", "200000 100000\n")
    tree.file(f"{top}/system.slice/memory.max", f"{8 * GIB}\n")
    tree.file(f"{top}/system.slice/embedsvc.service/memory.high", f"{6 * GIB}\n")
    assert tree.found() == (2, 6 * GIB)
    tree.file(f"{top}/other.slice/cpu.max", "1000 100000\n")
    tree.file(f"{top}/system.slice/embedsvc.service/below/memory.max", "1000\n")
    assert tree.found() == (2, 6 * GIB)


def test_docker_with_a_namespace_of_its_own_shows_its_group_as_the_top(tree: Tree) -> None:
    tree.own("0::/").mount(V2, "/sys/fs/cgroup")
    tree.file("/sys/fs/cgroup/cpu.max", "150000 100000\n")
    tree.file("/sys/fs/cgroup/memory.max", f"{2 * GIB}\n")
    assert tree.found() == (1.5, 2 * GIB)


def test_docker_of_version_1_has_a_mount_for_each_controller(tree: Tree) -> None:
    group = "/docker/4a5b"
    tree.own(f"9:memory:{group}", f"3:cpu,cpuacct:{group}", f"1:name=systemd:{group}")
    tree.v1(group, cpu_cpuacct="/sys/fs/cgroup/cpu,cpuacct", memory="/sys/fs/cgroup/memory")
    tree.file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    tree.file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    tree.file("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{NONE_V1}\n")
    assert tree.found() == (None, None)
    tree.file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "25000\n")
    tree.file("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}\n")
    assert tree.found() == (0.25, GIB)


def test_a_pod_of_kubernetes_is_limited_as_a_whole_too(tree: Tree) -> None:
    pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
    tree.own(f"0::{pod}/cri-containerd-2.scope").mount(V2, "/sys/fs/cgroup")
    tree.file(f"/sys/fs/cgroup{pod}/cri-containerd-2.scope/cpu.max", "max 100000\n")
    tree.file(f"/sys/fs/cgroup{pod}/cri-containerd-2.scope/memory.max", f"{4 * GIB}\n")
    tree.file(f"/sys/fs/cgroup{pod}/cpu.max", "400000 100000\n")
    tree.file(f"/sys/fs/cgroup{pod}/memory.max", f"{3 * GIB}\n")
    assert tree.found() == (4, 3 * GIB)


def test_version_1_tells_what_groups_above_a_container_allow(tree: Tree) -> None:
    group = "/kubepods/pod1/2"
    tree.own(f"5:memory:{group}").v1(group, memory="/sys/fs/cgroup/memory")
    tree.file("/sys/fs/cgroup/memory/memory.limit_in_bytes", f"{NONE_V1}\n")
    stat = f"cache 12\nhierarchical_memory_limit {5 * GIB}\nhierarchical_memsw_limit 1\n"
    tree.file("/sys/fs/cgroup/memory/memory.stat", stat)
    assert tree.found() == (None, 5 * GIB)


def test_lxc_is_limited_by_its_own_group_among_those_of_the_host(tree: Tree) -> None:
    tree.own("4:cpu:/lxc/box/ns", "2:memory:/lxc/box/ns")
    tree.v1(cpu="/sys/fs/cgroup/cpu", memory="/sys/fs/cgroup/memory")
    tree.file("/sys/fs/cgroup/cpu/lxc/box/cpu.cfs_quota_us", "300000\n")
    tree.file("/sys/fs/cgroup/cpu/lxc/box/cpu.cfs_period_us", "100000\n")
    tree.file("/sys/fs/cgroup/memory/lxc/box/ns/memory.limit_in_bytes", f"{7 * GIB}\n")
    tree.file("/sys/fs/cgroup/memory/lxc/other/memory.limit_in_bytes", "1\n")
    assert tree.found() == (3, 7 * GIB)


def test_both_versions_at_once_are_both_looked_at(tree: Tree) -> None:
    tree.own("1:cpu:/", "4:memory:/api/1", "0::/user.slice")
    tree.v1(cpu="/sys/fs/cgroup/cpu", memory="/sys/fs/cgroup/memory")
    tree.mount(V2, "/sys/fs/cgroup/unified")
    tree.file("/sys/fs/cgroup/memory/api/1/memory.limit_in_bytes", f"{9 * GIB}\n")
    tree.file("/sys/fs/cgroup/unified/user.slice/cpu.max", "50000 25000\n")
    assert tree.found() == (2, 9 * GIB)


def test_a_group_that_the_mount_does_not_show_leaves_its_top(tree: Tree) -> None:
    for group, top in (("/../../host.slice", "/"), ("/elsewhere", "/docker/1"), ("/docker/1", "/")):
        tree.own(f"0::{group}").mount(V2, "/sys/fs/cgroup", top)
        tree.file("/sys/fs/cgroup/cpu.max", "100000 100000\n")
        assert tree.found() == (1, None)


def test_a_mount_may_have_a_space_in_its_name(tree: Tree) -> None:
    tree.own("0::/").mount(V2, "/mnt/control groups")
    tree.file("/mnt/control groups/cpu.max", "700000 100000\n")
    assert tree.found() == (7, None)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "max", "max max", "0 0", "100000", "100000 0", "-5 100000", "x y", "1 2 3", "² ³"],
)
def test_a_quota_that_makes_no_sense_is_none(tree: Tree, text: str) -> None:
    tree.own("0::/").mount(V2, "/sys/fs/cgroup").file("/sys/fs/cgroup/cpu.max", text)
    assert tree.found() == (None, None)


@pytest.mark.parametrize("text", ["", "max", "0", "-1", "12x", "9" * 400, NONE_V1])
@pytest.mark.parametrize("name", ["memory.max", "memory.high", "memory.limit_in_bytes"])
def test_memory_that_makes_no_sense_is_none(tree: Tree, name: str, text: str) -> None:
    tree.own("0::/").mount(V2, "/sys/fs/cgroup").file(f"/sys/fs/cgroup/{name}", text)
    assert tree.found() == (None, None)


@pytest.mark.parametrize(
    "garbage", ["", "\n\n", "0", "0::", "::::", "\x00\xff - cgroup2", "0::relative"]
)
def test_garbage_limits_nothing(tree: Tree, garbage: str) -> None:
    tree.file("proc/self/cgroup", garbage).file("proc/self/mountinfo", f"{garbage}\n - cgroup2\n")
    assert tree.found() == (None, None)


def test_without_control_groups_the_machine_is_the_limit(tree: Tree) -> None:
    assert tree.found() == (None, None)
    tree.own("0::/")
    assert tree.found() == (None, None)
    cores, memory = machine.cores(tree.root), machine.memory(tree.root)
    assert cores.limit is memory.limit is None
    assert cores.machine == os.cpu_count()
    assert memory.usable == memory.machine


def test_files_that_are_folders_or_may_not_be_read_limit_nothing(tree: Tree) -> None:
    tree.own("0::/").mount(V2, "/sys/fs/cgroup")
    (tree.root / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    assert tree.found() == (None, None)


@pytest.mark.parametrize(
    ("quota", "cores"), [("max", 8), ("50000", 1), ("150000", 1), ("399999", 3), ("9900000", 8)]
)
def test_a_quota_is_rounded_down_and_the_mask_of_processors_holds_still(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    tree.own("0::/").mount(V2, "/sys/fs/cgroup")
    tree.file("/sys/fs/cgroup/cpu.max", f"{quota} 100000\n")
    assert machine.cores(tree.root)[:2] == (cores, 64)


def test_more_memory_than_the_machine_has_is_what_it_has(tree: Tree) -> None:
    tree.own("0::/").mount(V2, "/sys/fs/cgroup")
    tree.file("/sys/fs/cgroup/memory.max", str(1 << 50))
    memory = machine.memory(tree.root)
    assert memory.usable == memory.machine
    tree.file("/sys/fs/cgroup/memory.max", str(1 << 20))
    assert machine.memory(tree.root).usable == 1 << 20


def test_doctor_tells_what_was_found_and_where(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_limits", lambda root: read_limits(tree.root))
    (plain,) = computing.cores()
    assert "allows" not in plain.seen
    tree.own("0::/").mount(V2, "/sys/fs/cgroup")
    tree.file("/sys/fs/cgroup/cpu.max", "150000 100000\n")
    tree.file("/sys/fs/cgroup/memory.max", f"{GIB}\n")
    (cores,), (memory,) = computing.cores(), computing.memory()
    assert cores.seen == f"1 of {os.cpu_count()}; {tree.root}/sys/fs/cgroup/cpu.max allows for 1.5"
    assert memory.seen.endswith(f"limited to 1.0 GiB by {tree.root}/sys/fs/cgroup/memory.max")
