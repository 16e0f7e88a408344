"""Values and sizes that no run accepts: one line each, with range and remedy, before any work."""

import contextlib
import io
import json
import math

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.configs import base, demo
from experiments.evaluate import changed
from experiments.flags import define_config, parse
from experiments.grid import directory_of, fields_of, parse_axis
from icdm.errors import UserError
from icdm.runs import sizes
from icdm.runs.settings import DATA_LABELS, Settings, defaults

FIELDS = fields_of(defaults())
NUMBERS = [field for field, value in FIELDS.items() if type(value) in (int, float)]


def with_values(values):
    """The default config with some fields changed, whatever their values."""
    config = json.loads(json.dumps(defaults()))
    for field, value in values.items():
        *groups, name = field.split(".")
        inside = config
        for group in groups:
            inside = inside[group] if isinstance(inside, dict) else {}
        if isinstance(inside, dict):
            inside[name] = value
    return config


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("fine_tune.clip", math.nan, "fine_tune.clip nan: give a number that is finite"),
        ("fine_tune.clip", -1.0, "fine_tune.clip -1.0: give a number above 0"),
        ("pretrain.weight_decay", -0.1, "pretrain.weight_decay -0.1: give at least 0"),
        ("fine_tune.temperature", math.inf, "fine_tune.temperature inf: give a number that is finite"),
        ("test_oracle.tolerance", math.nan, "test_oracle.tolerance nan: give a number that is finite"),
        ("label_oracle.time_limit", -5.0, "label_oracle.time_limit -5.0: give a number above 0"),
        ("seed", -1, "seed -1: give at least 0"),
        ("seed", 10**30, f"seed {10**30}: give at most 4294967295"),
        ("fine_tune.pool", -1, "fine_tune.pool -1: give at least 0"),
        ("data_labels", "imitaton", "unknown data_labels 'imitaton': did you mean 'imitation'?"),
        ("horizon", "five", 'horizon "five": give a whole number'),
        ("horizon", True, "horizon true: give a whole number"),
        ("model", 5, "model 5: give its fields, such as model.width"),
        ("model.widht", 5, "unknown config field 'model.widht': did you mean 'model.width'?"),
        ("pretrain.mixture", "energy", 'pretrain.mixture "energy": give a list of texts'),
        ("problem", {"horizon": 3}, "problem.horizon: no parameter of a problem; set horizon"),
    ],
)
def test_a_value_that_no_run_accepts_is_one_line_with_its_remedy(field, value, message):
    with pytest.raises(UserError) as refused:
        Settings.from_config(with_values({field: value}))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("field", NUMBERS)
def test_no_number_may_be_infinite_or_negative(field):
    for value in (math.nan, math.inf, -1):
        with pytest.raises(UserError, match=f"^{field} |^model sizes"):
            Settings.from_config(with_values({field: value}))


def test_labels_of_data_are_named_once():
    labels = pytest.importorskip("icdm.logs.labels")
    assert tuple(labels.LABELS) == DATA_LABELS


@pytest.mark.parametrize(
    "change, what",
    [
        ({"model.width": 8 * 10**8}, "model (width, layers, hidden)"),
        ({"evaluation.tasks": 10**9}, "evaluation.tasks"),
        ({"evaluation.episodes": 10**9}, "evaluation.tasks times evaluation.episodes"),
        ({"fine_tune.batch": 10**9}, "fine_tune.batch"),
        ({"pretrain.batch": 10**9}, "pretrain.batch"),
        ({"fine_tune.pool": 10**9}, "fine_tune.pool"),
        ({"context.episodes": 3000, "model.max_length": 20_000}, "evaluation.rows"),  # attention of a long context
    ],
)
def test_sizes_are_refused_by_arithmetic(change, what):
    s = Settings.from_config(with_values(change))
    with pytest.raises(UserError) as refused:
        sizes.check_sizes(s)
    assert str(refused.value).startswith(f"{what}: would take at least ") and str(refused.value).count(" GiB") == 2


