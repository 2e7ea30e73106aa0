//! Since when there is what a module asks for: its `.target`, and the `.version` and `.target` that each instruction needs.
//!
//! Source: PTX ISA 9.0, table 57 and the notes of each instruction. Where ptxas 13.0 takes more, so does this (`tests/isa/since.txt` holds
//! what it demands).

/// A `.version`.
pub type Version = (u32, u32);

/// The architectures of `.target`, and the version that each came with.
const TARGETS: [(&str, Version); 41] = [
    ("sm_10", (1, 0)),
    ("sm_11", (1, 0)),
    ("sm_12", (1, 2)),
    ("sm_13", (1, 2)),
    ("sm_20", (2, 0)),
    ("sm_21", (2, 0)),
    ("sm_30", (3, 0)),
    ("sm_32", (4, 0)),
    ("sm_35", (3, 1)),
    ("sm_37", (4, 1)),
    ("sm_50", (4, 0)),
    ("sm_52", (4, 1)),
    ("sm_53", (4, 2)),
    ("sm_60", (5, 0)),
    ("sm_61", (5, 0)),
    ("sm_62", (5, 0)),
    ("sm_70", (6, 0)),
    ("sm_72", (6, 1)),
    ("sm_75", (6, 3)),
    ("sm_80", (7, 0)),
    ("sm_86", (7, 1)),
    ("sm_87", (7, 4)),
    ("sm_88", (9, 0)),
    ("sm_89", (7, 8)),
    ("sm_90", (7, 8)),
    ("sm_90a", (8, 0)),
    ("sm_100", (8, 6)),
    ("sm_100a", (8, 6)),
    ("sm_100f", (8, 8)),
    ("sm_103", (8, 8)),
    ("sm_103a", (8, 8)),
    ("sm_103f", (8, 8)),
    ("sm_110", (9, 0)),
    ("sm_110a", (9, 0)),
    ("sm_110f", (9, 0)),
    ("sm_120", (8, 7)),
    ("sm_120a", (8, 7)),
    ("sm_120f", (8, 8)),
    ("sm_121", (8, 8)),
    ("sm_121a", (8, 8)),
    ("sm_121f", (8, 8)),
];

/// Of those, the ones that 9.0 renamed to `sm_110`.
const RENAMED: [(&str, Version); 3] = [("sm_101", (8, 6)), ("sm_101a", (8, 6)), ("sm_101f", (8, 8))];

/// Whether a version has a target.
///
/// # Errors
/// What it takes, or that there is no such target.
pub fn pair(version: Version, target: &str) -> Result<(), String> {
    let of = |table: &[(&str, Version)]| table.iter().find(|(name, _)| *name == target).map(|&(_, since)| since);
    let (major, minor) = version;
    if let Some(since) = of(&RENAMED) {
        return match version {
            (9.., _) => {
                Err(format!("there is no .target {target} in .version {major}.{minor}: since 9.0 it is sm_110"))
            }
            _ if version < since => Err(too_old(version, target, since)),
            _ => Ok(()),
        };
    }
    match of(&TARGETS) {
        None => Err(format!("there is no .target {target}")),
        Some(since) if version < since => Err(too_old(version, target, since)),
        Some(_) => Ok(()),
    }
}

fn too_old((major, minor): Version, target: &str, since: Version) -> String {
    format!(".version {major}.{minor} has no .target {target}, which came with {}.{}", since.0, since.1)
}

