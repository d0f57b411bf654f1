"""What counts as a command of the documentation."""

import pytest

from tests.docs import commands
from tests.docs.commands import ROOT

PAGE = """# Title

    aya-train a \\
      --b 'c # d'   # a remark
    aya-train e

Text with `aya-train prepare cldr`, a name (`aya-train
train`) and `--an_option`; `python x.py` too.

- a list
    that goes on

```bash
# A remark.
cat > f.jsonl <<'END'
{"a": 1}  # no remark
END
X=1 aya-train g
```

```toml
# my.toml
a = 1
```

```python
print()
```

```
a listing
```
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
  (tmp_path / 'page.md').write_text(PAGE)
  monkeypatch.setattr(commands, 'ROOT', tmp_path)
  return [(s.kind, s.line, s.text) for s in commands.of_page('page.md')]


def test_everything_on_a_page_is_found(page):
  assert page == [
    ('command', 3, "aya-train a \\\n  --b 'c # d'"),
    ('command', 5, 'aya-train e'),
    ('command', 7, 'aya-train prepare cldr'),
    ('name', 7, 'aya-train train'),
    ('command', 8, 'python x.py'),
    ('command', 15, 'cat > f.jsonl <<\'END\'\n{"a": 1}  # no remark\nEND'),
    ('command', 18, 'X=1 aya-train g'),
    ('file', 22, '# my.toml\na = 1\n'),
    ('python', 27, 'print()'),
    ('listing', 31, 'a listing'),
  ]


@pytest.mark.parametrize('text', ['```bash\naya-train a\n', '    aya-train a \\\n', "    a 'b\n"])
def test_what_has_no_end_is_refused(text):
  with pytest.raises(ValueError, match='without an end'):
    [list(commands.split(body)) for _, _, body in commands.blocks('page', text)]


def test_all_pages_are_read():
  pages = {'README.md', 'CONTRIBUTING.md', 'launch/README.md', 'examples/README.md'}
  pages |= {str(path.relative_to(ROOT)) for path in (ROOT / 'docs').rglob('*.md')}
  assert pages == set(commands.PAGES)
