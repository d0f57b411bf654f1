import tempfile

from aya_train.tasks.building import local_info
from aya_train.tasks.cldr import cldr_builder


def test_a_builder_without_data_asks_no_bucket_and_leaves_nothing(tmp_path, monkeypatch):
  temporary = tmp_path / 'tmp'
  temporary.mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
  builder = cldr_builder.CldrInstructions(data_dir=str(tmp_path / 'data'))
  assert isinstance(builder.info, local_info.LocalInfo)
  assert not list(temporary.iterdir())
