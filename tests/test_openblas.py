"""AVX-512 kernels where the processor has them and OpenBLAS would not see it."""

from pathlib import Path

import pytest

from embedsvc.openblas import NEEDS, choose_kernels

AVX512 = " ".join(sorted(NEEDS))


@pytest.mark.parametrize(
    ("vendor", "flags", "before", "after"),
    [
        ("AuthenticAMD", f"fpu avx2 {AVX512}", {}, {"OPENBLAS_CORETYPE": "SkylakeX"}),
        ("AuthenticAMD", "fpu avx2 avx512f", {}, {}),
        ("GenuineIntel", f"fpu avx2 {AVX512}", {}, {}),  # which it knows
        ("AuthenticAMD", AVX512, {"OPENBLAS_CORETYPE": "Zen"}, {"OPENBLAS_CORETYPE": "Zen"}),
    ],
)
def test_kernels_are_chosen_by_what_the_processor_has(
    tmp_path: Path, vendor: str, flags: str, before: dict[str, str], after: dict[str, str]
) -> None:
    core = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\nbugs\t\t:\n\n"
    (tmp_path / "cpuinfo").write_text(core * 2)
    choose_kernels(before, tmp_path / "cpuinfo")
    assert before == after


def test_where_the_processor_does_not_say_nothing_is_chosen(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    choose_kernels(environ, tmp_path / "absent")
    assert environ == {}
