"""Machines are records: a laptop, a card of 24 GB, an H100 and a CPU are data."""

import itertools
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.backbones.blueprints import blueprint_of
from longtake.backbones.hunyuan.buckets import BUCKETS, Bucket
from longtake.backbones.placement import PROFILES
from longtake.backbones.workload import Operations
from longtake.errors import HardwareError, InputError, ModelError, ScheduleError
from longtake.pipeline import Request
from longtake.pipeline.checkup import Wish, check_up
from longtake.pipeline.machine import Device, Machine, probe_machine, remarks_on
from longtake.pipeline.needs import check_hardware, choose_need, fit_of, needs_of, seconds_of, usable
from longtake.pipeline.rates import DECODING_SHARE, GATHERED, Rates, measure_rates
from longtake.pipeline.request import resolve
from longtake.pipeline.work import grid_of, work_at, work_of
from longtake.plan import INVERTED
from longtake.schedule import parse

GIB = 2**30
SIZE = Bucket(640, 608)
H100 = Rates(
    linear=752e12, attention=586e12, copy=3.0e12, link=55e9, decoding=DECODING_SHARE * 752e12
)  # measured on one


def machine(device, host=64.0, kind="cuda", kernel="flash", **more):
    """A machine with so many GiB, a twentieth of them in use."""
    total, memory = int(device * GIB), int(host * GIB)
    card = Device(
        kind=kind, name="a card", total=total, free=int(0.95 * total), capability="8.9" if kind == "cuda" else "",
        bf16=kind != "cpu", fp8=kind == "cuda", kernels=("native", kernel), kernel=kernel, link="16.0 GT/s PCIe x16",
    )  # fmt: skip
    free = int(0.95 * memory)
    return replace(
        Machine(
            device=card, host=memory, host_free=free, pinnable=max(0, free - 2 * GIB), cores=8, hub=Path("hub"),
            hub_free=10**12, folder=Path("here"), folder_free=10**12, system="Linux", torch="2.13.0", cuda="13.0",
            driver=True,
        ),
        **more,
    )  # fmt: skip


def with_card(**card):
    """A machine whose card is another."""
    here = machine(8)
    return replace(here, device=replace(here.device, **card))


CPU = machine(32, 32, kind="cpu", kernel="native", cuda="", driver=False)


@cache
def blueprint(name="framepack-i2v", dtype=torch.bfloat16):
    return blueprint_of(name, dtype)


@cache
def framepack(size=SIZE):
    parsed = parse(INVERTED)
    return work_at(blueprint(), size, parsed, 25, 1, parsed.context_tokens(*grid_of(blueprint(), size)))


@cache
def needs(size=SIZE):
    return needs_of(blueprint(), framepack(size), machine(24).device)


def choose(here, profile="auto"):
    return choose_need("framepack-i2v", needs_of(blueprint(), framepack(), here.device), here, profile)


def by_name(size, tiling):
    return {need.name: need for need in needs(size) if need.tiling == tiling}


@pytest.mark.parametrize(
    ("here", "profile", "tiling", "encoders"),
    [
        (machine(6, 32), "streamed-tables", "tiles", "host"),  # a laptop
        (machine(6, 24), "staged-tables", "tiles", "host"),  # one with less
        (machine(8, 64), "streamed-tables", "halves", "host"),
        (machine(12, 64), "streamed-tables", "whole", "host"),
        (machine(16, 64), "streamed-tables", "whole", "device"),  # just so
        (machine(24, 64), "streamed-tables", "whole", "device"),
        (machine(80, 256), "resident", "whole", "device"),
    ],
)
def test_a_machine_gets_the_first_profile_that_fits(here, profile, tiling, encoders):
    need = choose(here)
    assert (need.name, need.tiling, need.encoders) == (profile, tiling, encoders)
    assert fit_of(need, here).fits


