"""Checkpoints are written completely or not at all."""

import io
from contextlib import contextmanager

import pytest

from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing
from vos_pipeline.training import checkpoint
from vos_pipeline.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("reason", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_an_interrupted_write_keeps_the_old_checkpoint(reason, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "net.pt", {"step": 1})

    class Failing(io.BytesIO):
        def write(self, data):
            if self.tell():
                raise reason
            return super().write(data)

    @contextmanager
    def failing(path):
        with replacing(path):
            yield Failing()

    monkeypatch.setattr(checkpoint, "replacing", failing)
    with pytest.raises(type(reason)) as caught:
        save_checkpoint(tmp_path / "net.pt", {"step": 2})
    assert caught.value is reason
    assert load_checkpoint(tmp_path / "net.pt", "cpu") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_a_damaged_checkpoint_error_omits_advice_of_torch(tmp_path):
    path = tmp_path / "net.pt"
    path.write_text("x")
    for lazily in (False, True):
        with pytest.raises(PipelineError, match=r"delete it and run again with --resume$") as error:
            load_checkpoint(path, lazily=lazily)
        assert str(path) in str(error.value) and "weights_only" not in str(error.value)
