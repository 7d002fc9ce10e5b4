"""Arrays in memory, ``.npy``, ``.npz`` and HDF5."""

from __future__ import annotations

import gzip
import io
import tempfile
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.nddata import CCDData, Cutout2D, NDData
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet import Triplet, open_triplets
from transientnet.errors import ReadError, UsageError
from transientnet.readers.arrays import read
from transientnet.readers.layouts import Layout

STACK = np.random.default_rng(0).normal(100, 5, (5, 3, 21, 19)).astype(np.float32)


def wcs(scale: float = 0.5) -> WCS:
    made = WCS(naxis=2)
    made.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    made.wcs.crval, made.wcs.crpix = [10.0, -20.0], [11, 11]
    made.wcs.cdelt = [-scale / 3600, scale / 3600]
    return made


def same(triplets: list[Triplet], stack: npt.NDArray[Any]) -> bool:
    assert len(triplets) == len(stack)
    return all(
        np.array_equal(stamp, plane, equal_nan=True)
        for triplet, planes in zip(triplets, stack, strict=True)
        for stamp, plane in zip(triplet.stamps, planes, strict=True)
    )


class TestMemory:
    def test_stack_and_single(self) -> None:
        triplets = list(open_triplets(STACK))
        assert same(triplets, STACK)
        assert [triplet.id for triplet in triplets] == ["0", "1", "2", "3", "4"]
        assert same(list(open_triplets(STACK[0])), STACK[:1])

    def test_an_iterable_of_arrays_numbers_its_candidates(self) -> None:
        triplets = list(open_triplets(iter([STACK[0], STACK[1:3], STACK[3]])))
        assert same(triplets, STACK[:4])
        assert [triplet.id for triplet in triplets] == ["0", "1", "2", "3"]

    def test_channels_last(self) -> None:
        assert same(list(open_triplets(np.moveaxis(STACK, 1, -1))), STACK)
        assert same(list(open_triplets(np.moveaxis(STACK[0], 0, -1))), STACK[:1])

    def test_declared_order(self) -> None:
        layout = Layout(order=("difference", "science", "reference"))
        triplet = next(iter(open_triplets(STACK, layout=layout)))
        assert np.array_equal(triplet.difference, STACK[0, 0])
        assert np.array_equal(triplet.science, STACK[0, 1])

    def test_two_channels_by_layout(self) -> None:
        layout = Layout(order=("science", "difference"))
        triplet = next(iter(open_triplets(STACK[:, :2], layout=layout)))
        assert triplet.reference is None
        assert np.array_equal(triplet.difference, STACK[0, 1])

    def test_masked_pixels_are_nan_and_integers_survive(self) -> None:
        counts = np.arange(3 * 5 * 5, dtype=np.int16).reshape(3, 5, 5)
        masked = np.ma.masked_equal(counts, 12)
        triplet = next(iter(open_triplets(masked)))
        assert np.isnan(triplet.science[2, 2])
        assert np.nansum(triplet.science) == counts[0].sum() - 12

    def test_torch_with_gradient(self) -> None:
        torch = pytest.importorskip("torch")
        assert same(list(open_triplets(torch.tensor(STACK, requires_grad=True))), STACK)

    def test_ccddata_cutout_and_none(self) -> None:
        mask = np.zeros((21, 19), bool)
        mask[0, 0] = True
        science = CCDData(STACK[0, 0], unit="adu", mask=mask, wcs=wcs(), header={"FWHM": 3.5})
        difference = Cutout2D(STACK[0, 2], (9, 10), (21, 19), wcs=wcs())
        for source in ((science, None, difference), {"sci": science, "diff": difference, "candid": "k9"}):
            triplet = next(iter(open_triplets(source)))
            assert np.isnan(triplet.science[0, 0])
            assert triplet.reference is None
            assert np.array_equal(triplet.difference, STACK[0, 2])
            assert triplet.pixel_scale == pytest.approx(0.5)
            assert triplet.fwhm == 3.5
        assert triplet.id == "k9"

    @pytest.mark.parametrize("position", [(50, 50), (3, 50), (97, 94), (50, -4)])
    @pytest.mark.parametrize("size", [31, 30])
    def test_a_cutout_trimmed_at_the_edge_has_its_target_in_the_middle(
        self, position: tuple[int, int], size: int
    ) -> None:
        frame = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
        trimmed, whole = (
            next(iter(open_triplets([Cutout2D(frame, position, size, mode=mode)] * 3))).science
            for mode in ("trim", "partial")
        )
        target = np.isfinite(whole)
        assert abs(trimmed.shape[0] - size) <= 1
        assert abs(trimmed.shape[1] - size) <= 1
        if size % 2:
            np.testing.assert_array_equal(trimmed, whole)
        else:
            assert np.isfinite(trimmed).sum() == target.sum()

    def test_nddata_cube(self) -> None:
        triplet = next(iter(open_triplets(NDData(STACK[0], mask=STACK[0] > 110))))
        assert np.isnan(triplet.science).sum() == (STACK[0, 0] > 110).sum()

    def test_mapping_of_stacks(self) -> None:
        source = {"science": STACK[:, 0], "template": STACK[:, 1], "diff": STACK[:, 2], "id": list("abcde")}
        triplets = list(open_triplets(source))
        assert same(triplets, STACK)
        assert [triplet.id for triplet in triplets] == list("abcde")

    @pytest.mark.parametrize(
        "shape", [(7,), (21, 19), (4, 21, 19), (5, 4, 21, 19), (1, 5, 3, 21, 19), (5, 3, 0, 9)]
    )
    def test_wrong_shapes_name_the_right_ones(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(UsageError, match=r"\(N, 3, H, W\)"):
            list(open_triplets(np.zeros(shape, np.float32)))

    @pytest.mark.parametrize("dtype", [complex, "U3", object])
    def test_wrong_dtypes(self, dtype: Any) -> None:
        with pytest.raises(UsageError, match="dtype"):
            list(open_triplets(np.zeros((2, 3, 9, 9)).astype(dtype)))

    @given(
        n=st.integers(1, 4),
        h=st.integers(4, 12),
        w=st.integers(4, 12),
        dtype=st.sampled_from(["<f4", ">f4", "<f8", ">i2", "u1", "<f2"]),
        last=st.booleans(),
    )
    @settings(max_examples=25, deadline=None)
    def test_any_array_comes_back(self, n: int, h: int, w: int, dtype: str, last: bool) -> None:
        stack = np.arange(n * 3 * h * w).reshape(n, 3, h, w).astype(dtype)
        assert same(list(open_triplets(np.moveaxis(stack, 1, -1) if last else stack)), stack)


class TestNumpyFiles:
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_npy(self, tmp_path: Path, order: Any, packed: bool) -> None:
        path = tmp_path / "stamps.dat"
        file = io.BytesIO()
        np.save(file, np.asarray(STACK, order=order))
        path.write_bytes(gzip.compress(file.getvalue(), mtime=0) if packed else file.getvalue())
        triplets = list(open_triplets(path))
        assert same(triplets, STACK)
        assert triplets[0].source == str(path)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz_with_columns_and_mask(self, tmp_path: Path, save: Any) -> None:
        path = tmp_path / "x.npz"
        mask = np.zeros((21, 19), bool)
        mask[3, 4] = True
        save(
            path,
            cutouts=STACK,
            tick_mask=mask,
            candid=np.arange(10, 15),
            objectId=np.array(["a", "a", "b", "b", "c"]),
            pixel_scale=0.33,
            fwhm_px=np.array([2.0, 3.0, np.nan, 4.0, 5.0]),
        )
        triplets = list(open_triplets(path))
        expected = STACK.copy()
        expected[:, :, 3, 4] = np.nan
        assert same(triplets, expected)
        assert [triplet.id for triplet in triplets] == ["10", "11", "12", "13", "14"]
        assert [triplet.group for triplet in triplets] == ["a", "a", "b", "b", "c"]
        assert [triplet.fwhm for triplet in triplets] == [2.0, 3.0, None, 4.0, 5.0]
        assert {triplet.pixel_scale for triplet in triplets} == {0.33}

    def test_npz_separate_members_and_mask_per_candidate(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npz"
        mask = np.zeros((5, 21, 19), np.uint8)
        mask[2, 0, 0] = 1
        np.savez_compressed(path, sci=STACK[:, 0], ref=STACK[:, 1], sub=STACK[:, 2], mask=mask)
        expected = STACK.copy()
        expected[2, :, 0, 0] = np.nan
        assert same(list(open_triplets(path)), expected)

    @pytest.mark.parametrize("reference", ["old", "tmp", "archive"])
    def test_npz_reference_by_another_word(self, tmp_path: Path, reference: str) -> None:
        names = ("new", reference, "sub")
        np.savez(tmp_path / "n.npz", **{name: STACK[:, k] for k, name in enumerate(names)})
        for row, triplet in enumerate(open_triplets(tmp_path / "n.npz")):
            np.testing.assert_array_equal(np.stack(triplet.stamps), STACK[row])

    def test_npz_declares_its_channels(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npz"
        np.savez(path, images=STACK, channels=np.array(["difference", "template", "science"]))
        assert np.array_equal(next(iter(open_triplets(path))).science, STACK[0, 2])

    def test_memory_does_not_grow_with_the_number_of_candidates(self, tmp_path: Path) -> None:
        path = tmp_path / "big.npz"
        big = np.repeat(np.random.default_rng(1).normal(size=(1, 3, 63, 63)).astype(np.float32), 2000, axis=0)
        np.savez(path, triplets=big)
        size = big.nbytes
        del big
        tracemalloc.start()
        assert sum(1 for _ in open_triplets(path)) == 2000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size / 1.5
        assert peak < 64 * 2**20

    def test_objects_are_refused_and_never_unpickled(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return (Path.touch, (tmp_path / "pwned",))

        traps = np.empty((2, 3, 9, 9), object)
        traps[...] = [[[[Trap()] * 9] * 9] * 3] * 2
        np.save(tmp_path / "o.npy", traps, allow_pickle=True)
        np.savez(tmp_path / "o.npz", triplets=traps)
        np.savez(tmp_path / "ids.npz", triplets=STACK, id=traps[0, 0, 0, :5])
        for name in ("o.npy", "o.npz", "ids.npz"):
            with pytest.raises(ReadError, match=r"pickles are never loaded"):
                list(read(str(tmp_path / name), Layout()))
        assert not (tmp_path / "pwned").exists()

    @pytest.mark.parametrize("keep", [0.02, 0.3, 0.9])
    @pytest.mark.parametrize("ending", ["npy", "npz"])
    def test_truncated(self, tmp_path: Path, keep: float, ending: str) -> None:
        path = tmp_path / f"x.{ending}"
        (np.save if ending == "npy" else np.savez_compressed)(path, STACK)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
        triplets = list(open_triplets(path))
        assert triplets[-1].error is not None

    def test_damaged_member_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npz"
        np.savez(path, STACK)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        assert list(open_triplets(path))[-1].error is not None

    def test_a_bomb_is_cut_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRANSIENTNET_MEMORY", "16")
        path = tmp_path / "bomb.npz"
        shape = (5000, 3, 63, 63)
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("x.npy", "w") as member,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(58):
                member.write(bytes(2**20))
        (damaged,) = (triplet for triplet in open_triplets(path) if triplet.error is not None)
        assert "refused" in str(damaged.error)

    def test_a_stamp_of_absurd_size_is_not_allocated(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npz"
        with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as member:
            header = {"descr": "<f8", "fortran_order": False, "shape": (1, 3, 10**7, 10**7)}
            np.lib.format.write_array_header_1_0(member, header)
        assert "limit" in str(next(iter(open_triplets(path))).error)

    def test_other_packing_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive, archive.open("x.npy", "w") as member:
            np.save(member, STACK)
        assert "packed" in str(next(iter(open_triplets(path))).error)

    @pytest.mark.parametrize(("at", "value"), [(6, 255), (8, 1), (10, 99)])
    def test_versions_encryption_and_methods_that_zipfile_does_not_know(
        self, tmp_path: Path, at: int, value: int
    ) -> None:
        path = tmp_path / "x.npz"
        np.savez(path, x=STACK)
        content = bytearray(path.read_bytes())
        entry = content.index(b"PK\x01\x02")
        content[entry + at] = value
        path.write_bytes(content)
        (triplet,) = open_triplets(path)
        assert triplet.error is not None

    @given(st.data())
    @settings(max_examples=60, deadline=None)
    def test_mutated_files_give_rows_or_our_errors(self, data: st.DataObject) -> None:
        file = io.BytesIO()
        small = STACK[:2, :, :6, :6]
        data.draw(st.sampled_from([np.save, np.savez, np.savez_compressed]))(file, small)
        content = bytearray(file.getvalue())
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.bin"
            path.write_bytes(content)
            with suppress(ReadError):
                list(read(str(path), Layout()))

    def test_real_stacks(self, shared_data: Path) -> None:
        triplets = list(open_triplets(shared_data / "decam" / "stamps.npz"))
        assert len(triplets) == 927
        assert all(np.isnan(triplet.science).sum() == 40 for triplet in triplets)

    @pytest.mark.parametrize("packed", [False, True])
    def test_a_candidate_per_array_and_a_stack_per_name(self, tmp_path: Path, packed: bool) -> None:
        save = np.savez_compressed if packed else np.savez
        save(tmp_path / "one.npz", **{f"c{i}": triplet for i, triplet in enumerate(STACK)}, pixel_scale=0.4)
        triplets = list(open_triplets(tmp_path / "one.npz"))
        assert same(triplets, STACK)
        assert [triplet.id for triplet in triplets] == ["c0", "c1", "c2", "c3", "c4"]
        assert {triplet.pixel_scale for triplet in triplets} == {0.4}
        save(tmp_path / "two.npz", real=STACK[:2], bogus=STACK[2:], real_var=STACK[:2], real_mask=STACK[:2])
        triplets = list(open_triplets(tmp_path / "two.npz"))
        assert same(triplets, STACK)
        assert [triplet.id for triplet in triplets] == ["real_0", "real_1", "bogus_0", "bogus_1", "bogus_2"]

    @pytest.mark.parametrize("name", ["ids", "names", "candids", "Ids", "name", "source_ids"])
    def test_ids_in_the_plural(self, tmp_path: Path, name: str) -> None:
        np.savez(tmp_path / "s.npz", x=STACK, **{name: np.array(list("abcde"))})
        assert [triplet.id for triplet in open_triplets(tmp_path / "s.npz")] == list("abcde")


class TestHdf5:
    @pytest.fixture
    def h5py(self) -> Any:
        return pytest.importorskip("h5py")

    def test_stack(self, h5py: Any, tmp_path: Path) -> None:
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            stamps = file.create_dataset("stamps", data=STACK[:, [1, 0, 2]], chunks=True, compression="gzip")
            stamps.attrs["channels"] = ["template", "science", "difference"]
            file["id"] = list("abcde")
            file["objectId"] = np.arange(5) + 7
            file.attrs["pixel_scale"] = 0.4
        triplets = list(open_triplets(path))
        assert same(triplets, STACK)
        assert [triplet.id for triplet in triplets] == list("abcde")
        assert [triplet.group for triplet in triplets] == ["7", "8", "9", "10", "11"]
        assert triplets[0].pixel_scale == 0.4

    def test_three_data_sets(self, h5py: Any, tmp_path: Path) -> None:
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            for i, name in enumerate(("SCI", "REF", "DIFF")):
                file[name] = STACK[:, i]
        assert same(list(open_triplets(path)), STACK)

    def test_stacks_and_columns_in_groups_of_their_own(self, h5py: Any, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "s.h5", "w") as file:
            for k, name in enumerate(("science", "reference", "difference")):
                file[f"{name}/data"] = STACK[:, k]
            file["meta/ids"] = np.array(list("abcde"), "S")
            file["meta/fwhm_px"] = np.full(5, 3.5)
        triplets = list(open_triplets(tmp_path / "s.h5"))
        assert same(triplets, STACK)
        assert [triplet.id for triplet in triplets] == list("abcde")
        assert {triplet.fwhm for triplet in triplets} == {3.5}

    def test_a_data_set_per_candidate(self, h5py: Any, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "s.h5", "w") as file:
            for i, triplet in enumerate(STACK):
                file[f"alerts/c{i}"] = triplet
        triplets = list(open_triplets(tmp_path / "s.h5"))
        assert same(triplets, STACK)
        assert [triplet.id for triplet in triplets] == ["c0", "c1", "c2", "c3", "c4"]

    def test_a_group_per_candidate(self, h5py: Any, tmp_path: Path) -> None:
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            for i, name in enumerate("vwxyz"):
                for channel, plane in zip(("science", "reference", "difference"), STACK[i], strict=True):
                    file[f"candidates/{name}/{channel}"] = plane
                file[f"candidates/{name}"].attrs["fwhm_px"] = 2.0 + i
        triplets = list(open_triplets(path))
        assert same(triplets, STACK)
        assert [triplet.id for triplet in triplets] == list("vwxyz")
        assert triplets[3].fwhm == 5.0
        assert triplets[3].source == str(path)

    @pytest.mark.parametrize("kind", ["external link", "soft link", "external data", "virtual"])
    def test_nothing_outside_the_file_is_read(self, h5py: Any, tmp_path: Path, kind: str) -> None:
        other, path = tmp_path / "other.h5", tmp_path / "x.h5"
        with h5py.File(other, "w") as file:
            file["stamps"] = STACK
        with h5py.File(path, "w") as file:
            if kind == "external link":
                file["stamps"] = h5py.ExternalLink(str(other), "/stamps")
            elif kind == "soft link":
                file["stamps"] = h5py.SoftLink("/elsewhere/stamps")
            elif kind == "external data":
                file.create_dataset("stamps", STACK.shape, "f4", external=[(str(other), 0, STACK.nbytes)])
            else:
                virtual = h5py.VirtualLayout(STACK.shape, "f4")
                virtual[...] = h5py.VirtualSource(str(other), "stamps", STACK.shape)
                file.create_virtual_dataset("stamps", virtual)
        (triplet,) = open_triplets(path)
        assert triplet.error is not None
        assert "link" in triplet.error or "other files" in triplet.error

    def test_unallocated_giant_and_a_cycle(self, h5py: Any, tmp_path: Path) -> None:
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("stamps", (10**9, 3, 63, 63), "f4", chunks=(1, 3, 63, 63))
        assert "refused" in str(next(iter(open_triplets(path))).error)
        with h5py.File(path, "w") as file:
            file.create_group("a")["again"] = file["/"]
        assert all(triplet.error is not None for triplet in open_triplets(path))

    @pytest.mark.parametrize("keep", [0.1, 0.6])
    def test_truncated(self, h5py: Any, tmp_path: Path, keep: float) -> None:
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            file["stamps"] = STACK
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
        assert list(open_triplets(path))[-1].error is not None


def test_a_zip_archive_of_other_files_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "night.zip", "w") as archive:
        archive.writestr("x_sci.fits", b"SIMPLE  =")
    (triplet,) = open_triplets(tmp_path / "night.zip")
    assert "x_sci.fits" in (triplet.error or "")
    assert "unpack it" in (triplet.error or "")
