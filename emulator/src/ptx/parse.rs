//! PTX text to syntax: the module level. Names stay text.
//!
//! Source: PTX ISA 9.0, chapters 4 (syntax), 5 (state spaces, types, variables), 7 (functions), 11 (directives). Dropped,
//! because they say nothing about results: visibility, `.pragma`, debug sections, register and cluster hints, `.ptr`.

mod declare;
mod function;
mod operand;

use super::ast::{Function, Module, Space, Statement};
use super::error::PtxError;
use super::lex::{Lexer, Literal, Token, literal};
use super::since;

type Parse<T> = Result<T, PtxError>;

/// The versions of PTX that exist: the last of each major one. What they have beyond 9.0 is not known here.
const VERSIONS: [(u32, u32); 9] = [(1, 5), (2, 3), (3, 2), (4, 3), (5, 1), (6, 5), (7, 8), (8, 8), (9, 5)];

/// Reads a whole `.ptx` file.
///
/// # Errors
/// [`PtxError`] with the line. A byte order mark is one, as for ptxas: a text that a driver would not take must not pass its tests.
pub fn parse(text: &str) -> Result<Module, PtxError> {
    if text.starts_with('\u{feff}') {
        let what = "the text begins with a UTF-8 byte order mark (EF BB BF), which ptxas refuses: save it without";
        return Err(PtxError::new(1, what));
    }
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    let mut parser = Parser { line: lexer.line(), lexer, token, place: None };
    parser.module().map_err(|e| parser.placed(e, text))
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The next token, and its line.
    token: Token<'a>,
    line: u32,
    /// The function whose body is read.
    place: Option<Place>,
}

/// Where in a function the parser is.
struct Place {
    function: String,
    entry: bool,
    /// File and line of the last `.loc`.
    source: Option<(u32, u32)>,
}

/// `.alias name, target;`
struct Alias<'a> {
    name: &'a str,
    target: &'a str,
    line: u32,
}

/// More than a compiler emits; each is a copy of its function.
const MAX_ALIASES: usize = 256;

impl<'a> Parser<'a> {
    fn error<T>(&self, problem: impl Into<String>) -> Parse<T> {
        Err(PtxError::new(self.line, problem))
    }

    /// The next token is not what the syntax wants.
    fn expected<T>(&self, what: &str) -> Parse<T> {
        self.error(format!("expected {what}, found {}", self.token))
    }

    /// Takes the next token.
    fn bump(&mut self) -> Parse<Token<'a>> {
        let next = self.lexer.next()?;
        self.line = self.lexer.line();
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn at(&self, mark: char) -> bool {
        self.token == Token::Mark(mark)
    }