def test_needs_are_what_the_plan_of_placing_computes_and_what_was_measured():
    whole = by_name(SIZE, "whole")
    assert set(whole) == {profile.name for profile in PROFILES}
    assert round(whole["resident"].placement.device / GIB, 1) == 26.0  # the peak of the eager step, H200 and H100
    # Measured with compiled blocks, which take less than those that are counted: 2.23 GiB, and 16.88 pinned.
    assert 2.23 < whole["streamed-tables"].placement.device / GIB < 3.4
    assert whole["streamed-tables"].pinned / GIB == pytest.approx(16.88, abs=0.01)
    assert all(need.device >= need.placement.device + 0.45 * GIB for need in needs())  # beside the codec
    assert by_name(SIZE, "halves")["streamed-tables"].device < 5.5 * GIB


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(BUCKETS), st.sampled_from(["whole", "halves", "tiles"]))
def test_more_streaming_never_needs_more_of_the_device(size, tiling):
    ways = by_name(size, tiling)
    order = ("resident", "resident-tables", "streamed-tables")
    for more, less in itertools.pairwise(order):
        assert ways[less].device < ways[more].device
    assert ways["streamed"].device < ways["resident"].device
    assert ways["streamed-tables"].device < ways["streamed"].device
    for name in ("streamed", "streamed-tables"):
        staged = ways[name.replace("streamed", "staged")]
        assert staged.device == ways[name].device
        assert staged.pinned < ways[name].pinned
    assert ways["streamed-fp8"].pinned < ways["streamed"].pinned


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(BUCKETS))
def test_tiles_never_need_more_than_whole_pictures(size):
    whole, halves, tiles = (by_name(size, tiling) for tiling in ("whole", "halves", "tiles"))
    assert all(tiles[name].device <= halves[name].device <= whole[name].device for name in whole)


memories = st.floats(0.5, 100.0)
profiles = st.sampled_from(["auto", *(profile.name for profile in PROFILES)])


@settings(deadline=None, max_examples=200)
@given(memories, memories, memories, profiles)
def test_a_refusal_names_a_profile_that_fits_or_there_is_none(device, host, pinnable, profile):
    here = machine(device, host, pinnable=int(min(pinnable, host) * GIB))
    wanted = [n for n in needs() if n.name == profile or (profile == "auto" and n.lossless)]
    if any(fit_of(need, here).fits for need in wanted):
        need = choose_need("it", needs(), here, profile)
        assert need in wanted
        assert fit_of(need, here).fits
        return
    with pytest.raises(HardwareError, match="too few") as refused:
        choose_need("it", needs(), here, profile)
    named = re.search(r"--profile (\S+?)(,|$)", str(refused.value), flags=re.MULTILINE)
    if named:
        assert fit_of(choose_need("it", needs(), here, named.group(1)), here).fits
    else:
        assert not any(fit_of(need, here).fits for need in needs())


@settings(deadline=None, max_examples=100)
@given(memories, memories, st.floats(0, 50), st.floats(0, 50))
def test_a_larger_machine_does_what_a_smaller_one_does(device, host, more, most):
    small, large = machine(device, host), machine(device + more, host + most)
    for need in needs():
        assert fit_of(need, large).fits or not fit_of(need, small).fits


def test_a_refusal_says_by_how_much():
    with pytest.raises(HardwareError, match=r"(?s)streamed-tables needs 4\.4 GiB on a card, 3\.5 GiB can be used: 0\."):
        choose(machine(4, 64))
    with pytest.raises(HardwareError, match=r"staged-tables needs 16\.. GiB of the host's memory"):
        choose(machine(8, 16))
    with pytest.raises(HardwareError, match=r"resident needs .*\n  this would do: --profile streamed-tables$"):
        choose(machine(6, 32), "resident")


def test_a_smaller_size_is_advised_where_it_would_help():
    with pytest.raises(HardwareError, match="a smaller --height and --width need less"):
        choose(machine(4, 64))
    with pytest.raises(HardwareError) as refused:
        choose(machine(8, 8))
    assert "smaller" not in str(refused.value)


