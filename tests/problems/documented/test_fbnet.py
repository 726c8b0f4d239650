"""FBNet: blocks, spaces, tables of latencies, the supernet's draws, and the search."""

import itertools
import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from bo_surrogates.errors import InputError, RunError
from bo_surrogates.seeding import derive_seed, fixed_seed
from problems.documented.cost import count_cost
from problems.documented.fbnet import (
    FBNet,
    FBNetBlock,
    LatencyTable,
    SearchConfig,
    SuperNet,
    channel_shuffle,
    counted_table,
    derive,
    gumbel_noise,
    latency_loss,
    macro_space,
    make_block,
    measured_table,
    paper_space,
    relaxed_mask,
    search,
    small_space,
    straight_through,
)
from problems.documented.fbnet.blocks import BlockType
from problems.documented.fbnet.search import SearchThenTrain, split_data
from problems.documented.model_files import load_state, save_state
from problems.documented.training import TrainingConfig, run

SMALL = small_space()
TINY = macro_space(
    (1, 8, 8), 10, ((4, 1, 2), (4, 1, 1)), ("k3_e1", "k5_e1_g2", "skip"), stem_channels=4,
    stem_stride=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def supernet():
    """Of the small space, with statistics of two batches in its normalizations."""
    with fixed_seed(0):
        made = SuperNet(SMALL, counted_table(SMALL).rows(SMALL))
        for _ in range(2):
            made(torch.randn(16, 1, 8, 8))
        with torch.no_grad():
            for logits in made.logits:
                logits.normal_()
    return made


def data(n=48):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 8, 8, generator=generator)
    return x, torch.arange(n) % 10


# ---- blocks --------------------------------------------------------------------------------------
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "out"), [(1, 4), (1, 6), (2, 4)])
def test_a_block_is_its_formula(groups, stride, out):
    with fixed_seed(0):
        block = FBNetBlock(BlockType(5, 3, groups), 4, out, stride).eval()
        x = torch.randn(2, 4, 7, 7)
    expand, depthwise, project = (part[0].weight for part in (
        block.expand, block.depthwise, block.project,
    ))  # fmt: skip
    scale = 1 / math.sqrt(1 + 1e-5)  # of a normalization that has seen nothing
    middle = (functional.conv2d(x, expand, groups=groups) * scale).relu()
    if groups > 1:  # channel i of group j to place i groups + j
        middle = middle[:, [j * 6 + i for i in range(6) for j in range(2)]]
    middle = functional.conv2d(middle, depthwise, stride=stride, padding=2, groups=12) * scale
    expected = functional.conv2d(middle.relu(), project, groups=groups) * scale
    if stride == 1 and out == 4:
        expected = expected + x
    torch.testing.assert_close(block(x), expected)


def test_without_the_shuffle_a_group_would_not_see_the_other():
    def sees(block):
        x = torch.zeros(1, 4, 5, 5, requires_grad=True)
        with torch.no_grad():
            for parameter in block.parameters():
                if parameter.ndim > 1:
                    parameter.abs_()
        block(x + 1).sum(dim=(0, 2, 3))[0].backward()
        return (x.grad.sum(dim=(0, 2, 3)) != 0).tolist()

    block = FBNetBlock("k3_e1_g2", 4, 6).eval()
    assert sees(block) == [True] * 4
    shuffled = channel_shuffle(torch.arange(12.0).reshape(1, 12, 1, 1), 3).flatten()
    assert shuffled.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


@pytest.mark.parametrize("bits", [2, 8])
def test_blocks_of_few_bits_have_their_shapes_and_bits(bits):
    with fixed_seed(0):
        block = FBNetBlock(BlockType(3, 2, 1, bits), 4, 4, 2)
        x = torch.randn(2, 4, 7, 7)
    assert block(x).shape == (2, 4, 4, 4)
    plain, few = (count_cost(make_block(n, 4, 4, 2), (4, 7, 7)) for n in ("k3_e2", block.kind.name))
    assert few.total_macs == plain.total_macs
    assert few.ace == plain.total_macs * bits**2


