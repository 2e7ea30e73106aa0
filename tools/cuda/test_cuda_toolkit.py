"""What the tools that judge CUDA kernels conclude, on small made-up inputs: python3 -m unittest discover."""

import tempfile
import unittest
from pathlib import Path

from check_cubins import COLUMNS, changes, merged, unfit
from cuda_toolkit import KERNELS, main_loop, occupancy, portable
from prebuilt import SOURCES, difference, digest, recorded, unchanged, visible


def sass(*instructions):
    return "\n".join(f"        /*{16 * i:04x}*/                   {text} ;   /* 0x0 */" for i, text in enumerate(instructions))


def row(**changed):
    values = dict.fromkeys(COLUMNS, 0) | {"kernel": "conv_f32", "architecture": "sm_80", "loop_hmma": 8, "blocks_per_multiprocessor": 1}
    return values | changed


class MainLoop(unittest.TestCase):
    def test_the_inner_of_two_loops(self):
        code = [
            "MOV R1, R2",
            "MOV R1, R2",
            "HMMA.16816.F32 R0",
            "HMMA.16816.F32 R4",
            "@P0 BRA 0x20",
            "IADD3 R1, R1",
            "@P1 BRA 0x10",
            "EXIT",
        ]
        self.assertEqual(main_loop(sass(*code)), (3, 2, 3))

    def test_the_loop_with_the_most_hmma(self):
        code = ["HMMA.16816.F32 R0", "@P0 BRA 0x0", "MOV R1, R2", "HMMA.16816.F32 R0", "HMMA.16816.F32 R4", "@!P0 BRA `(0x20)", "EXIT"]
        self.assertEqual(main_loop(sass(*code)), (4, 2, 4))

    def test_a_side_path_in_front_of_the_loop(self):
        # Enters at 0x30; 0x50 leaves for 0x10, which comes back at 0x60.
        code = [
            "BRA 0x30",
            "MOV R1, R2",
            "BRA 0x60",
            "HMMA.16816.F32 R0",
            "MOV R1, R2",
            "@!P4 BRA 0x10",
            "HMMA.16816.F32 R4",
            "@P0 BRA 0x30",
            "EXIT",
        ]
        self.assertEqual(main_loop(sass(*code)), (5, 2, 7))

    def test_no_loop_with_hmma(self):
        self.assertEqual(main_loop(sass("MOV R1, R2", "@P0 BRA 0x0", "HMMA.16816.F32 R0", "EXIT")), (0, 0, 0))


class Occupancy(unittest.TestCase):
    def test_each_limit(self):
        # All as NVIDIA's cuda_occupancy.h counts them.
        self.assertEqual(occupancy(80, 128, 246, 49152), (2, 8))  # registers
        self.assertEqual(occupancy(80, 160, 146, 5676), (2, 10))  # registers, warps in no multiple of 4
        self.assertEqual(occupancy(80, 128, 32, 49152), (3, 12))  # shared memory: 3 * (48 + 1) KiB of 164
        self.assertEqual(occupancy(86, 256, 32, 0), (6, 48))  # threads
        self.assertEqual(occupancy(86, 32, 16, 0), (16, 16))  # blocks
        self.assertEqual(occupancy(89, 32, 16, 0), (24, 24))
        self.assertEqual(occupancy(90, 1024, 64, 227 << 10), (1, 32))


class Portable(unittest.TestCase):
    PTX = (
        "\t.loc\t1 5 3, function_name $L__info_string12, inlined_at 1 9 1\n\n\tret;\n"
        '\t.file\t1 "/home/someone/kernels/conv.cu"\n\t.file\t2 "/opt/cuda/bin/..//include/sm_30_intrinsics.hpp"\n'
        "\t.section\t.debug_str\n\t{\n$L__info_string12:\n.b8 95,90\n\n\t}\n"
    )
    CLEAN = (
        "\t.loc\t1 5 3, function_name $L__name, inlined_at 1 9 1\n\tret;\n"
        '\t.file\t1 "kernels/conv.cu"\n\t.file\t2 "cuda/sm_30_intrinsics.hpp"\n'
        "\t.section\t.debug_str\n\t{\n$L__name:\n.b8 0\n\t}\n"
    )

    def test_paths_and_names(self):
        self.assertEqual(portable(self.PTX), self.CLEAN)

    def test_twice_is_once(self):
        self.assertEqual(portable(self.CLEAN), self.CLEAN)


