"""What a converted checkpoint holds and which files are refused. Without PyTorch the tests that need it are skipped."""

import contextlib
import io
import json
import math
import struct
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import convert_checkpoint as converter
import safetensors_file
from checkpoint_tables import MODELS, TABLES

try:
    import torch
except ImportError:
    torch = None
needs_torch = unittest.skipIf(torch is None, "PyTorch is not installed")

# Entries and parameters as the projects and papers give them; running statistics are no parameters.
PUBLISHED = {
    "improved-diffusion-cifar10": (446, 52_546_438),
    "guided-diffusion-imagenet256": (566, 552_814_086),
    "resnet50-cifar10": (320, 23_520_842),
    "resnet50-cbam-cifar10": (480, 26_053_434),
    "resnet50-imagenet": (320, 25_557_032),
    "resnet50-cbam-imagenet": (480, 28_089_624),
    "coatnet-rmlp-2-rw-384": (480, 73_881_264),
}
SMALL = '{"width": 2, "classes": 3}'  # a ResNet-18 of a few thousand values
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def table_of(name, **changes):
    model = MODELS[name]
    return TABLES[model["arch"]]({**model["config"], **changes})


def small_table():
    return table_of("resnet18-cifar10", **json.loads(SMALL))


def values_of(name, shape):
    """Some float32 values that differ from tensor to tensor."""
    return [(len(name) * 7 + 3 * i) % 64 / 64 for i in range(math.prod(shape))]


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_tool(self, *args):
        """-> (exit status, what it printed, its complaint)"""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["convert_checkpoint.py", *map(str, args)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                status = converter.main()
            except SystemExit as e:
                status = e.code
        return status, out.getvalue(), err.getvalue()

    def safetensors(self, table, dtype="F32", name="in.safetensors"):
        def data(entry, shape):
            if entry.endswith("num_batches_tracked"):
                return struct.pack("<q", 7)
            return struct.pack(f"<{math.prod(shape)}{'f' if dtype == 'F32' else 'e'}", *values_of(entry, shape))

        entries = [
            (k, "I64" if k.endswith("num_batches_tracked") else dtype, shape, lambda k=k, shape=shape: data(k, shape))
            for k, shape in table.items()
        ]
        safetensors_file.write(self.folder / name, entries, {})
        return self.folder / name

    def refused(self, source, *args, says):
        """Converting fails with all of `says` in the complaint, and leaves no file."""
        target = self.folder / "refused.safetensors"
        status, _, complaint = self.run_tool(source, target, *args)
        self.assertEqual(status, 1, complaint)
        for part in says:
            self.assertIn(part, complaint)
        self.assertFalse(target.exists())
        self.assertFalse(Path(f"{target}.part").exists())


class Tables(unittest.TestCase):
    def test_published_counts(self):
        for name, counts in PUBLISHED.items():
            table = table_of(name)
            parameters = sum(math.prod(shape) for key, shape in table.items() if not key.endswith(STATISTICS))
            self.assertEqual((len(table), parameters), counts, name)

    def test_names_from_the_specifications(self):
        cifar, imagenet = table_of("improved-diffusion-cifar10"), table_of("guided-diffusion-imagenet256")
        self.assertEqual(cifar["input_blocks.4.0.op.weight"], (128, 128, 3, 3))
        self.assertEqual(cifar["output_blocks.3.1.conv.weight"], (256, 256, 3, 3))
        self.assertEqual(cifar["output_blocks.7.2.conv.weight"], (256, 256, 3, 3))
        self.assertEqual(cifar["output_blocks.11.0.skip_connection.weight"], (256, 384, 1, 1))
        self.assertEqual(imagenet["input_blocks.3.0.in_layers.2.weight"], (256, 256, 3, 3))
        self.assertEqual(imagenet["output_blocks.2.2.in_layers.2.weight"], (1024, 1024, 3, 3))
        self.assertEqual(imagenet["middle_block.1.qkv.weight"], (3072, 1024, 1))
        coatnet = table_of("coatnet-rmlp-2-rw-384")
        self.assertEqual(coatnet["stages.2.blocks.0.attn.rel_pos.mlp.fc2.weight"], (8, 512))
        self.assertEqual(coatnet["stages.3.blocks.1.attn.rel_pos.mlp.fc2.weight"], (32, 512))
        self.assertNotIn("stages.0.blocks.0.shortcut.expand.weight", coatnet)

    @needs_torch
    def test_the_reference_networks_have_them(self):
        sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
        import resnet_reference
        import unet_reference

        with torch.device("meta"):
            for name, model in MODELS.items():
                if model["arch"] == "coatnet":
                    continue
                net = {"unet": unet_reference, "resnet": resnet_reference}[model["arch"]].build(model["config"])
                self.assertEqual({k: tuple(t.shape) for k, t in net.state_dict().items()}, table_of(name), name)

    def test_timm_has_them(self):
        try:
            import timm
        except ImportError:
            self.skipTest("timm is not installed")
        net = timm.create_model("coatnet_rmlp_2_rw_384")
        self.assertEqual({k: tuple(t.shape) for k, t in net.state_dict().items()}, table_of("coatnet-rmlp-2-rw-384"))


class Format(Folder):
    def test_layout(self):
        path = self.folder / "a.safetensors"
        data = struct.pack("<3f", 1, 2, 3)
        safetensors_file.write(path, [("b", "F32", (3,), lambda: data), ("a", "I64", (), lambda: struct.pack("<q", 5))], {"arch": "unet"})
        raw = path.read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8 : 8 + length])
        self.assertEqual(length % 8, 0)
        self.assertEqual(header["__metadata__"], {"arch": "unet"})
        self.assertEqual(header["b"], {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]})
        self.assertEqual(header["a"], {"dtype": "I64", "shape": [], "data_offsets": [12, 20]})
        self.assertEqual(raw[8 + length :], data + struct.pack("<q", 5))
        tensors, metadata = safetensors_file.read_header(path)
        self.assertEqual(metadata, {"arch": "unet"})
        self.assertEqual(tensors, {"b": ("F32", (3,), 8 + length, 12), "a": ("I64", (), 20 + length, 8)})

    def test_a_failed_write_leaves_the_old_file(self):
        path = self.folder / "a.safetensors"
        path.write_bytes(b"old")
        for wrong in (b"\0" * 3, b"\0" * 5):
            with self.assertRaisesRegex(ValueError, "'x'"):
                safetensors_file.write(path, [("x", "F32", (1,), lambda wrong=wrong: wrong)], {})
        with self.assertRaisesRegex(ValueError, "twice"):
            safetensors_file.write(path, [("x", "F32", (1,), lambda: b"\0" * 4)] * 2, {})
        self.assertEqual([p.name for p in self.folder.iterdir()], ["a.safetensors"])
        self.assertEqual(path.read_bytes(), b"old")

    def test_damaged_files(self):
        path = self.folder / "a.safetensors"
        safetensors_file.write(path, [("x", "F32", (2,), lambda: b"\0" * 8)], {})
        good = path.read_bytes()
        for bad in (
            b"",
            good[:4],
            good[:20],
            good[:-1],
            good + b"\0",
            struct.pack("<Q", 1 << 40) + good[8:],
            good.replace(b"[0,8]", b"[1,9]"),
            good.replace(b'"F32"', b'"F31"'),
            good[:8] + b"[" + good[9:],
        ):
            path.write_bytes(bad)
            with self.assertRaisesRegex(ValueError, "a.safetensors"):
                safetensors_file.read_header(path)