    /// Takes the mark if it comes next.
    fn accept(&mut self, mark: char) -> Parse<bool> {
        let found = self.at(mark);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    fn expect(&mut self, mark: char) -> Parse<()> {
        if self.accept(mark)? { Ok(()) } else { self.expected(&format!("`{mark}`")) }
    }

    /// A name that something declares or refers to; no dots.
    fn name(&mut self, what: &str) -> Parse<&'a str> {
        match self.token {
            Token::Word(word) if !word.contains(['.', ':']) => {
                self.bump()?;
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    /// A literal with its signs; integers may be sums: `-4`, `16+8`.
    fn constant(&mut self, what: &str) -> Parse<Literal> {
        self.constant_behind(false, what)
    }

    /// The same behind a sign that is read.
    fn constant_behind(&mut self, negative: bool, what: &str) -> Parse<Literal> {
        let first = self.signed(negative, what)?;
        let Literal::Integer(first) = first else { return Ok(first) };
        Ok(Literal::Integer(first.wrapping_add(self.offset()?)))
    }

    /// `+4`, `-4`, `+-4`, `+8+4` behind a name or number; 0 where nothing follows.
    fn offset(&mut self) -> Parse<i64> {
        let mut sum = 0i64;
        while self.at('+') || self.at('-') {
            match self.signed(false, "an integer")? {
                Literal::Integer(v) => sum = sum.wrapping_add(v),
                _ => return self.error("expected an integer offset, found a floating-point number"),
            }
        }
        Ok(sum)
    }

    fn signed(&mut self, mut negative: bool, what: &str) -> Parse<Literal> {
        while self.at('-') || self.at('+') {
            negative ^= self.at('-');
            self.bump()?;
        }
        let Token::Number(text) = self.token else { return self.expected(what) };
        let Some(value) = literal(text) else { return self.error(format!("{} is not a number of PTX", self.token)) };
        self.bump()?;
        Ok(match value {
            Literal::Integer(v) if negative => Literal::Integer(v.wrapping_neg()),
            Literal::F32(bits) if negative => Literal::F32(bits ^ 1 << 31),
            Literal::F64(bits) if negative => Literal::F64(bits ^ 1 << 63),
            same => same,
        })
    }

    /// A constant from 0 to 2^32 - 1.
    fn count(&mut self, what: &str) -> Parse<u32> {
        let line = self.line;
        match self.constant(what)? {
            Literal::Integer(v) if u32::try_from(v).is_ok() => Ok(v as u32),
            found => Err(PtxError::new(line, format!("expected {what}, found {found:?}"))),
        }
    }

    /// An error with the kernel in which it is, and the line of its source.
    fn placed(&self, e: PtxError, text: &str) -> PtxError {
        let Some(place) = &self.place else { return e };
        let source = place.source.and_then(|(file, line)| Some((file_name(text, file)?, line)));
        if place.entry { e.of_kernel(&place.function, source) } else { PtxError { source, ..e } }
    }

    fn module(&mut self) -> Parse<Module> {
        let version = self.version()?;
        let line = self.line;
        let target = self.target()?;
        since::pair(version, &target).map_err(|problem| PtxError::new(line, problem))?;
        let mut module = Module { version, target, ..Module::default() };
        let mut aliases = Vec::new();
        loop {
            let Token::Directive(directive) = self.token else {
                if self.token == Token::End {
                    break;
                }
                return self.expected("a directive");
            };
            let line = self.line;
            match directive {
                "address_size" => {
                    self.bump()?;
                    let bits = self.count("64")?;
                    if bits != 64 {
                        return Err(PtxError::new(line, format!(".address_size {bits}: only 64 is supported")));
                    }
                }
                "file" => module.files.push(self.file()?),
                "section" => self.section()?,
                "pragma" => self.pragma()?,
                "alias" => aliases.push(self.alias()?),
                _ => {
                    let external = self.linkage()?;
                    match self.token {
                        Token::Directive(kind @ ("entry" | "func")) => {
                            self.bump()?;
                            module.functions.push(self.function(kind == "entry", line)?);
                        }
                        Token::Directive(kind) => match space(kind) {
                            Some(space) if space != Space::Param => {
                                self.bump()?;
                                module.variables.extend(self.variables(space, external)?);
                            }
                            _ => return self.error(format!("unknown directive .{kind}")),
                        },
                        _ => return self.expected("a function or variable"),
                    }
                }
            }
        }
        if aliases.len() > MAX_ALIASES {
            let line = aliases[MAX_ALIASES].line;
            return Err(PtxError::new(line, format!("more than {MAX_ALIASES} aliases")));
        }
        hoist(&mut module);
        for alias in aliases {
            resolve(&alias, &mut module.functions)?;
        }
        Ok(module)
    }

    fn directive(&mut self, name: &str) -> Parse<()> {
        if self.token != Token::Directive(name) {
            return self.expected(&format!("`.{name}`"));
        }
        self.bump().map(drop)
    }

    /// `.version 9.0`
    fn version(&mut self) -> Parse<(u32, u32)> {
        self.directive("version")?;
        let Token::Number(text) = self.token else { return self.expected("a version") };
        let parts = text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let Some(version) = parts else { return self.expected("a version such as 9.0") };
        if !VERSIONS.iter().any(|&(major, last)| version.0 == major && version.1 <= last) {
            return Err(PtxError::of_version(self.line, format!("there is no .version {text}: {}", versions())));
        }
        self.bump()?;
        Ok(version)
    }

    /// `.target sm_80, debug`: one architecture; texturing modes and `debug` change nothing here.
    fn target(&mut self) -> Parse<String> {
        self.directive("target")?;
        let mut target = None;
        loop {
            match self.token {
                Token::Word(arch) if arch.starts_with("sm_") && target.is_none() => target = Some(arch),
                Token::Word("debug" | "texmode_unified" | "texmode_independent") => {}
                _ => return self.expected("one architecture such as sm_80"),
            }
            self.bump()?;
            if !self.accept(',')? {
                break;
            }
        }
        target.map_or_else(|| self.error(".target without an architecture such as sm_80"), |t| Ok(t.into()))
    }

    /// `.file 1 "name"`, with an optional time stamp and size.
    fn file(&mut self) -> Parse<(u32, String)> {
        self.bump()?;
        let number = self.count("a file number")?;
        let Token::Text(name) = self.token else { return self.expected("a file name in quotes") };
        self.bump()?;
        while self.accept(',')? {
            self.constant("a time stamp or size")?;
        }
        Ok((number, name.replace("\\\"", "\"").replace("\\\\", "\\")))
    }

    /// `.section .debug_str { ... }`: debug information, skipped.
    fn section(&mut self) -> Parse<()> {
        self.bump()?;
        let Token::Directive(_) = self.token else { return self.expected("the name of a section") };
        self.bump()?;
        self.expect('{')?;
        let mut depth = 1u32;
        while depth > 0 {
            match self.bump()? {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth -= 1,
                Token::End => return self.expected("the `}` of a section"),
                _ => {}
            }
        }
        Ok(())
    }

    /// `.pragma "nounroll";`: hints.
    fn pragma(&mut self) -> Parse<()> {
        self.bump()?;
        loop {
            let Token::Text(_) = self.token else { return self.expected("a string") };
            self.bump()?;
            if !self.accept(',')? {
                return self.expect(';');
            }
        }
    }

    /// At most one of `.extern`, `.visible`, `.weak`, `.common`; whether it was `.extern`.
    fn linkage(&mut self) -> Parse<bool> {
        let external = match self.token {
            Token::Directive("extern") => true,
            Token::Directive("visible" | "weak" | "common") => false,
            _ => return Ok(false),
        };
        self.bump()?;
        Ok(external)
    }

    fn alias(&mut self) -> Parse<Alias<'a>> {
        let line = self.line;
        self.bump()?;
        let name = self.name("the name of a function")?;
        self.expect(',')?;
        let target = self.name("the name of a function")?;
        self.expect(';')?;
        Ok(Alias { name, target, line })
    }
}

/// The versions there are, as a list.
fn versions() -> String {
    let all: Vec<String> = VERSIONS.iter().map(|(major, last)| format!("{major}.0 to {major}.{last}")).collect();
    format!("known are {}", all.join(", "))
}

/// The name of a file, which may be said behind the function that refers to it.
fn file_name(text: &str, number: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let (said, name) = line.trim_start().strip_prefix(".file")?.split_once('"')?;
        (said.trim().parse() == Ok(number)).then_some(())?;
        name.split_once('"').map(|(name, _)| name.into())
    })
}