/// `sm_90a` is 90.
pub fn capability(target: &str) -> u32 {
    let digits = target.strip_prefix("sm_").unwrap_or(target);
    digits.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

/// Whether a device of a compute capability, and no older one, runs code for a target: `a` is for that architecture alone, `f` for
/// those of its family, which share the major number (PTX ISA 9.0, 11.1.2).
pub fn runs_on(target: &str, (major, minor): (u32, u32)) -> bool {
    let (least, device) = (capability(target), major * 10 + minor);
    match target.as_bytes().last() {
        Some(b'a') => device == least,
        Some(b'f') => device >= least && device / 10 == least / 10,
        _ => device >= least,
    }
}

/// Parts of an opcode, in this order but not side by side, of which each may be one of several (`f16|bf16`); the version and the
/// target that they need.
type Rule = (&'static str, Version, u32);

/// Of state spaces and scopes, wherever they stand.
const PLACES: &[Rule] =
    &[("shared::cta", (7, 8), 30), ("shared::cluster|cluster", (7, 8), 90), ("param::entry|param::func", (8, 3), 0)];

const CACHES: &[Rule] = &[
    ("L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate", (7, 4), 70),
    ("L2::64B|L2::128B", (7, 4), 75),
    ("L2::256B|L2::cache_hint", (7, 4), 80),
];

const LOADS: &[Rule] = &[
    ("weak", (6, 0), 0),
    ("relaxed|acquire|release", (6, 0), 70),
    ("ca|cg|cs|lu|cv|wb|wt", (2, 0), 20),
    ("nc", (3, 1), 32),
    ("mmio", (8, 2), 70),
    ("v8", (8, 8), 100),
    ("L2::evict_normal|L2::evict_first|L2::evict_last", (8, 8), 100),
    ("v4 b64|u64|s64|f64", (8, 8), 100),
];

const ATOMICS: &[Rule] = &[
    ("", (1, 1), 11),
    ("add f32", (2, 0), 20),
    ("and|or|xor b64", (3, 1), 32),
    ("min|max u64|s64", (3, 1), 32),
    ("cta|gpu|sys", (5, 0), 60),
    ("add f64", (5, 0), 60),
    ("relaxed|acquire|release|acq_rel", (6, 0), 70),
    ("f16x2", (6, 2), 60),
    ("f16", (6, 3), 70),
    ("cas b16", (6, 3), 70),
    ("bf16|bf16x2", (7, 8), 90),
    ("v2|v4|v8", (8, 1), 90),
];

/// What instructions with a name need.
fn rules(name: &str) -> &'static [Rule] {
    match name {
        "add" | "sub" | "mul" | "fma" => &[
            ("f16|f16x2", (4, 2), 53),
            ("u16x2|s16x2", (8, 0), 90),
            ("f32 f16|bf16", (8, 6), 100),
            ("f32x2", (8, 6), 100),
            ("cc u64|s64", (4, 3), 20),
            ("relu", (7, 0), 80),
        ],
        "addc" | "subc" => &[("u64|s64", (4, 3), 20)],
        "mad" => &[("cc", (3, 0), 20), ("cc u64|s64", (4, 3), 20)],
        "madc" => &[("", (3, 0), 20), ("u64|s64", (4, 3), 20)],
        "dp4a" | "dp2a" => &[("", (5, 0), 61)],
        "min" | "max" => &[
            ("NaN", (7, 0), 80),
            ("f16|f16x2|bf16|bf16x2", (7, 0), 80),
            ("xorsign", (7, 2), 86),
            ("relu", (8, 0), 90),
            ("u16x2|s16x2", (8, 0), 90),
        ],
        "neg" => &[("f16|f16x2", (6, 0), 53), ("bf16|bf16x2", (7, 0), 80)],
        "abs" => &[("f16|f16x2", (6, 5), 53), ("bf16|bf16x2", (7, 0), 80)],
        "rcp" => &[("ftz f64", (2, 1), 20)],
        "rsqrt" => &[("ftz f64", (4, 0), 20)],
        "tanh" => &[("", (7, 0), 75), ("bf16|bf16x2", (7, 8), 90)],
        "ex2" => &[("f16|f16x2", (7, 0), 75), ("bf16|bf16x2", (7, 8), 90)],
        "copysign" | "testp" | "prmt" | "bfe" | "bfi" | "bfind" | "brev" | "clz" | "popc" => &[("", (2, 0), 20)],
        "set" => &[("f16|f16x2", (4, 2), 53), ("u16|s16|u32|s32 f16|f16x2", (6, 5), 53), ("bf16|bf16x2", (7, 8), 90)],
        "setp" => &[("f16|f16x2", (4, 2), 53), ("bf16|bf16x2", (7, 8), 90)],
        "lop3" => &[("", (4, 3), 50), ("and|or", (8, 2), 70)],
        "shf" => &[("", (3, 1), 32)],
        "fns" => &[("", (6, 0), 30)],
        "bmsk" | "szext" => &[("", (7, 6), 70)],
        "vadd" | "vsub" | "vabsdiff" | "vmin" | "vmax" | "vset" | "vshl" | "vshr" | "vmad" => &[("", (2, 0), 20)],
        "vadd2" | "vsub2" | "vabsdiff2" | "vmin2" | "vmax2" | "vset2" | "vavrg2" | "vadd4" | "vsub4" | "vabsdiff4"
        | "vmin4" | "vmax4" | "vset4" | "vavrg4" => &[("", (3, 0), 30)],
        "cvt" => &[
            ("pack", (6, 5), 72),
            ("relu", (7, 0), 80),
            ("f16x2|bf16x2 f32", (7, 0), 80),
            ("bf16 f32", (7, 0), 80),
            ("f32 bf16", (7, 1), 80),
            ("bf16 u8|s8|u16|s16|u32|s32|u64|s64|f16|bf16|f64", (7, 8), 90),
            ("u8|s8|u16|s16|u32|s32|u64|s64|f16|f64 bf16", (7, 8), 90),
            ("tf32", (7, 0), 80),
            ("rn|rz tf32", (7, 8), 90),
            ("satfinite f16|f16x2|bf16|bf16x2|tf32 f32", (8, 1), 0),
            ("rn|rz satfinite tf32", (8, 6), 100),
        ],
        "cvta" | "isspacep" => &[("", (2, 0), 20), ("const", (3, 1), 20), ("param|param::entry", (7, 7), 70)],
        "ldu" | "prefetchu" => &[("", (2, 0), 20)],
        "prefetch" => &[("", (2, 0), 20), ("L2::evict_last|L2::evict_normal", (7, 4), 80)],
        "createpolicy" | "discard" | "applypriority" => &[("", (7, 4), 80)],
        "shfl" => &[("", (3, 0), 30), ("sync", (6, 0), 30)],
        "vote" => &[("", (1, 2), 12), ("ballot", (2, 0), 20), ("sync", (6, 0), 30)],
        "match" => &[("", (6, 0), 70)],
        "activemask" => &[("", (6, 2), 30)],
        "redux" => &[("", (7, 0), 80)],
        "elect" => &[("", (8, 0), 90)],
        "griddepcontrol" => &[("", (7, 8), 90)],
        "nanosleep" => &[("", (6, 3), 70)],
        "brx" => &[("", (6, 0), 30)],
        "bar" => &[("arrive|red", (2, 0), 20), ("warp", (6, 0), 30), ("cta", (7, 8), 30)],
        "barrier" => &[("", (6, 0), 30), ("cta", (7, 8), 30), ("cluster", (7, 8), 90)],
        "membar" => &[("", (1, 4), 0), ("sys", (2, 0), 20), ("proxy", (7, 5), 70)],
        "fence" => &[
            ("", (6, 0), 70),
            ("proxy", (7, 5), 70),
            ("cluster", (7, 8), 90),
            ("mbarrier_init", (8, 0), 90),
            ("proxy async|async::global|async::shared::cta|async::shared::cluster", (8, 0), 90),
            ("proxy tensormap::generic", (8, 3), 90),
        ],
        "ldmatrix" => &[("", (6, 5), 75)],
        "movmatrix" => &[("", (7, 8), 75)],
        "stmatrix" => &[("", (7, 8), 90)],
        "mma" => &[
            ("", (6, 4), 70),
            ("m16n8k8", (6, 5), 75),
            ("m8n8k16", (6, 5), 75),
            ("m16n8k4|m16n8k16|m16n8k32", (7, 0), 80),
            ("bf16|tf32|f64", (7, 0), 80),
            ("m16n8k4|m16n8k8|m16n8k16 f64", (7, 8), 90),
            ("e4m3|e5m2", (8, 4), 89),
            ("m16n8k16 e4m3|e5m2", (8, 7), 89),
            ("f16 e4m3|e5m2", (8, 7), 89),
            ("kind::f8f6f4", (8, 7), 120),
        ],
        "setmaxnreg" => &[("", (8, 0), 90)],
        "wmma" => &[
            ("", (6, 0), 70),
            ("m32n8k16|m8n32k16", (6, 1), 70),
            ("s8|u8|s32", (6, 3), 72),
            ("bf16|tf32|f64", (7, 0), 80),
        ],
        "mbarrier" => &[
            ("", (7, 0), 80),
            ("parity", (7, 1), 80),
            ("try_wait", (7, 8), 90),
            ("release|acquire", (8, 0), 80),
            ("expect_tx|complete_tx", (8, 0), 90),
            ("shared::cluster", (8, 0), 90),
            ("arrive|arrive_drop|test_wait|try_wait relaxed", (8, 6), 90),
        ],
        "cp" => &[("async", (7, 0), 80), ("bulk", (8, 0), 90), ("bulk shared::cta global", (8, 6), 90)],
        _ => &[],
    }
}

/// What families of them need besides.
fn families(name: &str) -> [&'static [Rule]; 3] {
    match name {
        "add" | "sub" | "mul" => [&[("bf16|bf16x2", (7, 8), 90)], &[], &[]],
        "fma" => [&[("bf16|bf16x2", (7, 0), 80)], &[], &[]],
        "ld" | "ldu" | "st" => [LOADS, PLACES, CACHES],
        "atom" | "red" => [ATOMICS, PLACES, CACHES],
        "cvta" | "isspacep" | "mbarrier" | "ldmatrix" | "stmatrix" | "wmma" => [PLACES, &[], &[]],
        // The state spaces of `cp.async` are taken as they always were.
        "cp" => [CACHES, &[], &[]],
        _ => [&[], &[], &[]],
    }
}

/// What depends on more than the parts.
fn conditional(name: &str, parts: &[&str], operands: usize, capability: u32) -> &'static [Rule] {
    match name {
        // These came with sm_90, then for sm_89 too.
        "cvt" if capability < 90 => &[("e4m3x2|e5m2x2", (8, 1), 89)],
        "cvt" => &[("e4m3x2|e5m2x2", (7, 8), 90)],
        // Of three.
        "min" | "max" if operands == 4 => &[("f32", (8, 8), 100)],
        // Of several arrivals, which may complete the phase.
        "mbarrier" if operands == 3 && !parts.contains(&"noComplete") => &[("arrive|arrive_drop", (7, 8), 90)],
        _ => &[],
    }
}

