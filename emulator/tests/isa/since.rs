//! `since.txt`: the first `.version` and `.target` of each instruction. There it loads; one version or one target earlier it is refused with
//! what it needs.

use ptx_emulator::machine::{Machine, Options};

const VERSIONS: [(u32, u32); 9] = [(1, 5), (2, 3), (3, 2), (4, 3), (5, 0), (6, 5), (7, 8), (8, 8), (9, 0)];
const TARGETS: [u32; 24] =
    [10, 11, 12, 13, 20, 30, 32, 35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100];

struct Line {
    version: (u32, u32),
    target: u32,
    instruction: &'static str,
}

/// The names that instructions use, and the instructions.
fn read() -> (String, Vec<Line>) {
    let (mut names, mut lines) = (String::new(), Vec::new());
    for line in include_str!("since.txt").lines().filter(|line| !line.starts_with('#')) {
        if let Some(more) = line.strip_prefix(':') {
            names += more;
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_else(|| panic!("{line}"));
        let (version, target) = (next(), next());
        let (major, minor) = version.split_once('.').expect(line);
        lines.push(Line {
            version: (major.parse().expect(line), minor.parse().expect(line)),
            target: target.strip_prefix("sm_").and_then(|t| t.parse().ok()).expect(line),
            instruction: next(),
        });
    }
    (names, lines)
}

fn before((major, minor): (u32, u32)) -> Option<(u32, u32)> {
    if minor > 0 { Some((major, minor - 1)) } else { VERSIONS.into_iter().find(|(other, _)| other + 1 == major) }
}

fn load(names: &str, (major, minor): (u32, u32), target: u32, instruction: &str) -> Result<(), String> {
    let ptx = format!(
        ".version {major}.{minor}\n.target sm_{target}\n.address_size 64\n.visible .entry k(.param .u64 a) {{ {names}\n{instruction}\nret; }}\n"
    );
    let mut machine = Machine::new(Options::default());
    let found = machine.load(&ptx).and_then(|mut module| module.kernel("k").expect("it is there").map(drop));
    found.map_err(|e| e.to_string())
}

#[test]
fn instructions_are_there_since_the_version_and_target_that_have_them() {
    let (names, lines) = read();
    let (mut wrong, mut older, mut lower) = (Vec::new(), 0, 0);
    for Line { version, target, instruction } in &lines {
        if let Err(e) = load(&names, *version, *target, instruction) {
            wrong.push(e);
        }
        let refused = |version, target, needs: String| match load(&names, version, target, instruction) {
            Ok(()) => Some(format!("{instruction} loads for .version {}.{}, sm_{target}", version.0, version.1)),
            Err(e) if !e.contains(&needs) || !e.contains("PTX line 5") => Some(format!("{e}: expected {needs}")),
            Err(_) => None,
        };
        if let Some(before) = before(*version)
            && ptx_emulator::ptx::since::pair(before, &format!("sm_{target}")).is_ok()
        {
            older += 1;
            wrong.extend(refused(before, *target, format!("needs .version {}.{} or later", version.0, version.1)));
        }
        if let Some(before) = TARGETS.into_iter().rfind(|t| t < target) {
            lower += 1;
            wrong.extend(refused((9, 0), before, format!("needs .target sm_{target} or higher")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} lines:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    // Most lines have something before them that must refuse.
    assert!(lines.len() >= 230 && lower >= 220 && older >= 70, "{} lines, {older} older, {lower} lower", lines.len());
}

#[test]
fn a_module_says_what_it_needs_in_full() {
    let (names, _) = read();
    for (version, target, instruction, expected) in [
        (
            (7, 7),
            80,
            "add.rn.bf16 h, h0, h1;",
            "`add.rn.bf16`: .bf16 needs .version 7.8 or later and .target sm_90 or higher; the module has .version 7.7 and .target sm_80",
        ),
        (
            (7, 0),
            75,
            "redux.sync.add.u32 r, r0, r1;",
            "redux needs .target sm_80 or higher; the module has .version 7.0 and",
        ),
        ((8, 0), 80, "vote.all.pred p, q;", "from .version 6.4 on, sm_70 and higher have only vote.sync"),
        ((6, 4), 70, "shfl.idx.b32 r, r0, r1, r2;", "from .version 6.4 on, sm_70 and higher have only shfl.sync"),
    ] {
        let problem = load(&names, version, target, instruction).expect_err(instruction);
        assert!(problem.contains(expected), "{problem}");
    }
    // Shuffles and votes without member masks are those of older versions and targets.
    for (version, target) in [((6, 3), 75), ((9, 0), 62)] {
        load(&names, version, target, "shfl.idx.b32 r, r0, r1, r2; vote.all.pred p, q;").unwrap();
    }
}

#[test]
fn pairs_that_do_not_exist_are_refused() {
    for (version, target, expected) in [
        ((7, 7), "sm_90", ".version 7.7 has no .target sm_90, which came with 7.8"),
        ((7, 8), "sm_90a", ".version 7.8 has no .target sm_90a, which came with 8.0"),
        ((6, 5), "sm_80", ".version 6.5 has no .target sm_80, which came with 7.0"),
        ((8, 7), "sm_120f", ".version 8.7 has no .target sm_120f, which came with 8.8"),
        ((9, 0), "sm_77", "there is no .target sm_77"),
        ((9, 0), "sm_80a", "there is no .target sm_80a"),
        ((9, 0), "sm_101", "there is no .target sm_101 in .version 9.0: since 9.0 it is sm_110"),
    ] {
        let (major, minor) = version;
        let ptx =
            format!(".version {major}.{minor}\n.target {target}\n.address_size 64\n.visible .entry k() {{ ret; }}\n");
        let problem = Machine::new(Options::default()).load(&ptx).map(drop).expect_err(target).to_string();
        assert!(problem.contains(expected) && problem.contains("PTX line 2"), "{problem}");
    }
    for (version, target) in [((8, 6), "sm_101a"), ((9, 0), "sm_110f"), ((9, 5), "sm_80"), ((3, 1), "sm_35")] {
        ptx_emulator::ptx::since::pair(version, target).unwrap();
    }
}

#[test]
fn special_targets_run_where_they_are_for() {
    use ptx_emulator::ptx::since::runs_on;
    for (target, device, runs) in [
        ("sm_80", (9, 0), true),
        ("sm_90", (8, 0), false),
        ("sm_90a", (9, 0), true),
        ("sm_90a", (12, 0), false),
        ("sm_100f", (10, 3), true),
        ("sm_100f", (12, 0), false),
        ("sm_120f", (12, 0), true),
        ("sm_103f", (10, 0), false),
    ] {
        assert_eq!(runs_on(target, device), runs, "{target} on {device:?}");
    }
}