class Sources(unittest.TestCase):
    ARGS = "// one\nstruct A {\n  int32_t x;  // side\n};\n\nstruct B {\n  A a;\n};\nstruct C {\n  float f;\n};\n"

    def test_what_a_source_sees_of_the_structs(self):
        self.assertEqual(visible(self.ARGS, {"B"}), "struct A {\n  int32_t x;\n};\nstruct B {\n  A a;\n};")
        self.assertEqual(visible(self.ARGS, {"C"}), "struct C {\n  float f;\n};")

    def test_what_a_change_makes_stale(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "args.h").write_text(self.ARGS)
            (folder / "add.cu").write_text("KERNEL(add, A, 32, 0) {}")
            line = digest({"args.h", "add.cu"}, folder)
            self.assertTrue(unchanged("add", line, folder))
            (folder / "args.h").write_text(self.ARGS.replace("float f", "float g").replace("side", "edge"))
            self.assertTrue(unchanged("add", line, folder))
            (folder / "args.h").write_text(self.ARGS.replace("int32_t x", "int32_t y"))
            self.assertFalse(unchanged("add", line, folder))
            (folder / "args.h").write_text(self.ARGS)
            (folder / "add.cu").write_text("KERNEL(add, A, 32, 0) { }")
            self.assertFalse(unchanged("add", line, folder))
            self.assertFalse(unchanged("add", None, folder))

    def test_the_committed_record_is_of_these_sources(self):
        lines = recorded(SOURCES.read_text())
        self.assertEqual(sorted(lines), sorted(source.stem for source in KERNELS.glob("*.cu")))
        self.assertEqual([stem for stem, line in lines.items() if not unchanged(stem, line)], [])


class Judgements(unittest.TestCase):
    def test_what_no_kernel_may_do(self):
        self.assertEqual(list(unfit(row())), [])
        self.assertEqual(list(unfit(row(kernel="conv_depthwise_f32", loop_hmma=0))), [])
        self.assertEqual(list(unfit(row(kernel="pool_f32", loop_hmma=0))), [])
        for broken in [row(spill_bytes=4), row(stack_bytes=8), row(loop_hmma=0), row(blocks_per_multiprocessor=0)]:
            self.assertEqual(len(list(unfit(broken))), 1)

    def test_changes_name_the_column(self):
        committed = [{column: str(value) for column, value in row(registers=40).items()}]
        self.assertEqual(list(changes(committed, [row(registers=40)])), [])
        self.assertEqual(list(changes(committed, [row(registers=41)])), ["conv_f32 (sm_80): registers 40 -> 41"])
        self.assertEqual(list(changes([], [row()])), ["conv_f32 (sm_80): not in the file"])
        self.assertEqual(list(changes(committed, [])), ["conv_f32 (sm_80): in the file, but no such kernel"])

    def test_rows_of_one_file_replace_their_own(self):
        table = [row(kernel=k, architecture=a) for k in ("add", "gone", "mul") for a in ("sm_80", "sm_90")]
        fresh = [row(kernel="mul", architecture=a, registers=9) for a in ("sm_80", "sm_90")] + [row(kernel="neg", architecture="sm_80")]
        found = merged(table, fresh, {"add", "mul", "neg"})
        want = [("add", "sm_80", 0), ("add", "sm_90", 0), ("mul", "sm_80", 9), ("mul", "sm_90", 9), ("neg", "sm_80", 0)]
        self.assertEqual([(r["kernel"], r["architecture"], r["registers"]) for r in found], want)

    def test_the_first_line_that_differs(self):
        self.assertIsNone(difference("x", "a\nb\n", "a\nb\n"))
        self.assertIn("line 2 is `b`, a fresh build has `c`", difference("x", "a\nb\nd", "a\nc\ne"))
        self.assertIn("line 2 is `b`, a fresh build has the end of the file", difference("x", "a\nb", "a"))


if __name__ == "__main__":
    unittest.main()