/// The parts that a rule is about; `None` where it says nothing of them.
fn matching<'a>(rule: &str, parts: &[&'a str]) -> Option<Vec<&'a str>> {
    let mut rest = parts.iter();
    rule.split_whitespace().map(|any| rest.find(|part| any.split('|').any(|p| p == **part)).copied()).collect()
}

/// Whether there is an instruction in this version, for this target.
///
/// # Errors
/// What it needs.
pub fn allowed(opcode: &[String], operands: usize, version: Version, target: &str) -> Result<(), String> {
    let parts: Vec<&str> = opcode.iter().map(String::as_str).collect();
    let Some((&name, parts)) = parts.split_first() else { return Ok(()) };
    let capability = capability(target);
    let module = || format!("the module has .version {}.{} and .target {target}", version.0, version.1);
    if matches!(name, "shfl" | "vote") && !parts.contains(&"sync") && version >= (6, 4) && capability >= 70 {
        return Err(format!("from .version 6.4 on, sm_70 and higher have only {name}.sync; {}", module()));
    }
    let conditional = conditional(name, parts, operands, capability);
    let all = [rules(name), conditional].into_iter().chain(families(name)).flatten();
    let failing = all.filter(|(_, since, least)| version < *since || capability < *least);
    let failing = failing.filter_map(|&(rule, since, least)| Some((least, since, matching(rule, parts)?)));
    let Some((least, since, parts)) = failing.max() else { return Ok(()) };
    let mut needs = Vec::new();
    if version < since {
        needs.push(format!(".version {}.{} or later", since.0, since.1));
    }
    if capability < least {
        needs.push(format!(".target sm_{least} or higher"));
    }
    let what: String = parts.iter().map(|part| format!(".{part}")).collect();
    let what = if what.is_empty() { name } else { &what };
    Err(format!("{what} needs {}; {}", needs.join(" and "), module()))
}
