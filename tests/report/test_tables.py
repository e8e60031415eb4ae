"""The tables, by hand."""
from ptm_mini.config import Situation
from ptm_mini.report import tables
from ptm_mini.training.cost import Cost
from ptm_mini.training.measure import Score

SCORES = {situation: {"backbone": Score(0.5 + situation / 10, 0.5, 1.0, 40), "prompt situation": Score(1.0, 1.0, 0.1, 40)}
          for situation in Situation}
COSTS = {"backbone": [Cost("backbone", 2_000_000, 20, 100.0, 150_000_000, 0.9, "CPU")],
         "prompt": [Cost(f"prompt {s.label}", 1234, 8, 8.0 + s, 80_000_000 + s, 0.9, "CPU") for s in Situation]
         + [Cost("router", 9999, 6, 999.0, 999_000_000, 0.9, "CPU")]}
SIZES = {"backbone": 8_000_000, "prompt": 200_000}


def rows(shift=0.0):
    scores = {s: {name: score._replace(accuracy=score.accuracy + shift * (name == "backbone")) for name, score in own.items()}
              for s, own in SCORES.items()}
    return tables.main_rows(scores, COSTS, SIZES)


def test_the_tables_by_hand():
    assert tables.table("", [rows()], tables.ACCURACY) == """\
|                  | complete | noisy_audio | noisy_image | noisy_both | average |
|------------------|---------:|------------:|------------:|-----------:|--------:|
| backbone         |    0.500 |       0.600 |       0.700 |      0.800 |   0.650 |
| prompt situation |    1.000 |       1.000 |       1.000 |      1.000 |   1.000 |"""
    assert tables.table("", [rows()], ("worst", "macro-F1", *tables.COST)) == """\
|                  | worst | macro-F1 |    learns | stored kB | s/epoch | step MB |
|------------------|------:|---------:|----------:|----------:|--------:|--------:|
| backbone         | 0.500 |    0.500 | 2,000,000 |     2,000 |     5.0 |     150 |
| prompt situation | 1.000 |    1.000 |     1,234 |        50 |     1.2 |      80 |"""


def test_several_seeds_by_hand():
    found = [rows(), rows(0.1), rows(0.2)]
    assert "| backbone         | 0.600±0.100 |" in tables.table("", found)


def test_no_table_is_too_wide_for_a_page():
    """The longest names and several seeds, as every command prints them."""
    wide = [{"full_per_situation situation": rows()["backbone"]}, {"full_per_situation situation": rows(0.1)["backbone"]}]
    for columns in (tables.ACCURACY, ("worst", "macro-F1", *tables.COST)):
        lines = tables.table("", wide, columns).splitlines()
        assert len(columns) < 8 and max(map(len, lines)) <= 110


def test_what_there_is_of_samples_by_hand():
    scores = {"both": {"backbone": Score(0.5, 0.5, 1.0, 34)}, "audio only": {"backbone": Score(0.25, 0.5, 1.0, 4)}}
    found = tables.present_rows(scores)
    assert tables.table("", [found, found]) == """\
|          |        both |  audio only |
|----------|------------:|------------:|
| backbone | 0.500±0.000 | 0.250±0.000 |
| samples  |          34 |           4 |"""


def test_columns_that_no_sample_can_be_in_are_left_out():
    found = tables.main_rows({s: SCORES[s] for s in (Situation.NOISY_IMAGE, Situation.NOISY_BOTH)}, COSTS, SIZES)
    assert tables.table("", [found], tables.ACCURACY).splitlines()[:3:2] == [
        "|                  | noisy_image | noisy_both | average |", "| backbone         |       0.700 |      0.800 |   0.750 |"]
