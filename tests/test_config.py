"""A config file is right, or says where it is wrong."""

from pathlib import Path

import pytest

from connectors.template import template, write_template
from loop.config import Config, WhiteBoxConfig, load
from loop.errors import BadConfig


def loaded(folder: Path, text: str) -> Config:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_the_written_template_is_the_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, template()) == Config()


def test_the_template_explains_every_key() -> None:
    lines = template().splitlines()
    for number, line in enumerate(lines):
        if "=" in line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), line


def test_the_template_names_every_key_of_the_tables_within_tables() -> None:
    written = template()
    for title in ("[student.served]", "[student.white_box]", "[judge.redact]", "[[teacher.stronger]]"):
        assert f"# {title}\n" in written
    inner = written[written.index("# [student.white_box]\n") : written.index("[checkpoints]")]
    assert [line for line in inner.splitlines() if "teacher_mix" in line] == ["# teacher_mix = 0.2"]
    assert all(f"# {key} =" in inner for key in WhiteBoxConfig.model_fields)


def test_a_template_never_overwrites(tmp_path: Path) -> None:
    write_template(tmp_path)
    with pytest.raises(BadConfig, match="is there already"):
        write_template(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[query]\nbatch_sise = 3", r"query\.batch_sise: unknown key; did you mean `batch_size`\?"),
        ("[querry]\nbatch_size = 3", r"querry: unknown key; did you mean `query`\?"),
        ("[query]\nbatch_size = 0", r"query\.batch_size: .*greater than or equal to 1"),
        ('[query]\nbatch_size = "3"', r"query\.batch_size: .*valid integer"),
        ('[query]\nintra = "jensen_shannon"', r"toml: query\.intra .* needs task\.answer"),
        ('[task]\nanswer = "label"', r"task: .*at least two entries in \[task\.labels\]"),
        (
            '[student]\nengine = "openvino"\nlora_rank = 0',
            r'student: engine .* set engine = "torch" to train all weights',
        ),
        ('[student]\nengine = "openvino"\nkind = "encoder"', r'student: engine .* set engine = "torch"'),
        ("[budget]\nusd = inf", r"budget\.usd: .*finite number"),
        ("[budget]\nusd = -1", r"budget\.usd: .*greater than or equal to 0"),
        ("[teacher]\nreplies = 3", r"teacher\.replies: expected a path \(given: 3\)"),
        ("[query", r"not valid TOML"),
    ],
)
def test_a_wrong_file_names_itself_the_key_and_what_was_expected(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadConfig, match=told) as caught:
        loaded(tmp_path, text)
    assert str(tmp_path / "config.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("student", "rate"),
    [
        ("", 1e-3),
        ("lora_rank = 0", 2e-4),
        ('kind = "encoder"', 2e-4),
        ('kind = "encoder"\nlearning_rate = 5e-5', 5e-5),
        ('kind = "seq2seq"\nlora_rank = 4', 1e-3),
    ],
)
def test_the_learning_rate_suits_what_trains_where_it_is_not_set(student: str, rate: float, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[task]\nanswer = "label"\nlabels = {{a = "", b = ""}}\n[student]\n{student}\n', encoding="utf-8")
    assert load(path).student.learning_rate == rate


def test_a_wrong_rank_is_the_only_thing_told(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[student]\nlora_rank = -1\n", encoding="utf-8")
    with pytest.raises(BadConfig) as wrong:
        load(path)
    assert str(wrong.value).splitlines() == [
        f"{path}: student.lora_rank: Input should be greater than or equal to 0 (given: -1)"
    ]


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="preceptor init"):
        load(tmp_path / "config.toml")


def test_the_demos_config_is_right() -> None:
    assert load(Path(__file__).resolve().parents[1] / "config.toml").run.name == "demo"


@pytest.mark.parametrize(
    ("student", "cure"),
    [
        ('dtype = "bfloat16"\nlora_rank = 0', r'small steps are lost in "bfloat16": set "auto" or "float32", or lora'),
        ('dtype = "bfloat16"\nkind = "encoder"', r'an encoder is trained in float32: set "auto"'),
    ],
)
def test_all_weights_are_not_trained_in_bfloat16(student: str, cure: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=rf"config.toml: student.dtype: .*{cure}"):
        loaded(tmp_path, f'[task]\nanswer = "label"\nlabels = {{a = "A.", b = "B."}}\n[student]\n{student}\n')
    assert loaded(tmp_path, '[student]\ndtype = "bfloat16"\n').student.dtype == "bfloat16"
