"""Laws that FE2E and MESM must hold, on small models."""

from dataclasses import replace

import pytest
import torch
from reference import assert_all_learn_but_the_listed
from torch.nn import functional as F

import models
from models import ModelError

BOTH = ["fe2e", "mesm"]


@pytest.mark.parametrize("modalities", ["tav", "va"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("gradient", ["straight_through", "none"])
@pytest.mark.parametrize("train", [False, True])
def test_keeping_every_site_is_the_dense_network(build_small, tiny_batch, train, gradient, backend, modalities):
    dense = build_small("fe2e", modalities=modalities)
    sparse = build_small("mesm", top_p=1.0, attention_gradient=gradient, backend=backend, modalities=modalities)
    missing, unexpected = sparse.load_state_dict(dense.state_dict(), strict=False)
    assert not unexpected
    assert set(missing) == set(sparse.parameters_without_gradient())
    outputs = []
    for model in (dense.train(train), sparse.train(train)):
        torch.manual_seed(7)  # the same dropout in both
        outputs.append(model(tiny_batch).logits)
        F.binary_cross_entropy_with_logits(outputs[-1], tiny_batch.labels).backward()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    sparse_grads = {name: parameter.grad for name, parameter in sparse.named_parameters()}
    assert {name for name, grad in sparse_grads.items() if grad is None} == set(sparse.parameters_without_gradient())
    sparse_buffers = dict(sparse.named_buffers())
    for name, parameter in dense.named_parameters():
        torch.testing.assert_close(sparse_grads[name], parameter.grad, rtol=1e-3, atol=1e-5)
    for name, buffer in dense.named_buffers():
        torch.testing.assert_close(sparse_buffers[name], buffer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_logits_do_not_change_with_the_neighbours_in_a_batch(build_small, make_batch, name):
    model = build_small(name).eval()
    together = make_batch(faces=(3, 1, 2), chunks=(2, 4, 1))
    logits = model(together).logits
    face_ends, chunk_ends = together.face_counts.cumsum(0), together.chunk_counts.cumsum(0)
    for i in range(3):
        faces = together.faces[face_ends[i] - together.face_counts[i] : face_ends[i]]
        chunks = together.chunks[chunk_ends[i] - together.chunk_counts[i] : chunk_ends[i]]
        length = int(together.token_mask[i].sum())
        alone = replace(
            together,
            faces=faces,
            face_counts=together.face_counts[i : i + 1],
            chunks=chunks,
            chunk_counts=together.chunk_counts[i : i + 1],
            tokens=together.tokens[i : i + 1, :length],  # no padding either
            token_mask=together.token_mask[i : i + 1, :length],
            ids=together.ids[i : i + 1],
        )
        torch.testing.assert_close(model(alone).logits[0], logits[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_padding_of_text_changes_nothing(build_small, tiny_batch, name):
    model = build_small(name).eval()
    padded = replace(
        tiny_batch, tokens=F.pad(tiny_batch.tokens, (0, 9)), token_mask=F.pad(tiny_batch.token_mask, (0, 9))
    )
    torch.testing.assert_close(model(padded).logits, model(tiny_batch).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("letter", ["a", "v"])
def test_the_order_of_frames_matters(build_small, make_batch, name, letter):
    model = build_small(name, modalities=letter).eval()
    batch = make_batch(faces=(4,), chunks=(4,))
    turned = replace(batch, faces=batch.faces.flip(0), chunks=batch.chunks.flip(0))
    assert (model(turned).logits - model(batch).logits).abs().max() > 1e-4


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("modalities", ["tav", "t", "a", "v", "va", "ta"])
@pytest.mark.parametrize("gradient", ["straight_through", "none"])
def test_every_parameter_learns_or_stands_on_the_list(build_small, tiny_batch, name, modalities, gradient):
    sparse_settings = {"attention_gradient": gradient} if name == "mesm" else {}
    model = build_small(name, modalities=modalities, **sparse_settings)
    F.binary_cross_entropy_with_logits(model(tiny_batch).logits, tiny_batch.labels).backward()
    assert_all_learn_but_the_listed(model)
    if name == "mesm" and gradient == "straight_through" and set(modalities) & set("av"):
        learning = [p.grad.abs().max() for key, p in model.named_parameters() if ".of_map.weight" in key]
        assert min(learning) > 0


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("modalities", "absent"), [("t", ("mel", "face")), ("va", ("text",)), ("tv", ("mel",))])
def test_an_absent_modality_has_no_part_and_no_influence(build_small, make_batch, name, modalities, absent):
    model = build_small(name, modalities=modalities).eval()
    assert not [key for key, _ in model.named_parameters() if any(part in key.split(".") for part in absent)]
    batch = make_batch()
    other = make_batch(seed=1)
    parts = {"face": ["faces"], "mel": ["chunks"], "text": ["tokens"]}
    changed = replace(batch, **{field: getattr(other, field) for part in absent for field in parts[part]})
    assert torch.equal(model(changed).logits, model(batch).logits)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("train", [False, True])
def test_a_batch_without_any_face_or_sound_works(build_small, make_batch, name, train):
    model = build_small(name).train(train)
    before = {key: value.clone() for key, value in model.named_buffers()}
    output = model(make_batch(faces=(0, 0), chunks=(0, 0)), keep_maps=True)
    assert output.logits.shape == (2, 6)
    assert output.logits.isfinite().all()
    assert output.computed["face.active.1"] == 0
    output.logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for key, value in model.named_buffers():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", BOTH)
def test_one_face_and_one_chunk_can_be_trained_on(build_small, make_batch, name):
    model = build_small(name, **({"top_p": 0.01} if name == "mesm" else {}))
    output = model(make_batch(faces=(1,), chunks=(1,)))
    output.logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if name == "mesm":
        assert output.computed["face.active.1"] <= 12  # so small a p leaves next to nothing


def test_a_larger_top_p_computes_more(build_small, tiny_batch):
    done = []
    for top_p in (0.3, 0.6, 0.9):
        model = build_small("mesm", top_p=top_p, backend="torch").eval()
        done.append(model(tiny_batch).computed)
    for part in ("face", "mel"):
        assert done[0][f"{part}.macs"] < done[1][f"{part}.macs"] < done[2][f"{part}.macs"]
        assert done[0][f"{part}.active.1"] < done[1][f"{part}.active.1"] < done[2][f"{part}.active.1"]


def test_maps_and_counts_agree(build_small, tiny_batch):
    output = build_small("mesm").eval()(tiny_batch, keep_maps=True)
    shapes = {"face.1": (5, 24, 24), "face.2": (5, 12, 12), "face.3": (5, 6, 6)}
    shapes |= {"mel.1": (5, 64, 16), "mel.2": (5, 32, 8), "mel.3": (5, 16, 4)}
    assert {key: tuple(value.shape) for key, value in output.kept.items()} == shapes
    for key, mask in output.kept.items():
        part, stage = key.split(".")
        assert mask.flatten(1).any(1).all()
        assert output.computed[f"{part}.active.{stage}"] == mask.sum()
        assert output.computed[f"{part}.share.{stage}"] == mask.double().mean()
    for part in ("face", "mel"):
        parts = [value for key, value in output.computed.items() if key.startswith(f"{part}.macs.")]
        assert output.computed[f"{part}.macs"] == sum(parts)
    assert not build_small("mesm").eval()(tiny_batch).kept


def test_the_query_is_the_utterance_s_own_text(build_small, tiny_batch):
    model = build_small("mesm").eval()
    before = model(tiny_batch, keep_maps=True).kept["face.1"]
    tokens = tiny_batch.tokens.clone()
    tokens[0, 1:5] += 7  # other words in the first utterance, which owns the first three faces
    after = model(replace(tiny_batch, tokens=tokens), keep_maps=True).kept["face.1"]
    assert not torch.equal(after[:3], before[:3])
    assert torch.equal(after[3:], before[3:])


@pytest.mark.parametrize("name", BOTH)
def test_fusion_starts_equal_and_positive_and_weighs_the_scores(build_small, tiny_batch, name):
    model = build_small(name).eval()
    assert {key: value.item() for key, value in model.fusion.named_parameters()} == pytest.approx(
        {"mel": 1 / 3, "face": 1 / 3, "text": 1 / 3}
    )
    with torch.no_grad():
        model.fusion["mel"].zero_()
        model.fusion["face"].zero_()
        model.fusion["text"].fill_(2.0)
        state, _ = model.text(tiny_batch.tokens, tiny_batch.token_mask)
        torch.testing.assert_close(model(tiny_batch).logits, 2.0 * model.heads["text"](state))


def test_no_two_parameters_start_from_the_same_random_weights(build_small):
    model = build_small("mesm")
    drawn = [value for _, value in model.named_parameters() if value.ndim > 1]
    assert len({tuple(value.flatten()[:6].tolist()) for value in drawn}) == len(drawn)


def test_two_seeded_runs_match_bit_for_bit(build_small, tiny_batch):
    def run():
        model = build_small("mesm")
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(3):
            loss = F.binary_cross_entropy_with_logits(model(tiny_batch).logits, tiny_batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    first = run()
    assert first == run()
    assert first[2] < first[0]


def test_multiply_adds_of_the_dense_model_are_torch_s_own_count(build_small, tiny_batch):
    from torch.utils.flop_counter import FlopCounterMode

    model = build_small("fe2e").train()
    with FlopCounterMode(display=False) as counter:
        output = model(tiny_batch)
    total = sum(output.computed[f"{part}.macs"].item() for part in ("text", "mel", "face"))
    heads = sum(head.weight.numel() for head in model.heads.values()) * len(tiny_batch)
    assert counter.get_total_flops() == 2 * (total + heads)


@pytest.mark.parametrize("p", [0, -0.5, 1.5, "half"])
def test_top_p_outside_its_range_is_named(p):
    with pytest.raises(ModelError, match=f"mesm.top_p is {p!r}"):
        models.build("mesm", text_encoder="tiny", top_p=p)


def test_unknown_models_settings_and_modalities_are_named():
    with pytest.raises(ModelError, match="'messm'; known: fe2e, mesm"):
        models.build("messm")
    with pytest.raises(ModelError, match="fe2e has no setting 'top_p'; known: outputs, modalities"):
        models.build("fe2e", top_p=0.5)
    with pytest.raises(ModelError, match="modalities is 'tx'"):
        models.build("fe2e", modalities="tx")
    with pytest.raises(ModelError, match="backend"):
        models.build("mesm", backend="cuda")


def test_model_settings_and_training_settings_share_only_modalities():
    from pipeline.training.settings import TrainSettings

    for config_class, _ in models.REGISTRY.values():
        assert set(config_class.model_fields) & set(TrainSettings.model_fields) <= {"modalities"}
        assert all(field.description for field in config_class.model_fields.values())
