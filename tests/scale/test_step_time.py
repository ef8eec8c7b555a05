"""The step-time model against numbers worked out by hand on a small architecture and round rates."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_architecture import LANGUAGE, SMALL, VISION

from mixed_r1_ray.config_load import load_config
from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.hardware import DEVICES, Device, Efficiency, HostRates
from mixed_r1_ray.scale.memory import PackedRow
from mixed_r1_ray.scale.operations import decode_bytes, decode_flops, forward_flops, vision_flops
from mixed_r1_ray.scale.step_time import Layout, StepModel
from mixed_r1_ray.scale.workload import Workload

ROUND = Device("round", memory=1e9, memory_rate=1e6, flops=1e6, nvlink_rate=1e6, network_rate=1e5, host_rate=1e6)
IDEAL = Efficiency(1, 1, 1, 1, 1, 1, 1)
FREE = HostRates(0, 0, 0, 0, 0, object_put_rate=1e12, memory_rate=1e5, node_network_rate=1e6)


def model(*words: str, layout: Layout = Layout(), host: HostRates = FREE, device: Device = ROUND) -> StepModel:
    small = ["rollout.prompts_per_step=6", "rollout.group_size=2", "rollout.max_new_tokens=20", "model.max_length=40"]
    small += ["cluster.mean_prompt_tokens=8", "cluster.mean_response_tokens=10", "learner.microbatch_tokens=40"]
    small += ["rollout.num_workers=2", "learner.num_workers=2", "reference.num_workers=1"]
    return StepModel(load_config(["conf=internvl_8b", *small, *words]), SMALL, device, layout, IDEAL, host)


def test_a_layer_has_the_parameters_of_its_matrices():
    # q 4x4+4, k and v 4x2+2 each, o 4x4, MLP 3x4x8, two norms of 4
    assert LANGUAGE.layer_parameters == 20 + 10 + 10 + 16 + 96 + 8
    assert LANGUAGE.parameters == 2 * 160 + 2 * 40 + 4


def test_forward_operations_are_two_a_weight_and_token_and_four_a_width_and_pair():
    row = PackedRow(prompt=8, responses=2, length=10)
    pairs = 8 * 8 / 2 + 20 * 8 + 2 * 10 * 10 / 2
    assert forward_flops(LANGUAGE, row) == 2 * 320 * 28 + 2 * 40 * 20 + 4 * 4 * 2 * pairs
    assert decode_flops(LANGUAGE, 13) == 2 * (320 + 40) + 4 * 4 * 2 * 13
    assert vision_flops(VISION, 2) == 2 * 100 * 8 + 2 * 20 * 2 + 4 * 4 * 1 * 8 * 4


def test_an_8b_forward_takes_about_two_operations_a_parameter_and_token():
    language = read_architecture("OpenGVLab/InternVL3-8B-hf").language
    row = PackedRow(prompt=1, responses=1, length=500)  # short: attention is next to nothing
    used = language.parameters - language.embedding_parameters  # the input embedding is only looked up
    assert forward_flops(language, row) == pytest.approx(2 * used * 501, rel=0.02)


def test_a_decode_step_reads_the_weights_once_and_every_sequences_cache():
    assert decode_bytes(LANGUAGE, batch=3, context=13, number=2) == 2 * (320 + 40) + 3 * 13 * (2 * 2 * 2 * 2)


def test_generation_is_prefill_full_batches_and_the_tail():
    # 12 samples on 2 engines: 6 each, 2 at once; 4 of them x 10 tokens / 2 = 20 steps full, then 20 at a mean of 1
    generate = model("rollout.max_concurrent_sequences=2").generate()
    full, tail = (720 + 2 * 13 * 16) / 1e6, (720 + 1 * 13 * 16) / 1e6
    assert generate.busy["full batches"] == pytest.approx(20 * max(full, 2 * (720 + 32 * 13) / 1e6))
    assert generate.busy["tail"] == pytest.approx(20 * max(tail, (720 + 32 * 13) / 1e6))
    prefill = 2 * 320 * 8 + 32 * 32 + vision_flops(VISION, 8)
    assert generate.busy["prefill"] == pytest.approx(3 * prefill / 1e6)
    assert generate.seconds == pytest.approx(sum(generate.busy.values())) and generate.bound == "arithmetic"


def test_generation_is_bound_by_memory_where_that_is_slower():
    slow = replace(ROUND, memory_rate=1e3)
    assert model(device=slow).generate().bound == "memory bandwidth"
    assert model(host=replace(FREE, decode_step_s=9.0)).generate().bound == "step overhead"


def test_the_batch_is_what_samples_limit_and_cache_allow():
    assert model().batch() == 6  # 12 samples on 2 engines
    assert model("rollout.max_concurrent_sequences=4").batch() == 4
    many = ["rollout.prompts_per_step=1200", "rollout.group_size=4"]  # 2,400 on each engine
    assert model(*many, device=DEVICES["H100"]).batch() == 1024 and model(*many, device=DEVICES["A100"]).batch() == 256
    a_sequence = (8 / 2 + 10) * 16  # half of the prompt, the response; 16 bytes a token
    assert model(layout=Layout(cache_bytes=3 * a_sequence)).batch() == 3


def test_an_engine_over_two_gpus_decodes_twice_as_fast_where_overhead_is_nothing():
    one, two = model(), model("rollout.gpus_per_worker=2")
    assert one.generate().seconds == pytest.approx(2 * two.generate().seconds)


def test_learning_is_four_forwards_with_recomputation_three_without():
    language, vision = forward_flops(LANGUAGE, PackedRow(8, 2, 10)), vision_flops(VISION, 8)
    stored, unfrozen = ["learner.gradient_checkpointing=false"], ["learner.freeze=none"]
    for words, passes, seen in (([], 4, 1), (stored, 3, 1), (unfrozen, 4, 4)):
        found = model(*words).learn().busy["arithmetic"]
        assert found == pytest.approx(6 * (passes * language + seen * vision) / 2e6)


def test_adapters_halve_the_backward_and_are_the_reference_without_a_worker():
    language, vision = forward_flops(LANGUAGE, PackedRow(8, 2, 10)), vision_flops(VISION, 8)
    adapters = ["learner.lora_rank=2", "learner.freeze=vision+projector"]
    found = model(*adapters).learn().busy["arithmetic"]  # two forwards, one backward, one recomputation
    assert found == pytest.approx(6 * (4 * language + 2 * vision) / 2e6)
    assert model(*adapters).reference().seconds == 0
    assert model(*adapters, "algo.beta=0").learn().busy["arithmetic"] == pytest.approx(6 * (3 * language + vision) / 2e6)


def test_two_epochs_of_three_minibatches_are_six_updates_and_a_forward_before_them():
    language, vision = forward_flops(LANGUAGE, PackedRow(8, 2, 10)), vision_flops(VISION, 8)
    learn = model("algo.num_epochs=2", "algo.num_minibatches=3").learn()
    assert learn.busy["arithmetic"] == pytest.approx(6 * ((2 * 4 + 1) * language + 3 * vision) / 2e6)
    assert learn.busy["optimizer"] == pytest.approx(6 * model().learn().busy["optimizer"])


def test_generation_that_runs_ahead_costs_what_outlasts_learning():
    on_policy = {phase.name: phase for phase in model().phases()}
    ahead = {phase.name: phase for phase in model("algo.max_staleness=1").phases()}
    assert on_policy["generate"].seconds > 0
    longer = max(on_policy["generate"].seconds, on_policy["learn"].seconds)
    assert ahead["generate"].seconds + ahead["learn"].seconds == pytest.approx(longer)


def test_zero3_gathers_twice_and_scatters_once_a_microbatch():
    learn = model().learn()
    microbatches = 3  # 6 groups of 28 tokens over 2 ranks of 40
    moved = (2 * 2 * SMALL.parameters + 4 * (SMALL.parameters - 100)) / 2  # bfloat16 weights, float32 gradients
    assert learn.busy["collectives"] == pytest.approx(microbatches * moved / 1e6)
    apart = model(layout=Layout(learner_nodes=2)).learn()
    assert apart.busy["collectives"] == pytest.approx(10 * learn.busy["collectives"])  # network instead of NVLink
    assert model("learner.num_workers=1").learn().busy["collectives"] == 0


def test_an_update_moves_30_bytes_a_parameter_or_crosses_to_the_host():
    numbers = (SMALL.parameters - 100) / 2  # of a rank
    assert model().learn().busy["optimizer"] == pytest.approx(30 * numbers / 1e6)
    offloaded = model("learner.offload=optimizer").learn().busy["optimizer"]
    on_the_host, crossing = 2 * 30 * numbers / 1e5, (3 * 4 + 2) * numbers / 1e6  # two ranks share it; 3 microbatches
    assert offloaded == pytest.approx(on_the_host + crossing)


SENT = 2 * (SMALL.parameters - 100)  # bytes; the tower is frozen


def test_a_sync_through_the_object_store_is_its_copies_one_after_the_other():
    sync = model("rollout.weight_transfer=object_store", layout=Layout(engine_nodes_elsewhere=3)).sync()
    assert sync.busy["gather"] == pytest.approx(SENT / 2 / 1e6)
    assert sync.busy["to the host"] == sync.busy["to the devices"] == pytest.approx(SENT / 1e6)
    assert sync.busy["to other nodes"] == pytest.approx(2 * SENT / 1e6)  # a tree: one node serves one, two serve two
    assert sync.seconds == pytest.approx(sum(sync.busy.values()))


def test_a_broadcast_waits_for_the_slower_of_gather_and_sending_and_then_for_copies():
    beside, apart = model().sync(), model(layout=Layout(engine_nodes_elsewhere=300)).sync()
    copies = 2 * (2 * SENT / 1e6)  # into buckets and out of them, each read and written
    assert beside.bound == "broadcast" and beside.seconds == pytest.approx(SENT / 1e6 + copies)
    assert apart.bound == "broadcast" and apart.seconds == pytest.approx(SENT / 1e5 + copies)


def test_on_shared_gpus_a_sync_is_a_gather_and_two_copies():
    sync = model("cluster.share_gpus=true", "learner.num_workers=1", "rollout.num_workers=1").sync()
    assert sync.busy["gather"] == 0 and sync.seconds == pytest.approx(2 * 2 * SENT / 1e6)


def test_the_reference_costs_what_outlasts_generation_or_all_on_shared_gpus():
    busy = 6 * sum(model().group_flops()) / 1e6
    generate = model().generate().seconds
    phases = {phase.name: phase for phase in model().phases()}
    assert phases["reference"].seconds == pytest.approx(max(0, busy - generate)) and busy > generate
    shared = {phase.name: phase for phase in model("cluster.share_gpus=true").phases()}
    assert shared["reference"].seconds == pytest.approx(busy)
    none = {phase.name: phase for phase in model("algo.beta=0").phases()}
    assert none["reference"].seconds == 0


def test_turns_of_a_2b_model_on_one_gpu():
    config = load_config(["conf=debug", "model.path=OpenGVLab/InternVL3-2B-hf"])
    turns = StepModel(config, read_architecture(config.model.path), DEVICES["H100"]).turns()
    all_weights, trained = 2_088_957_440, 1_776_283_136  # debug trains the language model alone
    rate = 0.7 * 64e9
    there = 2 * trained + 12 * trained  # learner to host: trained bfloat16 weights, float32 copy, two moments
    back = 2 * all_weights + 12 * trained  # frozen ones stay on the host as well, and come back
    assert turns.busy == pytest.approx(
        {
            "rollout": 2 * 2 * all_weights / rate,  # vLLM copies its weights out and in
            "learner": (there + back) / rate,
            "reference": 2 * all_weights / rate,  # the host has them already
        }
    )
    assert turns.seconds == pytest.approx(1.404, abs=1e-3) and turns.bound == "host link"


SHARED = ["cluster.share_gpus=true", "learner.num_workers=2", "rollout.num_workers=2"]


def test_turns_are_of_those_who_share_and_of_what_they_keep():
    all_weights, trained = 2 * SMALL.parameters, SMALL.parameters - 100
    turns = model(*SHARED).turns().busy
    assert turns["learner"] == pytest.approx((all_weights + 2 * trained + 24 * trained) / 2 / 1e6)  # two ranks
    offloaded = model(*SHARED, "learner.offload=optimizer").turns().busy
    assert offloaded["learner"] == pytest.approx((all_weights + 2 * trained) / 2 / 1e6)
    assert "reference" not in model(*SHARED, "algo.beta=0").turns().busy
    alone = model(*SHARED, "learner.gpus_per_worker=0", "reference.gpus_per_worker=0").turns()
    assert alone.busy == {} and alone.seconds == 0
    adapters = ["learner.lora_rank=2", "learner.freeze=vision+projector"]
    changing = SMALL.language.lora_parameters(2)
    moved = all_weights + 2 * changing + (2 + 24) * changing  # back: all; both ways: what is trained
    found = model(*SHARED, *adapters).turns().busy
    assert set(found) == {"rollout", "learner"} and found["learner"] == pytest.approx(moved / 2 / 1e6)


def test_a_step_on_shared_gpus_waits_for_its_turns():
    shared = model("cluster.share_gpus=true")
    phases = {phase.name: phase.seconds for phase in shared.phases()}
    assert phases["turns"] == shared.turns().seconds > 0
    assert shared.seconds() == pytest.approx(sum(phases.values()))
    assert "turns" not in [phase.name for phase in model().phases()]


def test_the_step_is_the_sum_of_what_it_waits_for():
    whole = model(host=replace(FREE, group_driver_s=100.0, patch_s=0.0))
    phases = {phase.name: phase for phase in whole.phases()}
    assert phases["driver"].seconds == pytest.approx(600 - phases["generate"].seconds)
    assert whole.seconds() == pytest.approx(sum(phase.seconds for phase in phases.values()))


def test_expected_lengths_are_the_caps_and_half_the_limit_unless_stated():
    config = load_config(["conf=internvl_8b"])
    architecture = read_architecture(config.model.path)
    assert Workload.expected(config, architecture).response_tokens == 1024
    assert Workload.at_most(config, architecture).response_tokens == 2048
    assert Workload.expected(config, architecture).prompt_tokens == 13 * 256 + 128
    stated = load_config(["conf=internvl_8b", "cluster.mean_response_tokens=300", "cluster.mean_prompt_tokens=700"])
    work = Workload.expected(stated, architecture)
    assert (work.response_tokens, work.prompt_tokens, work.group_tokens) == (300, 700, 700 + 8 * 300)


def test_published_rates_are_those_of_the_data_sheets():
    assert DEVICES["H100"].flops == DEVICES["H200"].flops == 989e12 and DEVICES["A100"].flops == 312e12
    assert [DEVICES[name].memory_rate for name in ("A100", "H100", "H200")] == [2.039e12, 3.35e12, 4.8e12]