def test_a_profile_that_rounds_is_never_chosen_but_is_named():
    # Room for blocks of 8 bits and not for those of 16, pinned or as they are.
    here = machine(24, 64, host_free=21 * GIB, pinnable=12 * GIB)
    lossy = tuple(need for need in needs() if need.name in ("streamed-tables", "streamed-tables-fp8"))
    with pytest.raises(HardwareError, match=r"--profile streamed-tables-fp8, which rounds the matrices to fp8"):
        choose_need("it", lossy, here)
    assert not choose_need("it", lossy, here, "streamed-tables-fp8").lossless


def test_a_profile_that_there_is_not_is_refused():
    with pytest.raises(InputError, match=r"profile 'swapped': there is no such profile; there are auto, resident, "):
        choose_need("it", needs(), machine(24), "swapped")
    ways = needs_of(blueprint(), framepack(), CPU.device)
    with pytest.raises(InputError, match=r"cannot be placed so on cpu; there are auto, resident$"):
        choose_need("it", ways, CPU, "streamed")


def test_memory_that_is_shared_is_counted_once():
    for kind in ("cpu", "mps"):
        ways = needs_of(blueprint(), framepack(), machine(32, 32, kind=kind).device)
        assert {need.name for need in ways} == {"resident"}
        assert all(need.host == need.device and not need.pinned for need in ways)
    with pytest.raises(HardwareError, match=r"of memory, 28\.. GiB can be used"):
        choose_need("framepack-i2v", needs_of(blueprint(dtype=torch.float32), framepack(), CPU.device), CPU)


def test_two_transformers_take_twice_the_weights():
    both, one = blueprint("wan2.2-a14b"), blueprint("wan2.1-t2v-14b")
    size, schedule = Bucket(480, 832), parse("f1k1_g9")
    ways = [needs_of(b, work_at(b, size, schedule, 40, 2, 1560), machine(80).device) for b in (both, one)]
    two, single = ({need.name: need for need in each} for each in ways)
    assert two["streamed"].pinned == 2 * single["streamed"].pinned
    more = two["resident"].device - single["resident"].device
    assert more == pytest.approx(single["resident"].placement.weights, rel=1e-6)


PLAIN = replace(CPU.device, kind="mps")  # for which blocks have no kernels


def test_seconds_are_the_measured_ones_on_an_h100():
    resident, *_ = needs()
    seconds = seconds_of(framepack(), resident, H100, PLAIN)
    assert seconds.step == pytest.approx(1.153, rel=0.01)  # what the traffic was found from
    assert seconds.decoding == pytest.approx(1.21, rel=0.01)  # and the share of decoding
    assert seconds.section == pytest.approx(25 * seconds.step + seconds.decoding)


def test_seconds_of_an_h200_are_near_those_that_were_measured():
    """Where nothing was found from it: 1.111 s. Its memory copies 4.8 / 3.35 as fast as an H100's."""
    h200 = replace(H100, copy=3.0e12 * 4.8 / 3.35)
    assert seconds_of(framepack(), needs()[0], h200, PLAIN).step == pytest.approx(1.111, rel=0.1)


def test_seconds_of_fused_blocks_are_near_those_that_were_measured():
    """0.842 s on an H100, of whose rates nothing was found, and 0.830 on the H200 they were found from."""
    gpu, resident = machine(80).device, needs()[0]
    assert seconds_of(framepack(), resident, H100, gpu).step == pytest.approx(0.842, rel=0.05)
    h200 = replace(H100, linear=729e12, attention=602e12, copy=3.171e12)
    assert seconds_of(framepack(), resident, h200, gpu).step == pytest.approx(0.830, rel=0.01)


def test_a_step_waits_for_weights_that_come_slower_than_it_computes():
    work = Operations(linear=1e12, attention=1e12)
    rates = Rates(linear=1e12, attention=2e12, copy=1e12, link=10e9, decoding=1e12)
    assert rates.step(work, traffic=1e12) == pytest.approx(2.5)
    assert rates.step(work, 1e12, transfer=int(20e9)) == pytest.approx(2.5)  # hidden behind what is computed
    assert rates.step(work, 1e12, transfer=int(40e9)) == pytest.approx(4.0)
    assert rates.step(work, 1e12, transfer=int(40e9), staged=True) == pytest.approx(40e9 / GATHERED)


