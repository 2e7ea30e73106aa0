//! The layers of the source: no import goes up or round, and what it sends people to is there.
//!
//! What is read: `use` declarations and paths that begin with `crate`, `super` or `self`, outside of tests. A `pub use` of a module's own
//! child is a name for it, not a use of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// The rooms of `src/`, lowest first; rooms of one line may not import each other.
const RAMPART: &[&[&str]] = &[
    &["shown"],
    &["error", "choice", "number", "stats"],
    &["files"],
    &["device", "data"],
    &["draw", "tensor"],
    &["tape"],
    &["ops"],
    &["attack"],
    &["models"],
    &["defense"],
    &["config", "parity", "profile"],
    &["run"],
    &["report"],
    &["cli"],
];

/// The same of `emulator/src/`.
const EMULATOR: &[&[&str]] = &[
    &["address", "finding", "registers", "fatbin", "ptx"],
    &["check", "memory", "ops"],
    &["program", "device"],
    &["count"],
    &["exec"],
    &["compile"],
    &["machine"],
    &["config"],
    &["driver"],
];

/// An instruction holds a function over the machine that runs it.
const STEP: [(&str, &str); 2] = [("program", "exec::cta"), ("program", "exec::warp")];

/// A source tree: its files by the path of their module.
struct Tree {
    files: BTreeMap<Vec<String>, PathBuf>,
}

/// An import, from a module to a module.
type Edge = (Vec<String>, Vec<String>);

fn is_test(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|a| a.path().is_ident("cfg") && quote::ToTokens::to_token_stream(a).to_string().contains("test"))
}

impl Tree {
    fn read(root: &Path) -> Tree {
        let mut tree = Tree { files: BTreeMap::new() };
        tree.module(&root.join("lib.rs"), root, vec![]);
        tree
    }

    /// Notes a file and the modules it declares, whose files lie in `folder`.
    fn module(&mut self, file: &Path, folder: &Path, path: Vec<String>) {
        let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for item in &parsed.items {
            let Item::Mod(module) = item else { continue };
            if module.content.is_some() || is_test(&module.attrs) {
                continue;
            }
            let name = module.ident.to_string();
            let flat = folder.join(format!("{name}.rs"));
            let child = if flat.is_file() { flat } else { folder.join(&name).join("mod.rs") };
            self.module(&child, &folder.join(&name), [path.clone(), vec![name]].concat());
        }
        self.files.insert(path, file.to_owned());
    }

    fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (path, file) in &self.files {
            let text = fs::read_to_string(file).expect("read before");
            let parsed = syn::parse_file(&text).expect("parsed before");
            let mut imports = Imports { tree: self, path, found: BTreeSet::new() };
            imports.visit_file(&parsed);
            edges.extend(imports.found.into_iter().map(|to| (path.clone(), to)));
        }
        edges
    }

    /// The module whose file defines what `path` names: the longest part that is a module.
    fn owner(&self, path: &[String]) -> Vec<String> {
        let longest = (0..=path.len()).rev().find(|&n| self.files.contains_key(&path[..n]));
        path[..longest.unwrap_or(0)].to_vec()
    }
}

struct Imports<'a> {
    tree: &'a Tree,
    path: &'a [String],
    found: BTreeSet<Vec<String>>,
}

impl Imports<'_> {
    /// The absolute form of a path, if it stays in the crate.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let first = path.first()?;
        let rest = &path[1..];
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([self.path, rest].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let base = self.path.len().checked_sub(ups)?;
                Some([&self.path[..base], &path[ups..]].concat())
            }
            // A child by its bare name.
            name => {
                let child = [self.path, &[name.to_owned()]].concat();
                self.tree.files.contains_key(&child).then(|| [self.path, path].concat())
            }
        }
    }

    fn note(&mut self, path: &[String], is_public: bool) {
        let Some(target) = self.resolve(path) else { return };
        let owner = self.tree.owner(&target);
        let own_child = owner.len() > self.path.len() && owner.starts_with(self.path);
        if owner != self.path && !(is_public && own_child) {
            self.found.insert(owner);
        }
    }

    fn tree(&mut self, prefix: &[String], tree: &UseTree, is_public: bool) {
        match tree {
            UseTree::Path(p) => self.tree(&[prefix, &[p.ident.to_string()]].concat(), &p.tree, is_public),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(prefix, item, is_public)),
            UseTree::Name(name) if name.ident == "self" => self.note(prefix, is_public),
            UseTree::Name(name) => self.note(&[prefix, &[name.ident.to_string()]].concat(), is_public),
            UseTree::Rename(name) => self.note(&[prefix, &[name.ident.to_string()]].concat(), is_public),
            UseTree::Glob(_) => self.note(prefix, is_public),
        }
    }
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.tree(&[], &item.tree, !matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if path.leading_colon.is_none() && parts.len() > 1 {
            self.note(&parts, false);
        }
        visit::visit_path(self, path);
    }
}

