from __future__ import annotations

import numpy as np
import pytest
import torch

from mixed_r1_ray.config import ModelConfig
from mixed_r1_ray.data.images import decode_image
from mixed_r1_ray.data.schema import Record
from mixed_r1_ray.data.synthetic import build_quickstart_data
from mixed_r1_ray.policy import warm_start as module
from mixed_r1_ray.policy.loading import load_policy
from mixed_r1_ray.policy.warm_start import gold_response, warm_start
from mixed_r1_ray.rewards import EmbeddingTable, score
from mixed_r1_ray.vlm.families import load_adapter

FAMILIES = ("internvl", "qwen2_5_vl")


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PICTURES_PER_STEP", 6)
        patch.setattr(module, "PICTURES_PER_FORWARD", 4)
        yield


@pytest.fixture(scope="module")
def train_data(tmp_path_factory):
    return build_quickstart_data(tmp_path_factory.mktemp("data"), train_per_type=40, eval_per_type=4)[0]


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, tmp_path_factory, train_data):
    losses: list[float] = []
    folder = warm_start(
        tmp_path_factory.mktemp("cache"), request.param, train_data, steps=4,
        progress=lambda step, steps, loss: losses.append(loss),
    )  # fmt: skip
    return folder, losses


def box_record(answer="[7, 14, 42, 56]"):
    return Record("1", "s", "iou", (), ((112, 56),), "Where?", answer, None, '{"think": "There."}')


def test_loss_falls(trained):
    _, losses = trained
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 1


def test_the_first_loss_is_that_of_separate_conversations(trained, train_data, tmp_path):
    """Whole chats one at a time, through the model's own forward, against the packed rows."""
    folder, losses = trained
    start = warm_start(tmp_path, load_adapter(ModelConfig(path=str(folder))).model_type, train_data, steps=0)
    policy = load_policy(ModelConfig(path=str(start)), temperature=1.0)
    adapter = policy.adapter
    rows = module._picture_rows(module._read(train_data), adapter)
    records = {record.id: record for record in module._read(train_data)}
    first = next(module._batches(rows, np.random.default_rng(0)))
    total, count = 0.0, 0
    for row in first:
        for record in (record for record in records.values() if record.images[0] == row.image):
            prompt = adapter.encode(adapter.prompt_text(record.question, 1), [decode_image(record.images[0])])
            response = adapter.tokenizer(gold_response(record, adapter) + "<|end|>")["input_ids"]
            ids = torch.tensor([prompt.input_ids.tolist() + response])
            pixels = {name: torch.from_numpy(values) for name, values in prompt.pixels.items()}
            if adapter.model_type == "qwen2_5_vl":
                pixels["mm_token_type_ids"] = (ids == adapter.image_token_id).int()
            with torch.no_grad():
                logits = policy.model(input_ids=ids, **pixels).logits[0, -len(response) - 1 : -1]
            logits[:, list(adapter.banned_token_ids)] = -torch.inf
            logprobs = logits.log_softmax(-1)
            total -= logprobs.gather(1, ids[0, -len(response) :, None]).sum().item()
            count += len(response)
    assert losses[0] == pytest.approx(total / count, abs=1e-4)


def test_it_is_made_once(trained, train_data, monkeypatch):
    folder, _ = trained
    family = load_adapter(ModelConfig(path=str(folder))).model_type
    monkeypatch.setattr(module, "_train", lambda *_: pytest.fail("trained again"))
    assert warm_start(folder.parent, family, train_data, steps=4) == folder
    with pytest.raises(pytest.fail.Exception):
        warm_start(folder.parent, family, train_data, steps=7)


def test_the_same_arguments_give_the_same_weights(trained, train_data, tmp_path):
    folder, _ = trained
    again = warm_start(tmp_path, load_adapter(ModelConfig(path=str(folder))).model_type, train_data, steps=4)
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_an_interrupted_warm_start_leaves_no_checkpoint(train_data, tmp_path):
    def stop(step, steps, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm_start(tmp_path, "internvl", train_data, steps=3, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_gold_boxes_are_in_the_frame_the_family_speaks(trained):
    adapter = load_adapter(ModelConfig(path=str(trained[0])))
    box = {"internvl": "[62, 250, 375, 1000]", "qwen2_5_vl": "[7, 14, 42, 56]"}[adapter.model_type]
    assert gold_response(box_record(), adapter) == f"<think>There.</think><answer>{box}</answer>"


def test_a_gold_response_scores_full_marks(trained, train_data):
    adapter = load_adapter(ModelConfig(path=str(trained[0])))
    embeddings = EmbeddingTable.from_checkpoint(trained[0])
    for record in module._read(train_data):
        size = record.image_sizes[0]
        breakdown = score(
            record.reward_type, gold_response(record, adapter), record.answer, question=record.question,
            choices=record.choices, image_size=size, box_frame=adapter.box_frame(*size),
            embeddings=embeddings,
        )  # fmt: skip
        assert breakdown.format == 1
        rounding = 0.05 if record.reward_type == "iou" else 1e-5  # of pixels to thousandths
        assert breakdown.task == pytest.approx(1, abs=rounding)


def test_the_vocabulary_covers_every_gold_response(trained, train_data):
    adapter = load_adapter(ModelConfig(path=str(trained[0])))
    for record in module._read(train_data):
        ids = adapter.tokenizer(record.question + gold_response(record, adapter))["input_ids"]
        assert adapter.tokenizer.unk_token_id not in ids


def test_fewer_pictures_than_a_step_wants_are_all_taken_by_each_step():
    batches = module._batches(["a", "b", "c"], np.random.default_rng(0))
    assert [sorted(next(batches)) for _ in range(2)] == [["a", "b", "c"]] * 2