def test_guidance_is_work():
    one, two = (check_up("embedded", CPU, H100, Wish(guidance=guidance)) for guidance in (1.0, 3.0))
    assert two.seconds[two.needs[0]].step == pytest.approx(2 * one.seconds[one.needs[0]].step)


def config_of(model, **said):
    found = blueprint(model, torch.float32)
    request = Request(image=Path("start.png"), model=model, **said)
    return resolve(request, found.settings, (found.grid, found.grid), found.temporal_ratio, "0" * 32)


def test_the_work_of_a_config_is_that_of_its_fullest_section():
    config = config_of("framepack-i2v", seconds=12.0)
    assert work_of(blueprint(dtype=torch.float32), config).tokens == framepack().tokens
    short = work_of(blueprint(dtype=torch.float32), config_of("framepack-i2v", seconds=1.2))
    assert short.tokens.noisy == framepack().tokens.noisy
    guided = config_of("framepack-i2v", guidance=2.0, history_guidance=2.0)
    assert work_of(blueprint(dtype=torch.float32), guided).passes == 3


def test_a_video_is_checked_before_anything_is_loaded():
    assert check_hardware("embedded", config_of("embedded"), "auto", CPU).name == "resident"
    config = config_of("framepack-i2v", seconds=60.0)
    assert check_hardware("framepack-i2v", config, "auto", machine(6, 32)).name == "streamed-tables"
    assert check_hardware("framepack-i2v", config, "staged-tables", machine(6, 32)).name == "staged-tables"
    with pytest.raises(HardwareError, match="--profile streamed-tables"):
        check_hardware("framepack-i2v", config, "resident", machine(6, 32))
    with pytest.raises(ModelError, match="unknown model"):
        check_hardware("framepack", config, "auto", machine(6, 32))


def test_a_kernel_of_attention_is_one_that_the_device_has():
    config, framepack = config_of("embedded"), config_of("framepack-i2v")
    assert check_hardware("embedded", config, "auto", CPU, "native").name == "resident"
    with pytest.raises(InputError, match=r"attention 'flash': a card .* in float32; there are auto, native"):
        check_hardware("embedded", config, "auto", CPU, "flash")
    with pytest.raises(ModelError, match="always masks, which flash cannot: cudnn or efficient can"):
        check_hardware("hunyuanvideo", framepack, "auto", machine(80, 64), "flash")


