"""What of the day on a GPU can be tried without one: the reading of Nsight Compute's table, and what is shown of it."""

import unittest

import gpu_day

HEADER = ("ID", "Kernel Name", "Block Size", *list(gpu_day.METRICS)[:2], "dram__bytes.sum", "launch__registers_per_thread")
ROWS = (
    HEADER,
    ("", "", "", "usecond", "%", "Mbyte", "register/thread"),
    ("0", "conv_bf16(ConvArgs)", "(256, 1, 1)", "1,250.50", "80.0", "3.5", "246"),
    ("1", "normalize_bf16(NormalizeArgs)", "(256, 1, 1)", "10", "20.0", "1", "48"),
    ("2", "conv_bf16(ConvArgs)", "(256, 1, 1)", "749.5", "40.0", "0.5", "246"),
)
BEFORE = "==PROF== Connected to process 7\n==PROF== Disconnected from process 7\n"
NCU = BEFORE + "".join(",".join(f'"{value}"' for value in row) + "\n" for row in ROWS)


class GpuDay(unittest.TestCase):
    def test_launches_of_a_kernel_are_added_and_shares_weighted_by_time(self):
        rows = gpu_day.largest(gpu_day.ncu_rows(NCU), 1)
        self.assertEqual([row["kernel"] for row in rows], ["conv_bf16"])
        self.assertEqual(rows[0]["launches"], 2)
        self.assertAlmostEqual(rows[0]["time_ns"], 2e6)
        self.assertAlmostEqual(rows[0]["share"], 2000 / 2010)
        self.assertAlmostEqual(rows[0]["sm_percent"], (80 * 1250.5 + 40 * 749.5) / 2000)
        self.assertEqual(rows[0]["dram_bytes"], 4e6)
        self.assertEqual(rows[0]["registers"], 246)

    def test_output_without_a_table_is_an_error_with_its_end(self):
        with self.assertRaisesRegex(RuntimeError, "no table: .*ERR_NVGPUCTRPERM"):
            gpu_day.ncu_rows("==ERROR== ERR_NVGPUCTRPERM")

    def test_a_failure_stands_in_the_table(self):
        rows = {"parity": [{"what": "f32", "result": "1 | 2", "failed": True}, {"what": "bf16", "result": "not run: no time left"}]}
        table = gpu_day.markdown(rows)
        self.assertIn("| parity | f32 | **failed**: 1 \\| 2 |", table)
        self.assertIn("| parity | bf16 | not run: no time left |", table)


if __name__ == "__main__":
    unittest.main()
