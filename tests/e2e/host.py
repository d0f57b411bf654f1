"""One host of a run on several: `python -m tests.e2e.host PORT HOSTS INDEX MODEL_DIR PREPARED STEPS`."""

import sys

import jax


def main() -> None:
  address, hosts, index = f'localhost:{sys.argv[1]}', int(sys.argv[2]), int(sys.argv[3])
  model_dir, prepared_dir, steps = sys.argv[4], sys.argv[5], int(sys.argv[6])
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', 4 // hosts)
  if hosts > 1:
    jax.distributed.initialize(address, hosts, index)

  from aya_train import evaluation, partitioning, train_loop
  from tests import test_train_loop

  test_train_loop.register_task()
  rules = partitioning.standard_logical_axis_rules(parameter_partitioning_dims=2)
  settings = test_train_loop.settings(
    model_dir,
    prepared_dir,
    partitioner=partitioning.Partitioner({'data': 2, 'model': 2}, rules),
    schedule=train_loop.Schedule(
      log_period=1, eval_period=1, eval_steps=None, eval_before_training=True
    ),
    infer_eval_cfg=evaluation.InferEvalConfig(
      'tests.copy', {'inputs': 16, 'targets': 8}, batch_size=8, num_examples=12
    ),
    total_steps=steps,
  )
  train_loop.train(**settings)


if __name__ == '__main__':
  main()