def test_the_arithmetic_counts_the_weights_of_the_model():
    s = Settings.from_config(demo.get_config())
    sizes.check_sizes(s)
    import jax

    from icdm.models.transformer import Transformer

    leaves = jax.tree.leaves(Transformer.described(s.model, s.layout.size, s.layout.numbers))
    vectors = sum(leaf.size for leaf in leaves) - sizes.parameters(s.model, s.layout.size)
    assert 0 <= vectors < 0.02 * sum(leaf.size for leaf in leaves)


def test_the_values_of_a_sweep_do_not_leave_its_directory():
    for value in ("../x", "/etc", "a/../../b", "..\\x", "a\0b"):
        assert not set(directory_of({"data": value, "seed": 0})) & set("/\\\0:")


WHOLE = st.one_of(st.integers(-3, 40), st.sampled_from([10**9, 10**10, 10**30, -(10**30)]))
REAL = st.one_of(st.floats(), st.sampled_from([0.0, 0.5, 1e-300, 1e300, -0.5]))
NAMES = [
    "energy",
    "oracle",
    "uniform:4",
    "oracle:²",
    "tiger:horizon=1e9",
    "random_mdp:states=-1",
    "recorded",
    "../x",
    "\0",
]
TEXT = st.one_of(st.sampled_from(NAMES), st.text(max_size=6))
PARAMETER = st.sampled_from(["discount", "lowest", "highest", "states", "actions", "horizon", "name", "x"])
VALUE = st.one_of(WHOLE, REAL, TEXT, st.booleans(), st.none(), st.lists(TEXT, max_size=2))
VALUE = st.one_of(VALUE, st.dictionaries(PARAMETER, VALUE, max_size=2))
FAMILIES = st.sampled_from(["energy", "energy_pomdp", "random_mdp", "tiger", "bandit", "dark_room", "regimes"])


def nothing_but_a_user_error(values, family):
    config = with_values({"family": family} | values)
    try:
        sizes.check_sizes(Settings.from_config(config))
    except UserError as error:
        assert len(str(error).splitlines()) <= 1 or "\n" in str(values)


@settings(deadline=5000, max_examples=500)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUE, min_size=1, max_size=2), FAMILIES)
def test_any_values_of_a_config_are_run_or_refused(values, family):
    nothing_but_a_user_error(values, family)


@pytest.mark.slow
@settings(deadline=5000, max_examples=20_000)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUE, min_size=1, max_size=3), FAMILIES)
def test_any_values_of_a_config_are_run_or_refused_at_length(values, family):
    nothing_but_a_user_error(values, family)


WRITTEN = st.one_of(
    st.text(max_size=8), VALUE.map(str), st.sampled_from(["(", "('energy',)", "1e5", "__import__('os')"])
)
FIELD = st.one_of(st.sampled_from(sorted(FIELDS)), st.text(max_size=5))


def one_line_or_a_config(field, text):
    """A flag of the command line, a change of `experiments.evaluate`, and the axis of a sweep."""
    if "config" not in flags.FLAGS:
        define_config()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            parse(["x", "--config=experiments/configs/base.py", f"--config.{field}={text}"], "x")
        except SystemExit as end:
            assert end.code == 2 and len(said.getvalue().splitlines()) == 1 and said.getvalue().startswith("x: ")
    with contextlib.suppress(UserError):
        changed(defaults(), f"{field}={text}")
    with contextlib.suppress(UserError):
        parse_axis(base.get_config(), f"config.{field}={text}")


@settings(deadline=5000, max_examples=500)
@given(FIELD, WRITTEN)
def test_any_flag_is_taken_or_refused_in_one_line(field, text):
    one_line_or_a_config(field, text)


@pytest.mark.slow
@settings(deadline=5000, max_examples=20_000)
@given(FIELD, WRITTEN)
def test_any_flag_is_taken_or_refused_in_one_line_at_length(field, text):
    one_line_or_a_config(field, text)