fn shown(path: &[String]) -> String {
    if path.is_empty() { "lib".into() } else { path.join("::") }
}

/// Imports that go up, or between rooms of one line.
fn upward(edges: &[Edge], layers: &[&[&str]]) -> Vec<String> {
    let level = |room: &str| layers.iter().position(|rooms| rooms.contains(&room));
    let mut wrong = Vec::new();
    for (from, to) in edges {
        let (Some(a), Some(b)) = (from.first(), to.first()) else { continue };
        match (level(a), level(b)) {
            _ if a == b => {}
            (Some(a), Some(b)) if b < a => {}
            (Some(_), Some(_)) => {
                wrong.push(format!("{} imports {}, which does not lie below it", shown(from), shown(to)))
            }
            (None, _) => wrong.push(format!("`{a}` is in no layer of tests/layers.rs")),
            (_, None) => wrong.push(format!("`{b}` is in no layer of tests/layers.rs")),
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

/// Files that import each other, however long the way round.
fn circles(edges: &[Edge]) -> Vec<String> {
    let mut below: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for (from, to) in edges {
        below.entry(from).or_default().insert(to);
    }
    let reach = |from: &[String]| {
        let mut seen: BTreeSet<&[String]> = BTreeSet::new();
        let mut next: Vec<&[String]> = below.get(from).into_iter().flatten().copied().collect();
        while let Some(at) = next.pop() {
            if seen.insert(at) {
                next.extend(below.get(at).into_iter().flatten().copied());
            }
        }
        seen
    };
    let reached: BTreeMap<&[String], BTreeSet<&[String]>> = below.keys().map(|&from| (from, reach(from))).collect();
    let mut rings: BTreeSet<Vec<String>> = BTreeSet::new();
    for (&file, all) in &reached {
        if all.contains(file) {
            let ring = all.iter().filter(|&&other| reached.get(other).is_some_and(|back| back.contains(file)));
            rings.insert(ring.map(|path| shown(path)).collect());
        }
    }
    rings.into_iter().map(|ring| format!("import each other: {}", ring.join(", "))).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn no_import_of_rampart_goes_up_or_round() {
    let edges = Tree::read(&root().join("src")).edges();
    assert!(edges.len() > 300, "the reader of imports found only {}", edges.len());
    let wrong = [upward(&edges, RAMPART), circles(&edges)].concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_import_of_the_emulator_goes_up_or_round() {
    let mut edges = Tree::read(&root().join("emulator/src")).edges();
    assert!(edges.len() > 100, "the reader of imports found only {}", edges.len());
    for (from, to) in STEP {
        let before = edges.len();
        edges.retain(|(a, b)| (shown(a).as_str(), shown(b).as_str()) != (from, to));
        assert!(edges.len() < before, "{from} imports {to} no more: take it off the list");
    }
    let wrong = [upward(&edges, EMULATOR), circles(&edges)].concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a planted import does: one that goes up, one that goes round, and one within a group.
#[test]
fn planted_imports_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let plant = |file: &str, text: &str| {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    plant("lib.rs", "mod error;\nmod device;\nmod ops;\n");
    plant("error.rs", "pub struct E;");
    plant("device.rs", "use crate::{error::E, ops::conv};");
    plant("ops/mod.rs", "pub mod conv;\nmod pool;\npub use conv::C;");
    plant("ops/conv.rs", "use super::pool::P;\npub struct C;\n#[cfg(test)] mod tests { use crate::device::D; }");
    plant("ops/pool.rs", "pub struct P; fn f() -> super::conv::C { todo!() }");
    let edges = Tree::read(folder.path()).edges();
    let layers: &[&[&str]] = &[&["error"], &["device"], &["ops"]];
    assert_eq!(upward(&edges, layers), ["device imports ops::conv, which does not lie below it"]);
    assert_eq!(circles(&edges), ["import each other: ops::conv, ops::pool"]);
}

/// Scripts that a message, a page or a comment sends its reader to.
fn scripts_named(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("tools/").filter_map(|(at, _)| {
        let of_path = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
        let path = text[at..].split(|c| !of_path(c)).next()?.trim_end_matches('.');
        [".py", ".sh"].iter().any(|e| path.ends_with(e)).then_some(path)
    })
}

#[test]
fn scripts_that_are_named_exist() {
    let mut open = vec![root().join("src"), root().join("docs"), root().join("kernels"), root().join("xtask/src")];
    let mut files: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|f| root().join(f)).into();
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    let mut named = 0;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for script in scripts_named(&text) {
            named += 1;
            assert!(root().join(script).is_file(), "{} names {script}, which is not there", file.display());
        }
    }
    assert!(named > 10, "only {named} scripts are named");
    assert_eq!(scripts_named("see tools/no/such.py.").collect::<Vec<_>>(), ["tools/no/such.py"]);
}
