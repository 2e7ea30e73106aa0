//! Which of the host kernels in this binary this processor can run.

use std::ffi::CStr;
use std::sync::{Mutex, PoisonError};

use super::kernel::{LEVELS, Level};
use crate::{Error, Result};

/// Names the level outright: a lower one than the processor's own.
pub const VARIABLE: &str = "RAMPART_HOST_LEVEL";

impl Level {
    fn text(&self) -> &'static str {
        // SAFETY: the function gives a constant.
        unsafe { CStr::from_ptr((self.features)()) }.to_str().unwrap_or_default()
    }

    /// The instruction sets in use, those that people know.
    pub(super) fn in_words(&self) -> String {
        let known = self.text().split(';').next().unwrap_or_default();
        let list = known.trim_end_matches(',').replace(',', " ");
        if list.is_empty() { "portable vectors".into() } else { list }
    }

    /// The first thing that this processor, or its system, lacks for these kernels.
    fn lacks(&self) -> Option<&'static str> {
        let mut features = self.text().split([',', ';']).filter(|f| !f.is_empty());
        // SAFETY: asks the system for a permission, which may be asked for any number of times.
        features
            .find(|f| !has(f))
            .or_else(|| (unsafe { (self.init)() } != 0).then_some("the matrix unit's state, which the system refuses"))
    }
}

/// The levels in this binary, the least first.
pub fn names() -> Vec<&'static str> {
    LEVELS.iter().map(|level| level.name).collect()
}

/// The name of the level that runs.
///
/// # Errors
/// As [`super::Device::host`].
pub fn current() -> Result<&'static str> {
    Ok(LEVELS[choose()?].name)
}

/// A level as a run notes it: its name, and of a build for the machine it was built on the instruction sets as well.
pub(super) fn described(level: usize) -> String {
    let level = &LEVELS[level];
    if level.name == NATIVE { format!("{NATIVE}: {}", level.in_words()) } else { level.name.to_owned() }
}

/// Whether a level's kernels use matrix units for bf16. Those that multiply pairs of values (AVX-512 BF16) save little beside float32,
/// where 3x3 convolutions take a quarter of the multiplications.
pub(super) fn multiplies_bf16(level: usize) -> bool {
    LEVELS[level].text().contains("amx-bf16")
}

const NATIVE: &str = "native";

/// What decides the level besides the processor.
struct Wanted {
    /// As the command line names it.
    said: Option<String>,
    /// Of the run that is gone on with.
    pinned: Option<String>,
}

static WANTED: Mutex<Wanted> = Mutex::new(Wanted { said: None, pinned: None });

/// Names the level in place of [`VARIABLE`], for devices that are opened from here on.
pub fn say(level: Option<&str>) {
    WANTED.lock().unwrap_or_else(PoisonError::into_inner).said = level.map(str::to_owned);
}

/// Where no host kernel would run, a level that the command line names.
///
/// # Errors
/// [`Error::Usage`] when there is one; `kind` is the device's.
pub fn is_heard_by(kind: &str) -> Result<()> {
    let said = WANTED.lock().unwrap_or_else(PoisonError::into_inner).said.is_some();
    if said && kind != "host" {
        let problem = format!("expected the device host, whose kernels have levels, found {kind}: leave it out");
        return Err(Error::usage(FLAG, problem));
    }
    Ok(())
}

/// Devices that are opened from here on compute at this level, as `info` says it, or not at all.
pub fn pin(level: Option<&str>) {
    WANTED.lock().unwrap_or_else(PoisonError::into_inner).pinned = level.map(str::to_owned);
}

/// Which of [`LEVELS`] to run.
pub(super) fn choose() -> Result<usize> {
    let variable = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(|v| v.to_string_lossy().into_owned());
    let wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
    let said = wanted.said.clone().map(|level| (FLAG, level)).or(variable.map(|level| (VARIABLE, level)));
    let pinned = wanted.pinned.as_deref().map(|level| level.split(':').next().unwrap_or(level).to_owned());
    if let (Some((by, said)), Some(pinned)) = (&said, &pinned)
        && said != pinned
    {
        let problem =
            format!("the run was begun with host kernels for {pinned}, and {said} sums in another order: leave it out");
        return Err(Error::usage(*by, problem));
    }
    let wanted = said.or(pinned.map(|level| ("the level of the run", level)));
    let lacking: Vec<_> = LEVELS.iter().map(|level| (level.name, level.lacks())).collect();
    pick(&lacking, wanted.as_ref().map(|(by, level)| (*by, level.as_str()))).map_err(Error::device)
}