def test_what_a_package_stores_stays_on_the_device(monkeypatch):
    for package in ("torchao", "bitsandbytes"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    config = config_of("framepack-i2v", storage="int8:torchao")
    assert check_hardware("framepack-i2v", config, "auto", machine(24)).name == "resident-tables"
    with pytest.raises(HardwareError, match=r"torchao's blocks cannot be streamed; those of --storage int8 can"):
        check_hardware("framepack-i2v", config, "auto", machine(8))
    with pytest.raises(InputError, match="there are auto, resident, resident-tables"):
        check_hardware("framepack-i2v", config, "streamed", machine(24))
    small = config_of("framepack-i2v", storage="nf4:bitsandbytes")
    assert check_hardware("framepack-i2v", small, "auto", machine(16)).device < 16 * GIB


def test_a_folder_is_checked_as_a_name_is(tiny_backbone_folder):
    name = str(tiny_backbone_folder)
    found = blueprint_of(name, torch.float32)
    request = Request(image=Path("start.png"), model=name)
    config = resolve(request, found.settings, (found.grid, found.grid), found.temporal_ratio, "0" * 32)
    assert check_hardware(name, config, "auto", CPU).name == "resident"


def test_a_checkup_says_what_is_to_be_done(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    here = machine(6, 32, hub_free=10**9, folder_free=10**5)
    found = check_up("framepack-i2v", here, H100, Wish())
    assert found.chosen
    assert not found.ready
    assert found.download == pytest.approx(42.8e9, rel=0.01)
    disk, fetch, room = found.remedies
    assert "HF_HOME names another place" in disk
    assert "longtake models framepack-i2v --fetch" in fetch
    assert "--output names another place" in room
    assert check_up("embedded", CPU, H100, Wish()).ready


@pytest.mark.parametrize(
    ("wish", "error", "message"),
    [
        (Wish(height=100), InputError, "a height of 100 is off the model's grid of 16 pixels; try 96 or 112"),
        (Wish(width=0), InputError, "a width of 0 is off"),
        (Wish(steps=0), InputError, "0 steps and a guidance of 1: expected 1 or more"),
        (Wish(guidance=0.5), InputError, "expected 1 or more"),
        (Wish(schedule="f1"), ScheduleError, "f1"),
        (Wish(profile="streamed"), InputError, "cannot be placed so on cpu"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(wish, error, message):
    with pytest.raises(error, match=message):
        check_up("embedded", CPU, H100, wish)


@pytest.mark.parametrize(
    ("here", "remark"),
    [
        (replace(CPU, driver=True), "uv pip install --torch-backend=auto"),
        (replace(CPU, driver=True, cuda="13.0"), "PyTorch sees no GPU"),
        (CPU, "the embedded model is made for that"),
        (machine(16, 16, kind="mps"), "blocks cannot be streamed"),
        (machine(8, kernel="tiled"), "no fused attention kernel in bfloat16"),
        (with_card(bf16=False), "emulated"),
        (with_card(free=5 * GIB), "other programs hold 3.0 GiB"),
        (with_card(capability="9.0"), "pip install 'longtake[flash-attn-4]'"),
    ],
)
def test_what_is_odd_of_a_machine_is_said(here, remark):
    (said,) = remarks_on(here)
    assert remark in said


def test_nothing_is_odd_of_a_good_card():
    assert not remarks_on(machine(24))
    assert not remarks_on(with_card(capability="9.0", kernels=("native", "flash-attn-4")))


def test_this_machine_can_be_probed_and_measured(tmp_path):
    here = probe_machine(torch.device("cpu"), tmp_path / "not" / "yet")
    assert here.device.kernel == "native"
    assert 0 < here.host_free <= here.host
    assert 0 < usable(here.device) < here.device.free
    assert 0 <= here.pinnable <= here.host_free
    assert here.cores >= 1
    assert here.folder_free > 0
    rates = measure_rates(torch.device("cpu"), torch.float32, "native")
    assert all(rate > 1e6 for rate in (rates.linear, rates.attention, rates.copy, rates.link, rates.decoding))
    assert measure_rates(torch.device("cpu"), torch.float32, "tiled").attention > 1e6


@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_files_are_free_memory_in_a_container(version, tmp_path, monkeypatch):
    limit, use, stat = (
        ("memory.max", "memory.current", "memory.stat")
        if version == 2
        else ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat")
    )
    total = "total_" if version == 1 else ""
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text(f"{512 << 20}\n")
    (tmp_path / use).write_text(f"{500 << 20}\n")
    (tmp_path / stat).write_text(f"anon 1\n{total}inactive_file {300 << 20}\n{total}active_file {100 << 20}\n")
    monkeypatch.setattr("longtake.pipeline.machine._CONTAINER", tmp_path)
    here = probe_machine(torch.device("cpu"), tmp_path)
    assert (here.host, here.host_free) == (512 << 20, 412 << 20)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Argument aux_data:UserWarning")  # of FlashAttention 4's compiler
def test_a_gpu_can_be_probed_and_measured(tmp_path):
    device = torch.device("cuda")
    here = probe_machine(device, tmp_path)
    assert here.device.kind == "cuda"
    assert 0 < here.device.free <= here.device.total
    assert here.device.kernel in here.device.kernels
    rates = measure_rates(device, torch.bfloat16, here.device.kernel)
    assert rates.linear > 1e12
    assert rates.attention > 1e12
    assert rates.link < rates.copy