class Names(unittest.TestCase):
    def test_wrappers_come_off(self):
        self.assertEqual(converter.unwrap(["module.a.module.b"]), {"a.module.b": "module.a.module.b"})
        self.assertEqual(list(converter.unwrap(["module._orig_mod.a"])), ["a"])
        self.assertEqual(list(converter.unwrap(["_orig_mod.module.a"])), ["a"])
        self.assertEqual(list(converter.unwrap(["module.module.a"])), ["module.a"])
        self.assertEqual(list(converter.unwrap(["a", "b"])), ["a", "b"])

    def test_mixed_names_are_refused(self):
        with self.assertRaisesRegex(ValueError, "'module.a'.*'b'"):
            converter.unwrap(["module.a", "b"])

    def test_descend(self):
        state = {"a": 1}
        self.assertIs(converter.descend("f", {"state_dict": state, "epoch": 3}), state)
        self.assertIs(converter.descend("f", state), state)
        self.assertIs(converter.descend("f", {"model": state, "ema": {}}, "model"), state)
        for content, says in (({"model": {}, "ema": {}}, "--key"), ([1], "list"), ({"state": {}, "param_groups": []}, "optimizer")):
            with self.assertRaisesRegex(ValueError, says):
                converter.descend("f", content)
        with self.assertRaisesRegex(ValueError, "'weights'.*epoch"):
            converter.descend("f", {"epoch": 3}, "weights")


