"""Which tensors of a checkpoint become a network's, by wrapper, prefix and average. Without PyTorch the tests are skipped."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

try:
    import torch

    import export_onnx as exporter
except ImportError:
    torch = None


def tensors(value):
    return {"conv.weight": torch.full((2, 1), value), "fc.bias": torch.full((3,), value)}


@unittest.skipIf(torch is None, "PyTorch is not installed")
class State(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def state(self, content, ema=False, strip=""):
        path = self.folder / "net.pth"
        torch.save(content, path)
        return exporter.state_of(path, ema, strip)

    def complaint(self, *args, **options):
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as stopped:
            self.state(*args, **options)
        return str(stopped.exception)

    def check(self, state, value):
        self.assertEqual(sorted(state), ["conv.weight", "fc.bias"])
        for tensor in state.values():
            self.assertTrue((tensor == value).all())

    def test_a_plain_state_dict_and_one_in_a_wrapper_are_the_same(self):
        self.check(self.state(tensors(1.0)), 1.0)
        for wrapper in ("state_dict", "model", "net", "model_state_dict"):
            self.check(self.state({wrapper: tensors(2.0), "epoch": 3}), 2.0)

    def test_a_prefix_is_taken_off_and_chooses(self):
        both = {f"module.{name}": value for name, value in tensors(3.0).items()}
        both |= {f"teacher.{name}": value for name, value in tensors(4.0).items()}
        self.check(self.state({"state_dict": both}, strip="module."), 3.0)
        self.check(self.state({"state_dict": both}, strip="teacher."), 4.0)
        # Only in front: what bears the name inside keeps it.
        inside = {"model.conv.model.weight": torch.zeros(1)}
        self.assertEqual(list(self.state(inside, strip="model.")), ["conv.model.weight"])
        self.assertIn("begins with `student.`", self.complaint({"state_dict": both}, strip="student."))

    def test_the_averaged_weights_are_taken_when_they_are_asked_for(self):
        for key in ("ema", "model_ema", "state_dict_ema"):
            content = {"state_dict": tensors(5.0), key: tensors(6.0)}
            self.check(self.state(content), 5.0)
            self.check(self.state(content, ema=True), 6.0)
        self.assertIn("none of ema", self.complaint({"state_dict": tensors(5.0)}, ema=True))

    def test_an_average_may_lie_in_a_wrapper_and_have_a_prefix(self):
        averaged = {f"module.{name}": value for name, value in tensors(7.0).items()}
        content = {"model": tensors(1.0), "model_ema": {"state_dict": averaged, "decay": 0.999}}
        self.check(self.state(content, ema=True, strip="module."), 7.0)

    def test_an_average_beside_the_tensors_themselves_is_found_in_safetensors_too(self):
        from safetensors.torch import save_file

        path = self.folder / "net.safetensors"
        save_file({f"ema.{name}": value for name, value in tensors(8.0).items()}, path)
        self.check(exporter.state_of(path, False, "ema."), 8.0)
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
            exporter.state_of(path, True, "")


if __name__ == "__main__":
    unittest.main()
