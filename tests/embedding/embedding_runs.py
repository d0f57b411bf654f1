"""A small run of embeddings on disk, as training leaves it."""

import dataclasses

import flax.linen as nn
import jax

from aya_train import optimizer, train_state
from aya_train.checkpoint import manager
from aya_train.checkpoint.hf import hf_export
from aya_train.models import t5_config
from aya_train.objectives import embedding, objective
from tests.checkpoint import small_model

WIDTH, PROJECTION = 16, 12
TEXTS = (*small_model.CORPUS, 'a', 'She brought coffee. ' * 12)


class Vocabulary:
  """The ids of a SentencePiece file, as far as a model asks for them."""

  vocab_size, pad_id, eos_id = 620, 0, 1

  def __init__(self, file):
    self.sentencepiece_model_file = str(file)


def config(**changes) -> t5_config.T5Config:
  return small_model.config(
    **{'emb_dim': WIDTH, 'num_heads': 2, 'head_dim': 8, 'num_encoder_layers': 1, **changes}
  )


def write_run(folder, vocabulary_file, seed=3, network=None, **changes):
  """A MODEL_DIR with one step, 5; returns its model and its parameters."""
  model = embedding.EmbeddingModel(
    network or config(scan_layers=True),
    Vocabulary(vocabulary_file),
    **{
      'projection': PROJECTION,
      'matryoshka_dimensions': (4,),
      'query_prompt': 'query: ',
      'passage_prompt': 'passage: ',
      **changes,
    },
  )
  params = nn.unbox(model.initial_variables(jax.random.key(seed)))
  # Ten times as large tables tell texts apart that random networks hardly do.
  params = jax.tree.map(lambda x: 3.0 * x if x.ndim > 1 else x, params)
  tx = optimizer.adafactor(lambda step: 0.1, objective.parameter_axes(model)[1])
  metadata = {
    'architecture': model.encoder.architecture(),
    'vocabulary_file': str(vocabulary_file),
    'vocabulary': None,
    'embedding': {
      'dimension': model.encoder.dimension,
      'pooling': embedding.POOLING,
      'similarity': embedding.SIMILARITY,
      'temperature': model.temperature,
      'matryoshka_dimensions': list(model.matryoshka_dimensions),
      'prompts': {'query': model.query_prompt, 'passage': model.passage_prompt},
    },
    'task_feature_lengths': {'inputs': 32, 'targets': 64},
    'run': {'seed': 0, 'first_step': 0},
  }
  writer = manager.CheckpointManager(folder, manager.CheckpointConfig(use_async=False), metadata)
  state = train_state.create(params, tx, seed=0)
  writer.save(dataclasses.replace(state, step=state.step + 5), None)
  writer.close()
  return model, params


def write_hf(folder, vocabulary_file, **changes):
  """A whole model as Hugging Face has it."""
  found = config(scan_layers=False, **changes)
  hf_export.export(small_model.random_params(found), found, vocabulary_file, folder)
  return folder
