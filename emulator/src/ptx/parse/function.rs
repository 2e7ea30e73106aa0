//! Functions and the statements of their bodies (PTX ISA 4.2, 7.1, 11.2, 11.4, 11.5).

use super::{Parse, Parser, Place, PtxError, Token, space};
use crate::ptx::ast::{Function, Statement};

/// Blocks inside blocks. nvcc needs two; those who walk the tree do so recursively.
const MAX_NESTING: usize = 64;

impl Parser<'_> {
    /// Behind `.entry` or `.func`: the head, and the body if there is one.
    pub(super) fn function(&mut self, entry: bool, line: u32) -> Parse<Function> {
        let mut f = self.head(entry, line)?;
        if self.accept(';')? {
            return Ok(f);
        }
        if !self.at('{') {
            return self.expected("`{` or `;`");
        }
        self.place = Some(Place { function: f.name.clone(), entry, source: None });
        f.body = Some(self.body(&f.name)?);
        self.place = None;
        Ok(f)
    }

    /// `(results) name (parameters)` and directives.
    fn head(&mut self, entry: bool, line: u32) -> Parse<Function> {
        let mut f = Function { entry, line, ..Function::default() };
        if !entry && self.at('(') {
            f.returns = self.parameters()?;
        }
        f.name = self.name("the name of a function")?.into();
        if self.at('(') {
            f.parameters = self.parameters()?;
        }
        while let Token::Directive(directive) = self.token {
            self.head_directive(directive, &mut f)?;
        }
        Ok(f)
    }

    /// A directive between parameters and body. Only the number of threads matters to a launch; the others tune registers,
    /// occupancy and clusters, or say that a function never returns.
    fn head_directive(&mut self, directive: &str, f: &mut Function) -> Parse<()> {
        match directive {
            "maxntid" => f.max_threads = Some(self.extent()?),
            "reqntid" => f.required_threads = Some(self.extent()?),
            "reqnctapercluster" => drop(self.extent()?),
            "minnctapersm"
            | "maxnctapersm"
            | "maxnreg"
            | "local_maxnreg"
            | "maxclusterrank"
            | "abi_preserve"
            | "abi_preserve_control" => {
                self.bump()?;
                self.count("a number")?;
            }
            "explicitcluster" | "blocksareclusters" | "noreturn" => drop(self.bump()?),
            "pragma" => self.pragma()?,
            _ => return self.error(format!("unknown directive .{directive} in the head of {}", f.name)),
        }
        Ok(())
    }

    /// `256, 1, 1`; what is left out is 1.
    fn extent(&mut self) -> Parse<[u32; 3]> {
        let line = self.line;
        self.bump()?;
        let mut extent = [1u32; 3];
        for (n, axis) in extent.iter_mut().enumerate() {
            if n > 0 && !self.accept(',')? {
                break;
            }
            *axis = self.count("a number of threads or blocks")?;
        }
        let all = extent.iter().try_fold(1u32, |all, &n| all.checked_mul(n));
        if all.is_none_or(|n| n == 0) {
            return Err(PtxError::new(line, format!("an extent of {extent:?} is not possible")));
        }
        Ok(extent)
    }

    /// `{ ... }` of the function of this name, with the blocks inside.
    fn body(&mut self, name: &str) -> Parse<Vec<Statement>> {
        self.expect('{')?;
        let mut outer: Vec<Vec<Statement>> = Vec::new();
        let mut here = Vec::new();
        loop {
            match self.token {
                Token::Mark('{') => {
                    if outer.len() == MAX_NESTING {
                        return self.error(format!("blocks nest deeper than {MAX_NESTING}"));
                    }
                    self.bump()?;
                    outer.push(std::mem::take(&mut here));
                }
                Token::Mark('}') => {
                    self.bump()?;
                    let Some(around) = outer.pop() else { return Ok(here) };
                    let inner = std::mem::replace(&mut here, around);
                    here.push(Statement::Block(inner));
                }
                // Inline assembly often ends in one semicolon too many.
                Token::Mark(';') => drop(self.bump()?),
                Token::End => return self.expected(&format!("the `}}` of {name}")),
                _ => self.statement(&mut here)?,
            }
        }
    }

    /// Anything but a block.
    fn statement(&mut self, into: &mut Vec<Statement>) -> Parse<()> {
        let line = self.line;
        match self.token {
            Token::Directive("reg") => {
                self.bump()?;
                self.registers(into)?;
            }
            Token::Directive("loc") => into.push(self.location()?),
            Token::Directive("pragma") => self.pragma()?,
            Token::Directive(directive) => {
                let Some(space) = space(directive) else {
                    return self.error(format!("unknown directive .{directive} in a function"));
                };
                self.bump()?;
                into.extend(self.variables(space, false)?.into_iter().map(Statement::Variable));
            }
            Token::Mark('@') => {
                self.bump()?;
                let negated = self.accept('!')?;
                let predicate = self.name("a predicate")?.to_string();
                let Token::Word(opcode) = self.token else { return self.expected("an instruction") };
                let line = self.line;
                self.bump()?;
                into.push(Statement::Instruction(self.instruction(Some((predicate, negated)), opcode, line)?));
            }
            Token::Word(word) => {
                self.bump()?;
                if self.accept(':')? {
                    if word.contains(['.', ':']) {
                        return Err(PtxError::new(line, format!("`{word}` cannot be a label")));
                    }
                    self.labelled(word, line, into)?;
                } else {
                    into.push(Statement::Instruction(self.instruction(None, word, line)?));
                }
            }
            _ => return self.expected("a statement"),
        }
        Ok(())
    }

    /// Behind `name:`. A label, or the list of targets or prototype that the label names.
    fn labelled(&mut self, name: &str, line: u32, into: &mut Vec<Statement>) -> Parse<()> {
        match self.token {
            Token::Directive("branchtargets") => {
                self.bump()?;
                into.push(Statement::BranchTargets(name.into(), self.names("a label")?));
            }
            // What an indirect call may reach.
            Token::Directive("calltargets") => {
                self.bump()?;
                into.push(Statement::CallTargets(name.into(), self.names("a function")?));
            }
            Token::Directive("callprototype") => {
                self.bump()?;
                let prototype = self.head(false, line)?;
                if prototype.name != "_" {
                    return Err(PtxError::new(
                        line,
                        format!("prototype {name}: expected `_`, found `{}`", prototype.name),
                    ));
                }
                self.expect(';')?;
                into.push(Statement::Prototype(name.into(), Box::new(prototype)));
            }
            _ => into.push(Statement::Label(name.into(), line)),
        }
        Ok(())
    }

    /// `a, b, c;`
    fn names(&mut self, what: &str) -> Parse<Vec<String>> {
        let mut names = Vec::new();
        loop {
            names.push(self.name(what)?.into());
            if !self.accept(',')? {
                self.expect(';')?;
                return Ok(names);
            }
        }
    }

    /// `.loc 1 40 9, function_name $L__info_string1, inlined_at 1 357 3` (PTX ISA 11.5.3); the columns are dropped.
    fn location(&mut self) -> Parse<Statement> {
        self.bump()?;
        let (file, line) = self.position()?;
        if let Some(place) = &mut self.place {
            place.source = Some((file, line));
        }
        let mut inlined_at = None;
        while self.accept(',')? {
            match self.token {
                Token::Word("function_name") => {
                    self.bump()?;
                    self.name("a label in .debug_str")?;
                    self.offset()?;
                }
                Token::Word("inlined_at") => {
                    self.bump()?;
                    inlined_at = Some(self.position()?);
                }
                _ => return self.expected("`function_name` or `inlined_at`"),
            }
        }
        Ok(Statement::Location { file, line, inlined_at })
    }

    /// File, line and column.
    fn position(&mut self) -> Parse<(u32, u32)> {
        let (file, line) = (self.count("a file number")?, self.count("a line")?);
        self.count("a column")?;
        Ok((file, line))
    }
}
