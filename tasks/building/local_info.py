"""TFDS's record of a data set that is made on this machine."""

import tensorflow_datasets as tfds


class LocalInfo(tfds.core.DatasetInfo):
  """A record that is found beside the data or nowhere.

  For data that is not there yet TFDS asks its bucket, by the network, and each time leaves an empty
  folder in the machine's temporary directory.
  """

  def initialize_from_bucket(self) -> None:
    """Nothing: the bucket has no record of data that is made here."""