def test_names_lead_to_blocks_and_back():
    for k, e, g, b in itertools.product((3, 5), (1, 6), (1, 2), (4, 16)):
        kind = BlockType(k, e, g, b)
        assert BlockType.parse(kind.name) == kind
    for name, message in (
        ("k3e1", "unknown block 'k3e1'"), ("k4_e1", "kernel_size must be odd"),
        ("k3_e0", "at least 1"), ("k3_e1_b3", "bits must be one of 2, 4, 8, 16"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            BlockType.parse(name)
    with pytest.raises(InputError, match="2 groups do not divide 3"):
        make_block("k3_e1_g2", 3, 4)
    with pytest.raises(InputError, match="a skip needs an output of the input's shape"):
        make_block("skip", 4, 4, 2)


# ---- spaces and costs ----------------------------------------------------------------------------
def test_the_paper_s_space_has_its_layers_shapes_and_cost():
    space = paper_space()
    assert len(space.layers) == 22
    assert [layer.out_channels for layer in space.layers] == (
        [16] + [24] * 4 + [32] * 4 + [64] * 4 + [112] * 4 + [184] * 4 + [352]
    )
    assert [layer.height for layer in space.layers][::4] == [112, 56, 28, 14, 14, 7]
    with_skip = [i for i, layer in enumerate(space.layers) if "skip" in layer.candidates]
    assert with_skip == [0, *(4 * s + i for s in range(5) for i in (2, 3, 4))]
    assert space.size == 9**16 * 8**6
    # By hand: a block of k, e from c to d channels, and the ends.
    architecture = tuple("k3_e6" for _ in space.layers)
    with torch.device("meta"):
        cost = count_cost(FBNet(space, architecture), (3, 224, 224))
    expected = 27 * 16 * 112**2
    side, before = 112, 16
    for channels, count, stride in (
        (16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1),
    ):  # fmt: skip
        for number in range(count):
            after = side // (stride if number == 0 else 1)
            expected += 6 * before * (before * side**2 + (9 + channels) * after**2)
            side, before = after, channels
    expected += 352 * 1984 * 49 + 1984 * 1000
    assert cost.total_macs == expected


def test_the_small_space_s_latencies_lie_between_the_sums_of_minima_and_maxima():
    table = counted_table(SMALL)
    rows = table.rows(SMALL)
    every = {a: table.latency(SMALL, a) for a in SMALL.architectures()}
    assert len(every) == SMALL.size == 400
    assert min(every.values()) == pytest.approx(sum(map(min, rows)), rel=1e-12)
    assert max(every.values()) == pytest.approx(sum(map(max, rows)), rel=1e-12)
    assert (round(min(every.values()), 1), round(max(every.values()), 1)) == (12.1, 62.7)


def test_a_latency_is_the_counted_cost_of_the_blocks():
    architecture = ("k5_e3", "skip", "k3_e1", "k5_e1")
    network = FBNet(SMALL, architecture)
    blocks = count_cost(network.blocks, (8, 8, 8)).total_macs
    ends = count_cost(network, (1, 8, 8)).total_macs - blocks
    assert counted_table(SMALL).latency(SMALL, architecture) == pytest.approx(blocks / 1000 + 4)
    assert ends == 9 * 8 * 64 + 16 * 10
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_candidates_at_other_bits_cost_the_product_of_the_bits():
    space = SMALL.with_bits((4, 16))
    assert space.layers[1].candidates[:2] == ("k3_e1_b4", "k3_e1")
    table, plain = counted_table(space), counted_table(SMALL)
    for few, full in zip(table.rows(space), plain.rows(SMALL), strict=True):
        assert few[0] - 1 == pytest.approx((full[0] - 1) / 16)
        assert few[1] == full[0]


def test_wider_and_larger_networks():
    space = small_space(channel_multiplier=0.6, resolution=12)
    assert [layer.out_channels for layer in space.layers] == [4, 4, 10, 10]
    assert [layer.height for layer in space.layers] == [12, 6, 6, 3]
    network = FBNet(space, ("k3_e1", "skip", "k3_e1", "skip")).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_architectures_that_are_none_are_refused():
    with pytest.raises(InputError, match="has 4 blocks, got 1"):
        FBNet(SMALL, ("k3_e1",))
    with pytest.raises(InputError, match="layer 1 cannot be 'skip'"):
        FBNet(SMALL, ("skip",) * 4)
    with pytest.raises(InputError, match="layer 1 has no candidate"):
        macro_space((1, 8, 8), 10, ((8, 1, 2),), ("skip",), stem_channels=8, stem_stride=1)
    with pytest.raises(InputError, match="at least one layer"):
        macro_space((1, 8, 8), 10, (), stem_channels=8, stem_stride=1)


def test_a_measured_table_is_frozen_in_a_file(tmp_path):
    table = measured_table(TINY, repeats=3)
    assert table.unit == "microseconds"
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table
    keys = {layer.key(block) for layer in TINY.layers for block in layer.candidates}
    assert set(table.entries) == keys
    with pytest.raises(InputError, match="has no entry '8x8x8 -> 8 /2 k3_e1'"):
        table.rows(SMALL)
    with pytest.raises(InputError, match="cannot be read"):
        LatencyTable.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(InputError, match="is no table of latencies"):
        LatencyTable.load(tmp_path / "broken.json")
    facts = json.loads((tmp_path / "table.json").read_text())
    facts["entries"][next(iter(keys))] = -1
    (tmp_path / "negative.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="must be a number >= 0, got -1"):
        LatencyTable.load(tmp_path / "negative.json")
    with pytest.raises(RunError, match="cannot be written"):
        table.save("/dev/null/table.json")
    zeros = LatencyTable(dict.fromkeys(table.entries, 0.0), offset=0.5)
    with pytest.raises(InputError, match="latencies must be above 1"):
        zeros.rows(TINY)


# ---- draws ---------------------------------------------------------------------------------------
def test_the_argmax_of_noisy_logits_is_a_draw_from_their_softmax():
    n = 400_000
    logits = torch.tensor([0.3, -1.0, 1.2, 0.0, -2.5])
    generator = torch.Generator().manual_seed(0)
    drawn = (logits + gumbel_noise(logits.expand(n, -1), generator)).argmax(dim=-1)
    p = logits.softmax(dim=-1).double()
    found = torch.bincount(drawn, minlength=5) / n
    # 5.5 standard errors: exceeded once in ten million by any of the five.
    assert ((found - p).abs() < 5.5 * (p * (1 - p) / n).sqrt()).all()


def test_masks_sum_to_one_and_harden_as_the_temperature_falls():
    logits = torch.linspace(-1, 1, 5).double()
    noise = gumbel_noise(logits.expand(2000, -1), torch.Generator().manual_seed(0))
    entropies = []
    for temperature in (5.0, 1.0, 0.3, 0.05):
        masks = relaxed_mask(logits, noise, temperature)
        torch.testing.assert_close(masks.sum(dim=-1), torch.ones(2000).double())
        entropies.append(torch.special.entr(masks).sum(dim=-1))
    for warm, cold in itertools.pairwise(entropies):
        assert (warm > cold).all()  # of every draw, not in the mean only
    decided = (logits + noise).topk(2).values.diff().abs().squeeze(-1) > 0.05
    cold = relaxed_mask(logits, noise, 1e-3)[decided]
    hard = functional.one_hot((logits + noise).argmax(dim=-1), 5).double()[decided]
    torch.testing.assert_close(cold, hard, atol=1e-12, rtol=0)


def test_straight_through_is_hard_forward_and_soft_backward():
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, dtype=torch.float64)
    soft = relaxed_mask(logits, torch.zeros(5), 0.7)
    (expected,) = torch.autograd.grad((soft * weights).sum(), logits, retain_graph=True)
    hard = straight_through(soft)
    (found,) = torch.autograd.grad((hard * weights).sum(), logits)
    torch.testing.assert_close(hard.detach(), functional.one_hot(soft.argmax(), 5).double())
    assert torch.equal(found, expected)


def test_a_supernet_of_one_hot_masks_is_the_network_of_its_own(supernet):
    supernet.eval()
    x = torch.randn(6, 1, 8, 8)
    table = counted_table(SMALL)
    for architecture in itertools.islice(SMALL.architectures(), 0, None, 37):
        masks = supernet.one_hot(architecture)
        with torch.no_grad():
            alone = supernet.extract(architecture)(x)
            torch.testing.assert_close(supernet(x, masks), alone, atol=1e-6, rtol=0)
        assert float(supernet.latency(masks)) == pytest.approx(
            table.latency(SMALL, architecture), rel=1e-15
        )
    with torch.no_grad():
        best = supernet.extract(supernet.architecture)(x)
        torch.testing.assert_close(supernet(x), best, atol=1e-6, rtol=0)


def test_the_latency_s_gradient_is_the_softmax_s_jacobian(supernet):
    tau, rows = 1.7, supernet.latencies()
    noises = [gumbel_noise(logits) for logits in supernet.logits]
    thetas = [logits.detach().double().requires_grad_() for logits in supernet.logits]
    masks = [relaxed_mask(t, n, tau) for t, n in zip(thetas, noises, strict=True)]
    config = SearchConfig(loss="additive", penalty=1.0)
    latency_loss(torch.zeros((), dtype=torch.float64), supernet.latency(masks), config).backward()
    latency = sum(float(m.detach() @ row) for m, row in zip(masks, rows, strict=True))
    for theta, mask, row in zip(thetas, masks, rows, strict=True):
        m = mask.detach()
        torch.testing.assert_close(theta.grad, m * (row - m @ row) / (tau * latency))


def test_the_product_s_gradient_has_beta_over_the_logarithm():
    cross_entropy = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    latency = torch.tensor(40.0, dtype=torch.float64, requires_grad=True)
    config = SearchConfig(alpha=0.3, beta=2.5)
    loss = latency_loss(cross_entropy, latency, config)
    loss.backward()
    assert loss.item() == pytest.approx(1.3 * 0.3 * math.log(40) ** 2.5)
    # d ln L / d ln(ln LAT) = beta
    assert latency.grad.item() * 40 * math.log(40) / loss.item() == pytest.approx(2.5)
    assert cross_entropy.grad.item() == pytest.approx(loss.item() / 1.3)


def test_the_expected_latency_is_the_mean_over_samples(supernet):
    generator = torch.Generator().manual_seed(0)
    table, n = counted_table(SMALL), 1000
    drawn = torch.tensor([table.latency(SMALL, supernet.sample(generator)) for _ in range(n)])
    error = float(drawn.std()) / math.sqrt(n)
    assert abs(float(drawn.mean()) - supernet.expected_latency()) < 5.5 * error


def test_a_supernet_is_refused_what_is_not_its_own():
    rows = counted_table(TINY).rows(TINY)
    for options, message in (
        ({"rows": rows[:1]}, "a row a layer"), ({"temperature": 0.0}, "must be positive"),
        ({"sampling": "hard"}, "sampling must be one of soft, straight-through"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            SuperNet(TINY, **{"rows": rows, **options})


# ---- the search ----------------------------------------------------------------------------------
def weights_and_logits(network):
    parameters = dict(network.named_parameters())
    return (
        {k: v.detach().clone() for k, v in parameters.items() if not k.startswith("logits")},
        {k: v.detach().clone() for k, v in parameters.items() if k.startswith("logits")},
    )


def moved(before, after):
    return any(not torch.equal(before[name], after[name]) for name in before)


def test_weights_and_logits_learn_in_turns_on_data_of_their_own():
    x, y = data()
    config = SearchConfig(epochs=2, warmup=0.5, batch_size=8)
    trainer = search(TINY, counted_table(TINY), x, y, config, seed=0)
    of_weights, of_logits = split_data(x, y, 0.8, 0)
    assert sorted([*of_weights.tolist(), *of_logits.tolist()]) == list(range(48))
    assert len(of_weights) == 38
    for training, indices in zip(trainer.trainings, (of_weights, of_logits), strict=True):
        assert torch.equal(training.x, x[indices])
    weights, logits = weights_and_logits(trainer.network)
    trainer.run_epoch()  # the logits rest
    assert trainer.network.temperature == 5.0
    now = weights_and_logits(trainer.network)
    assert moved(weights, now[0])
    assert not moved(logits, now[1])
    trainer.trainings[0].epoch = 1
    trainer.trainings[0].run_epoch()
    alone = weights_and_logits(trainer.network)
    assert moved(now[0], alone[0])
    assert not moved(logits, alone[1])
    trainer.trainings[1].epoch = 1
    trainer.trainings[1].run_epoch()
    then = weights_and_logits(trainer.network)
    assert not moved(alone[0], then[0])
    assert moved(logits, then[1])
    assert trainer.network.temperature == pytest.approx(5.0 * 0.84)


def test_pressure_alone_leads_to_the_fastest_architecture():
    x, y = data()
    config = SearchConfig(
        epochs=3, warmup=0.0, loss="additive", penalty=100.0, logits_rate=0.3, batch_size=16,
        logits_batch_size=4, split=0.5, sampling="straight-through",
    )  # fmt: skip
    trainer = search(TINY, counted_table(TINY), x, y, config, seed=0)
    before = trainer.network.expected_latency()
    run(trainer)
    table = counted_table(TINY)
    fastest = min(TINY.architectures(), key=lambda a: table.latency(TINY, a))
    assert trainer.network.architecture == fastest
    assert trainer.network.expected_latency() < before


def test_of_samples_the_one_of_the_least_loss_is_kept(supernet):
    supernet.eval()
    x, y = data(20)
    heavy = SearchConfig(derivation="sample", samples=12, loss="additive", penalty=100.0)
    found = derive(supernet, x, y, heavy, seed=0)
    generator = torch.Generator().manual_seed(derive_seed(0, "samples"))
    table = counted_table(SMALL)
    some = [table.latency(SMALL, supernet.sample(generator)) for _ in range(12)]
    assert table.latency(SMALL, found) == min(some)
    assert derive(supernet, x, y, SearchConfig(), seed=0) == supernet.architecture
    assert derive(supernet, x, y, heavy, seed=0) == found


@pytest.mark.parametrize("derivation", ["argmax", "sample"])
def test_search_and_training_resume_at_any_epoch(derivation, tmp_path):
    x, y = data()
    config = SearchConfig(
        epochs=3, batch_size=8, warmup=0.3, derivation=derivation, logits_rate=0.3
    )
    recipe = TrainingConfig(epochs=2, batch_size=16)

    def make():
        return SearchThenTrain(TINY, counted_table(TINY), x, y, config, recipe, seed=1)

    whole = make()
    losses = run(whole)
    assert isinstance(whole.network, FBNet)
    for stop in (1, 3, 4):
        first = make()
        for _ in range(stop):
            first.run_epoch()
        save_state(tmp_path / "state", first.state())
        second = make()
        second.restore(load_state(tmp_path / "state"))
        assert second.epoch == stop
        assert run(second) == losses[stop:]
        assert second.network.architecture == whole.network.architecture
        for name, tensor in whole.network.state_dict().items():
            assert torch.equal(second.network.state_dict()[name], tensor)


def test_what_is_found_is_trained_from_weights_of_its_own():
    x, y = data()
    config = SearchConfig(epochs=1, batch_size=8)
    recipe = TrainingConfig(epochs=1, batch_size=16, learning_rate=1e-8)
    trainer = SearchThenTrain(TINY, counted_table(TINY), x, y, config, recipe, seed=1)
    trainer.run_epoch()
    inherited = trainer.network.extract(trainer.network.architecture)
    trainer.run_epoch()
    pairs = zip(inherited.parameters(), trainer.network.parameters(), strict=True)
    differ = [not torch.allclose(a, b, atol=1e-3) for a, b in pairs if a.ndim > 1]
    assert all(differ)


def test_a_search_needs_images():
    x, y = data(3)
    with pytest.raises(InputError, match="at least 4 inputs, got 3"):
        search(TINY, counted_table(TINY), x, y, SearchConfig(), seed=0)


def test_only_networks_of_the_method_are_searched():
    from problems.documented.fbnet.search import drawn_loss

    x, y = data(4)
    with pytest.raises(InputError, match="expected a SuperNet, got Linear"):
        drawn_loss(nn.Linear(2, 2), x, y, SearchConfig())