/// `.global` and `.const` variables of functions become variables of the module, under a name that no other can have.
fn hoist(module: &mut Module) {
    for f in &mut module.functions {
        let (name, mut work) = (&f.name, Vec::from_iter(f.body.as_mut()));
        while let Some(statements) = work.pop() {
            for s in statements {
                match s {
                    Statement::Block(inner) => work.push(inner),
                    Statement::Variable(v) if matches!(v.space, Space::Global | Space::Const) => {
                        let unique = format!("{name}::{}::{}", v.name, module.variables.len());
                        let here = std::mem::replace(&mut v.name, unique.clone());
                        module.variables.push(v.clone());
                        *s = Statement::Static(here, unique);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Gives the alias, declared without a body, the parameters and the body of its target.
fn resolve(alias: &Alias, functions: &mut Vec<Function>) -> Parse<()> {
    let target = functions.iter().find(|f| f.name == alias.target && f.body.is_some() && !f.entry);
    let Some(target) = target else {
        return Err(PtxError::new(
            alias.line,
            format!("alias of {}, which is not a function defined here", alias.target),
        ));
    };
    if functions.iter().any(|f| f.name == alias.name && f.body.is_some()) {
        return Err(PtxError::new(alias.line, format!("alias {} has a body of its own", alias.name)));
    }
    let copy = Function { name: alias.name.into(), ..target.clone() };
    functions.push(copy);
    Ok(())
}

/// The state space of a directive that declares variables.
fn space(directive: &str) -> Option<Space> {
    Some(match directive {
        "global" => Space::Global,
        "shared" => Space::Shared,
        "local" => Space::Local,
        "param" => Space::Param,
        "const" => Space::Const,
        _ => return None,
    })
}
