"""Taps: named places in a model where a function may read or replace an activation.

Reading attention, ablating heads and patching activations are one mechanism: `model(tokens, taps=taps)` with
{place: function}, where each function gets the activation and returns what the model goes on with. The places:

    embed          (B, L, D)     the stream before the first layer
    {i}.attention  (B, H, L, Y)  attention weights of layer i on Y key slots, whose rows sum to 1
    {i}.heads      (B, L, H, D)  what each head has read, before the output projection
    {i}.mlp        (B, L, D)     what the MLP adds to the stream
    {i}.out        (B, L, D)     the stream after layer i
"""

from collections.abc import Callable, Mapping

import jax

from icdm.errors import unknown

Taps = Mapping[str, Callable[[jax.Array], jax.Array]]
NO_TAPS: Taps = {}


def places(layers: int) -> list[str]:
    """Every place of a model of so many layers."""
    return ["embed", *(f"{i}.{name}" for i in range(layers) for name in ("attention", "heads", "mlp", "out"))]


def check_places(taps: Taps, layers: int) -> None:
    """Raises UserError for a tap at a place that the model does not have."""
    for place in taps:
        if place not in places(layers):
            raise unknown("place", place, places(layers))


def tapped(taps: Taps, place: str, activation: jax.Array) -> jax.Array:
    """The activation, or what the tap at this place makes of it."""
    return taps[place](activation) if place in taps else activation


def reading(*read: str) -> tuple[dict[str, jax.Array], Taps]:
    """({}, taps) that fill the dictionary with the activations of these places when the model runs."""
    found: dict[str, jax.Array] = {}

    def keep(place: str):
        def tap(activation: jax.Array) -> jax.Array:
            found[place] = activation
            return activation

        return tap

    return found, {place: keep(place) for place in read}
