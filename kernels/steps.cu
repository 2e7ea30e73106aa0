// Steps of an attack that are told later: what each found stays on the device, in the slot of the step, whose number is there too, so that
// one graph serves all steps.
//
//   note    iterates[slot] <- x, found[slot] <- loss, margin, prediction; done[n] <- 1 where the prediction is a success
//   tick    slot <- slot + 1, a launch of its own, as every block of a note reads the slot
//
// Copies only: the same bits on every device.
#include "attack.cuh"

// grid (ceil(d / chunk), N)
KERNEL(steps_note, StepsNoteArgs, 256, 1024) {
  const int n = block.index.y;
  const int64_t row = int64_t(*a.slot) * a.n + n;
  const float* x = a.x + int64_t(n) * a.d;
  float* y = a.iterates + row * a.d;
  for_each_of_chunk(block, a.d, a.chunk, [&](int i) { y[i] = x[i]; });
  if (block.index.x > 0) return;
  block::for_each(block, 1, 1, [&](int, int) {
    uint32_t* found = a.found + 3 * row;
    found[0] = float_to_bits(a.loss[n]), found[1] = float_to_bits(a.margin[n]), found[2] = uint32_t(a.prediction[n]);
    if (a.done && (a.prediction[n] == a.classes[n]) == (a.targeted != 0)) a.done[n] = 1;
  });
}

// grid (1)
KERNEL(steps_tick, StepsTickArgs, 32, 1024) {
  block::for_each(block, 1, 1, [&](int, int) { *a.slot += 1; });
}
