from aya_train import gin_text


def test_references_lead_to_values_or_stay():
  text = """
    A = %B
    B = (1, {'x': %C})
    C = '%B'
    LOST = %NOWHERE
    ROUND = [%ROUND]
    LATER = %gin.REQUIRED
    CALL = @some.function()
  """
  macros = gin_text.macros('\n'.join(line.strip() for line in text.splitlines()))
  assert gin_text.resolved(macros) == {
    'A': (1, {'x': '%B'}),  # a string in quotes is a string
    'B': (1, {'x': '%B'}),
    'C': '%B',
    'LOST': '%NOWHERE',
    'ROUND': ['%ROUND'],
    'CALL': '@some.function()',
  }
