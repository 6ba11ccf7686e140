from __future__ import annotations

import torch

from isofire.training.seeds import augment_generator, epoch_order, seed_model

CPU = torch.device("cpu")


def test_every_epoch_and_seed_has_its_own_order_of_all_images() -> None:
    orders = [epoch_order(100, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(100)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 9
    assert torch.equal(epoch_order(100, 1, 2), epoch_order(100, 1, 2))


def test_every_step_and_process_augments_with_its_own_draws() -> None:
    places = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    draws = {torch.rand(1, generator=augment_generator(*place, CPU)).item() for place in places}
    assert len(draws) == 5


def test_the_model_draws_the_same_at_the_same_place_and_not_as_the_augmentation() -> None:
    with torch.random.fork_rng():
        seed_model(0, 1, 2, 3, CPU)
        first = torch.rand(4)
        seed_model(0, 1, 2, 3, CPU)
        assert torch.equal(torch.rand(4), first)
    assert not torch.equal(torch.rand(4, generator=augment_generator(0, 1, 2, 3, CPU)), first)


def test_a_seed_of_any_size_is_taken() -> None:
    assert len(epoch_order(5, 2**80, 0)) == 5
