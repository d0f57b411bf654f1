"""One host of a run on several: `python -m tests.e2e.host PORT HOSTS INDEX SETTINGS` (JSON)."""

import dataclasses
import json
import logging
import pathlib
import sys

import jax

from aya_train.evaluation import infer_eval


def main() -> None:
  port, num_hosts, index = (int(word) for word in sys.argv[1:4])
  given = json.loads(sys.argv[4])
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', given['devices'] // num_hosts)
  if num_hosts > 1:
    from aya_train import hosts

    hosts.join(f'localhost:{port}', num_hosts, index)
  logging.basicConfig()
  logging.getLogger('aya_train').setLevel(logging.INFO)

  from aya_train import partitioning, train_loop
  from tests import test_train_loop, tiny

  test_train_loop.register_task()
  rules = partitioning.standard_logical_axis_rules(parameter_partitioning_dims=2)
  settings = test_train_loop.settings(
    given['model_dir'],
    given['prepared_dir'],
    partitioner=partitioning.Partitioner(given['mesh'], rules),
    schedule=train_loop.Schedule(
      log_period=1, eval_period=1, eval_steps=None, eval_before_training=True
    ),
    infer_eval_cfg=infer_eval.InferEvalConfig(
      'tests.copy', {'inputs': 16, 'targets': 8}, batch_size=8, num_examples=12
    ),
    total_steps=given['steps'],
    initial_checkpoint_path=given['initial_checkpoint_path'],
  )
  if given['plain']:  # no dropout, no packing: nothing depends on where a row lies
    settings['model'] = tiny.model(
      {'loss_normalizing_factor': 'AVERAGE_PER_SEQUENCE'}, dropout_rate=0.0
    )
    settings['train_dataset_cfg'] = dataclasses.replace(
      settings['train_dataset_cfg'], pack=False, batch_size=8
    )
  if given['embedding']:  # rows need those of the other hosts
    from aya_train.objectives import embedding

    network = settings['model'].config
    settings['model'] = embedding.EmbeddingModel(
      network, settings['model'].output_vocabulary, 6, 0.1, True, matryoshka_dimensions=(3,)
    )
    settings |= {'infer_eval_cfg': None, 'num_microbatches': given['parts']}
    settings['train_eval_dataset_cfg'] = dataclasses.replace(
      settings['train_eval_dataset_cfg'], pack=False
    )
  if given['preference']:
    from tests.objectives import test_preference, test_preference_run

    loss, reference = given['preference'], given['initial_checkpoint_path']
    test_preference_run.register_task()
    cfg = test_preference_run.dataset(pathlib.Path(given['model_dir']).parent, loss)
    cfg = dataclasses.replace(
      cfg, prepared_dir=given['prepared_dir'], reference_checkpoint=reference
    )
    settings |= {'infer_eval_cfg': None, 'num_microbatches': given['parts']}
    settings |= {'model': test_preference.model(loss=loss), 'train_dataset_cfg': cfg}
    settings['train_eval_dataset_cfg'] = dataclasses.replace(cfg, split='validation', shuffle=False)
    settings['total_steps'], settings['relative_steps'] = None, given['steps']
  train_loop.train(**settings)


if __name__ == '__main__':
  main()