/// The flag of the command line.
const FLAG: &str = "--host-level";

/// Of levels and what is lacking for each, the one that is wanted, and by whom, else the last that lacks nothing.
fn pick(levels: &[(&str, Option<&str>)], wanted: Option<(&str, &str)>) -> std::result::Result<usize, String> {
    let names = || levels.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if let Some((by, wanted)) = wanted {
        let Some(at) = levels.iter().position(|(name, _)| *name == wanted) else {
            return Err(format!(
                "{by} is {wanted}; the host kernels in this program are for {}: a build with RAMPART_HOST_ARCH=all has every level",
                names()
            ));
        };
        return match levels[at].1 {
            None => Ok(at),
            Some(what) => Err(format!("{by} is {wanted}, for which this processor lacks {what}")),
        };
    }
    levels.iter().rposition(|(_, lacks)| lacks.is_none()).ok_or_else(|| {
        let (name, lacks) = levels.first().copied().unwrap_or_default();
        format!(
            "the host kernels in this program are for {}, and this processor lacks {} for {name}; \
             build it here, or anywhere with RAMPART_HOST_ARCH=all",
            names(),
            lacks.unwrap_or("everything")
        )
    })
}

/// Whether this processor has an instruction set, and its system saves the registers of it.
#[cfg(target_arch = "x86_64")]
fn has(feature: &str) -> bool {
    macro_rules! detected {
        ($($name:tt)*) => {
            match feature {
                $($name => is_x86_feature_detected!($name),)*
                // Later than the oldest compiler that builds this: leaf 7 of cpuid, and the rest of AVX-512 for its registers.
                "avx512fp16" => is_x86_feature_detected!("avx512f") && leaf7() >> 23 & 1 == 1,
                // Whether the system lets a process have its state is asked of the system.
                "amx-bf16" => leaf7() >> 22 & leaf7() >> 24 & 1 == 1,
                _ => false,
            }
        };
    }
    detected! {
        "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx" "f16c" "bmi1" "bmi2" "lzcnt" "movbe" "avx2" "fma" "avxvnni" "gfni" "vaes"
        "vpclmulqdq" "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vnni"
        "avx512bitalg" "avx512vpopcntdq" "avx512bf16"
    }
}

/// Register edx of leaf 7, 0 where there is none.
#[cfg(target_arch = "x86_64")]
fn leaf7() -> u32 {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    #[allow(unused_unsafe, reason = "safe in later releases of the standard library")]
    // SAFETY: every x86-64 processor has the instruction; a leaf that it lacks is not asked for.
    unsafe {
        if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has(_: &str) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_level_that_runs_is_taken() {
        let levels = [("x86-64", None), ("x86-64-v3", None), ("x86-64-v4", Some("avx512f"))];
        assert_eq!(pick(&levels, None), Ok(1));
        assert_eq!(pick(&levels, Some((VARIABLE, "x86-64"))), Ok(0));
        assert_eq!(pick(&[("native", None)], None), Ok(0));
    }

    #[test]
    fn what_cannot_run_is_named() {
        let levels = [("x86-64-v3", Some("avx2")), ("x86-64-v4", Some("avx512f"))];
        let problem = pick(&levels, None).unwrap_err();
        for part in ["x86-64-v3, x86-64-v4", "lacks avx2 for x86-64-v3", "RAMPART_HOST_ARCH=all"] {
            assert!(problem.contains(part), "{part}: {problem}");
        }
        let problem = pick(&levels, Some((VARIABLE, "x86-64-v4"))).unwrap_err();
        assert!(problem.contains("x86-64-v4, for which this processor lacks avx512f"), "{problem}");
        let problem = pick(&levels, Some((VARIABLE, "fast"))).unwrap_err();
        assert!(
            problem.contains("RAMPART_HOST_LEVEL is fast") && problem.contains("x86-64-v3, x86-64-v4"),
            "{problem}"
        );
    }

    /// The compiler's list of what it may use reaches the check, and no entry is unknown to it.
    #[test]
    fn this_processor_has_what_the_running_level_needs() {
        let level = &LEVELS[choose().unwrap()];
        let features: Vec<&str> = level.text().split([',', ';']).filter(|f| !f.is_empty()).collect();
        assert!(features.iter().all(|feature| has(feature)), "{features:?}");
        assert!(!has("no-such-instructions") || !cfg!(target_arch = "x86_64"));
    }
}