class Safetensors(Folder):
    """Files that need no conversion: no PyTorch either."""

    def test_tensors_and_metadata(self):
        source, target = self.safetensors(small_table()), self.folder / "out.safetensors"
        status, printed, complaint = self.run_tool(source, target, "--model", "resnet18-cifar10", "--config", SMALL, "--std", "0.2,0.3,0.4")
        self.assertEqual((status, complaint), (0, ""))
        tensors, metadata = safetensors_file.read_header(target)
        kept = [k for k in small_table() if not k.endswith("num_batches_tracked")]
        self.assertEqual(list(tensors), kept)
        self.assertIn(f"{len(kept)} tensors", printed)
        for name in kept:
            dtype, shape, first, count = tensors[name]
            self.assertEqual((dtype, shape), ("F32", small_table()[name]))
            got = struct.unpack(f"<{count // 4}f", safetensors_file.read_bytes(target, first, count))
            self.assertEqual(list(got), values_of(name, shape), name)
        self.assertEqual(metadata["arch"], "resnet")
        self.assertEqual(
            json.loads(metadata["config"]), {"depth": 18, "stem": "cifar", "width": 2, "attention": "none", "reduction": 16, "classes": 3}
        )
        self.assertEqual(json.loads(metadata["mean"]), [0.4914, 0.4822, 0.4465])
        self.assertEqual(json.loads(metadata["std"]), [0.2, 0.3, 0.4])
        self.assertEqual(len(metadata["source_sha256"]), 64)

    def test_denoisers_know_their_schedule(self):
        for name, wanted in (("improved-diffusion-cifar10", ("cosine", 4000, 0.25)), ("guided-diffusion-imagenet256", ("linear", 1000, 1))):
            metadata = converter.metadata_of(name, MODELS[name], __file__)
            self.assertEqual((metadata["schedule"], int(metadata["steps"]), float(metadata["tau_scale"])), wanted)
            self.assertTrue(all(isinstance(v, str) for v in metadata.values()))

    def test_wrong_tensors_are_named(self):
        options = ("--model", "resnet18-cifar10", "--config", SMALL)
        for change, says in (
            (lambda t: t.pop("layer2.0.bn1.running_var"), ["missing layer2.0.bn1.running_var"]),
            (lambda t: t.update({"layer2.0.cbam.x": (2,)}), ["unknown layer2.0.cbam.x"]),
            (
                lambda t: t.update({"layer1.0.conv1.wieght": t.pop("layer1.0.conv1.weight")}),
                ["missing layer1.0.conv1.weight", "unknown layer1.0.conv1.wieght (the nearest it has is layer1.0.conv1.weight)"],
            ),
            (lambda t: t.update({"fc.weight": (4, 16)}), ["fc.weight is [4, 16], expected [3, 16]"]),
        ):
            table = small_table()
            change(table)
            self.refused(self.safetensors(table), *options, says=["in.safetensors", *says])

    def test_counters_may_be_missing(self):
        table = {k: v for k, v in small_table().items() if not k.endswith("num_batches_tracked")}
        status, _, complaint = self.run_tool(
            self.safetensors(table), self.folder / "o.safetensors", "--model", "resnet18-cifar10", "--config", SMALL
        )
        self.assertEqual(status, 0, complaint)

    def test_integers_are_no_weights(self):
        entries = [(k, "I64", s, lambda s=s: bytes(8 * math.prod(s))) for k, s in small_table().items()]
        safetensors_file.write(self.folder / "i.safetensors", entries, {})
        self.refused(
            self.folder / "i.safetensors",
            "--model",
            "resnet18-cifar10",
            "--config",
            SMALL,
            says=["expected floating-point values: conv1.weight is I64"],
        )

    def test_the_model_it_fits_is_named(self):
        model = MODELS["resnet18-cifar10"]
        with mock.patch.dict(MODELS, {"mine": {**model, "config": {**model["config"], **json.loads(SMALL)}}}):
            self.refused(self.safetensors(small_table()), "--model", "resnet18-cifar10", says=["these are the tensors of --model mine"])

    def test_bad_options(self):
        source = self.safetensors(small_table())
        for options, says in (
            (["--config", '{"wdith": 2}'], "wdith"),
            (["--config", "[]"], "JSON object"),
            (["--config", '{"depth": 7}'], "no resnet"),
            (["--key", "model"], "--key"),
        ):
            self.refused(source, "--model", "resnet18-cifar10", *options, says=[says])
        self.refused(source, "--model", "improved-diffusion-cifar10", "--mean", "0,0,0", says=["--mean is for classifiers"])
        self.assertEqual(self.run_tool(source, self.folder / "x", "--model", "resnet17")[0], 2)
        self.assertEqual(self.run_tool(source, self.folder / "x", "--model", "resnet18-cifar10", "--mean", "0,nan,0")[0], 2)
        self.assertEqual(self.run_tool(source)[0], 2)
        self.refused(self.folder / "none.safetensors", "--model", "resnet18-cifar10", says=["none.safetensors"])


