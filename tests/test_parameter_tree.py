"""Trees of parameters in another dtype."""

import jax.numpy as jnp
import numpy as np
import pytest

from aya_train import parameter_tree
from tests import tiny


def test_a_tree_is_cast_and_what_it_was_is_freed():
  whole, counts = jnp.ones((4, 4)), jnp.arange(3)
  found = parameter_tree.cast({'a': {'kernel': whole}, 'counts': counts}, 'bfloat16')
  assert found['a']['kernel'].dtype == jnp.bfloat16 and whole.is_deleted()
  assert found['counts'] is counts
  kept = jnp.ones(2)
  assert parameter_tree.cast(kept, 'float32') is kept and not kept.is_deleted()


@pytest.mark.parametrize('dtype', ['float16', 'int8', None, 32])
def test_other_dtypes_are_refused_by_name(dtype):
  with pytest.raises(ValueError, match='PARAMETER_DTYPE must be'):
    parameter_tree.check_dtype(dtype)


def test_logits_of_rounded_weights_are_float32_and_near():
  model = tiny.model(num_encoder_layers=1, num_decoder_layers=1)
  params = tiny.params(model)
  rows = jnp.asarray(np.random.default_rng(0).integers(3, 90, (2, 8)), jnp.int32)
  exact = model.module.apply({'params': params}, rows, rows, rows, enable_dropout=False)
  rounded = parameter_tree.cast(params, 'bfloat16')
  near = model.module.apply({'params': rounded}, rows, rows, rows, enable_dropout=False)
  assert near.dtype == jnp.float32
  assert 0 < float(jnp.abs(near - exact).max()) < 0.03 * float(jnp.abs(exact).max())


def test_answers_of_bfloat16_have_the_scores_that_the_same_weights_give_them():
  model = tiny.model(num_encoder_layers=1, num_decoder_layers=1, dtype='bfloat16')
  params = parameter_tree.cast(tiny.params(model), 'bfloat16')
  rows = jnp.asarray(np.random.default_rng(0).integers(3, 90, (2, 8)), jnp.int32)
  tokens, scores = model.predict_batch(params, {'encoder_input_tokens': rows}, max_decode_length=6)
  targets = tokens[:, 0]
  forced = model.score_batch(
    params,
    {
      'encoder_input_tokens': rows,
      'decoder_input_tokens': jnp.pad(targets[:, :-1], ((0, 0), (1, 0))),
      'decoder_target_tokens': targets,
    },
  )
  assert scores.dtype == jnp.float32
  np.testing.assert_allclose(scores[:, 0], forced, rtol=0.02)