@needs_torch
class PyTorchFiles(Folder):
    OPTIONS = ("--model", "resnet18-cifar10", "--config", SMALL)

    def state(self):
        return {
            k: torch.tensor(7) if k.endswith("num_batches_tracked") else torch.tensor(values_of(k, s)).reshape(s)
            for k, s in small_table().items()
        }

    def file(self, content, **options):
        torch.save(content, self.folder / "in.pt", **options)
        return self.folder / "in.pt"

    def converted(self, source, *args):
        status, _, complaint = self.run_tool(source, self.folder / "out.safetensors", *self.OPTIONS, *args)
        self.assertEqual(status, 0, complaint)
        tensors, _ = safetensors_file.read_header(self.folder / "out.safetensors")
        kinds = {"F32": torch.float32, "F16": torch.float16}

        def tensor(dtype, shape, first, count):
            data = bytearray(safetensors_file.read_bytes(self.folder / "out.safetensors", first, count))
            return torch.frombuffer(data, dtype=kinds[dtype]).reshape(shape)

        return {k: tensor(*entry) for k, entry in tensors.items()}

    def test_seeded(self):
        out = self.folder / "seeded.safetensors"
        status, _, complaint = self.run_tool("--seeded", out, *self.OPTIONS)
        self.assertEqual(status, 0, complaint)
        tensors, metadata = safetensors_file.read_header(out)
        self.assertEqual(
            {k: shape for k, (_, shape, _, _) in tensors.items()},
            {k: s for k, s in small_table().items() if not k.endswith("num_batches_tracked")},
        )
        self.assertEqual(metadata["source"], "seeded")
        _, _, first, count = tensors["bn1.running_var"]
        variance = torch.frombuffer(bytearray(safetensors_file.read_bytes(out, first, count)), dtype=torch.float32)
        self.assertTrue(bool((variance >= 0.5).all() and (variance <= 1.5).all() and variance.std() > 0.1))
        self.assertEqual(self.run_tool("--seeded", out, *self.OPTIONS, "--key", "model")[0], 2)

    def test_every_form(self):
        state = self.state()
        wrapped = {f"module.{k}": t for k, t in state.items()}
        forms = {
            "bare": (state, {}),
            "wrapped": ({"state_dict": wrapped, "epoch": 3, "optimizer": {"param_groups": []}}, {}),
            "old format": (state, {"_use_new_zipfile_serialization": False}),
            "strided and shared": ({k: t.repeat(2, *[1] * (t.dim() - 1))[: len(t)] if t.dim() else t for k, t in state.items()}, {}),
            "parameters": ({k: torch.nn.Parameter(t, t.is_floating_point()) for k, t in state.items() if t.dim()}, {}),
            "double": ({k: t.double() if t.dim() else t for k, t in state.items()}, {}),
        }
        for form, (content, options) in forms.items():
            with self.subTest(form):
                got = self.converted(self.file(content, **options))
                self.assertEqual(list(got), [k for k in state if not k.endswith("num_batches_tracked")])
                for k, t in got.items():
                    self.assertTrue(t.dtype == torch.float32 and torch.equal(t, state[k]), k)

    def test_half_precision_keeps_statistics(self):
        got = self.converted(self.file(self.state()), "--dtype", "f16")
        self.assertEqual(got["bn1.running_var"].dtype, torch.float32)
        self.assertEqual(got["conv1.weight"].dtype, torch.float16)
        self.assertTrue(torch.equal(got["conv1.weight"].float(), self.state()["conv1.weight"]))

    def test_a_safetensors_file_of_another_type(self):
        got = self.converted(self.safetensors(small_table(), "F16"))
        self.assertTrue(all(torch.equal(t, self.state()[k]) for k, t in got.items()))

    def test_values_that_do_not_fit(self):
        for value, args, says in ((float("nan"), (), "not finite as F32"), (1e6, ("--dtype", "f16"), "not finite as F16")):
            state = self.state()
            state["layer3.1.conv2.weight"][0, 0, 0, 0] = value
            self.refused(self.file(state), *self.OPTIONS, *args, says=["layer3.1.conv2.weight", says])

    def test_no_code_of_a_file_runs(self):
        self.refused(self.file(torch.nn.Linear(2, 2)), *self.OPTIONS, says=["in.pt", "state_dict()"])

    def test_other_content(self):
        self.refused(self.file({"state": {}, "param_groups": []}), *self.OPTIONS, says=["optimizer"])
        self.refused(self.file({**self.state(), "note": 3}), *self.OPTIONS, says=["'note'", "int"])
        self.refused(self.file({f"module.{k}" if "fc" in k else k: t for k, t in self.state().items()}), *self.OPTIONS, says=["module."])
        (self.folder / "in.pt").write_bytes(b"no pickle")
        self.refused(self.folder / "in.pt", *self.OPTIONS, says=["in.pt"])


if __name__ == "__main__":
    unittest.main()
