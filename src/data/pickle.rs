//! Python's pickles, read and never run: what a pickle would call becomes a [`Value::Call`] that nobody calls.
//!
//! The opcodes are those that PyTorch and protocols 2 to 5 write. Values lie in an arena and refer to each other by number, so that
//! neither depth nor circles cost anything.

use std::collections::HashMap;

/// A value's place in its [`Pickle`].
pub type Id = usize;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    /// `None` for one of more than 16 bytes.
    Int(Option<i128>),
    Float(f64),
    Text(String),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, `module.name`.
    Global(String),
    /// What the container resolves.
    Persistent(Id),
    /// A call that was not made: of what, with what.
    Call(Id, Id),
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle {
    pub values: Vec<Value>,
    pub root: Id,
    /// Bytes up to its end.
    pub len: usize,
}

impl Pickle {
    pub fn root(&self) -> &Value {
        &self.values[self.root]
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match &self.values[id] {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn int(&self, id: Id) -> Option<i128> {
        match self.values[id] {
            Value::Int(value) => value,
            _ => None,
        }
    }

    /// The items of a list or tuple.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match &self.values[id] {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// What a call would call, and its arguments.
    pub fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        let Value::Call(callee, arguments) = self.values[id] else { return None };
        let name = match &self.values[callee] {
            Value::Global(name) => name,
            _ => "an unnamed function",
        };
        Some((name, self.items(arguments).unwrap_or_default()))
    }

    /// Reads the pickle that `bytes` begin with.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(bytes: &[u8]) -> Result<Pickle, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        };
        let root = machine.run().map_err(|problem| format!("byte {} of the pickle: {problem}", machine.at))?;
        Ok(Pickle { len: machine.at, root, values: machine.values })
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Items that were copied from one container into another.
    copied: usize,
}

type Step<T = ()> = Result<T, String>;

impl Machine<'_> {
    fn take(&mut self, n: usize) -> Step<&[u8]> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len()).ok_or("it ends in the middle")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned number of `n` bytes, at most 8.
    fn number(&mut self, n: usize) -> Step<u64> {
        Ok(self.take(n)?.iter().rev().fold(0, |all, &b| all << 8 | u64::from(b)))
    }

    fn length(&mut self, n: usize) -> Step<usize> {
        usize::try_from(self.number(n)?).map_err(|_| "a length is too large".into())
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or("it ends in the middle of a line")?;
        let line = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.at += len + 1;
        Ok(line)
    }

    fn text(&mut self, n: usize) -> Step {
        let text = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.push(Value::Text(text));
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
    }

    fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn top(&self) -> Step<Id> {
        self.stack.last().copied().ok_or_else(|| "the stack is empty".into())
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        let height = self.marks.pop().ok_or("there is no mark")?;
        if height > self.stack.len() {
            return Err("a mark lies above the stack".into());
        }
        Ok(self.stack.split_off(height))
    }

    fn tuple(&mut self, n: usize) -> Step {
        let mut items = (0..n).map(|_| self.pop()).collect::<Step<Vec<Id>>>()?;
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn set(&mut self, pairs: &[Id]) -> Step {
        if !pairs.len().is_multiple_of(2) {
            return Err("a key is without a value".into());
        }
        let of = self.top()?;
        // What is set in an object of another class is no business of ours.
        if let Value::Dict(entries) = &mut self.values[of] {
            entries.extend(pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Step {
        let to = self.top()?;
        if let Value::List(list) = &mut self.values[to] {
            list.extend(items);
        }
        Ok(())
    }

    /// What a call would give, for the few containers that hold nothing but their items; else the call itself.
    fn call(&mut self) -> Step {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let name = match &self.values[callee] {
            Value::Global(name) => name.as_str(),
            _ => "",
        };
        let only = match &self.values[arguments] {
            Value::Tuple(items) if items.len() == 1 => Some(items[0]),
            _ => None,
        };
        match (name, only) {
            ("torch.Size", Some(sides)) => self.stack.push(sides),
            ("collections.OrderedDict", Some(pairs)) => {
                let pairs = self.pairs(pairs)?;
                self.push(Value::Dict(pairs));
            }
            ("collections.OrderedDict" | "collections.defaultdict" | "builtins.dict" | "__builtin__.dict", _) => {
                self.push(Value::Dict(vec![]));
            }
            _ => self.push(Value::Call(callee, arguments)),
        }
        Ok(())
    }

    /// The entries that a list of pairs holds. One list named again and again would else become a large number of them.
    fn pairs(&mut self, of: Id) -> Step<Vec<(Id, Id)>> {
        let pair = |&id: &Id| match &self.values[id] {
            Value::Tuple(pair) | Value::List(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
            _ => None,
        };
        let pairs: Vec<(Id, Id)> = match &self.values[of] {
            Value::List(pairs) | Value::Tuple(pairs) => pairs.iter().filter_map(pair).collect(),
            Value::Dict(pairs) => pairs.clone(),
            _ => vec![],
        };
        self.copied += pairs.len();
        if self.copied > self.bytes.len() { Err("it copies more than it holds".into()) } else { Ok(pairs) }
    }

    fn global(&mut self, module: &str, name: &str) {
        self.push(Value::Global(format!("{module}.{name}")));
    }

    fn run(&mut self) -> Step<Id> {
        loop {
            let code = self.take(1)?[0];
            match code {
                b'.' => return self.pop(),
                0x80 => match self.number(1)? {
                    2..=5 => {}
                    other => return Err(format!("expected protocol 2 to 5, found {other}")),
                },
                0x95 => {
                    self.take(8)?;
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.since_mark()?;
                }
                b'2' => self.stack.push(self.top()?),
                b'N' => self.push(Value::None),
                0x88 => self.push(Value::Bool(true)),
                0x89 => self.push(Value::Bool(false)),
                b'J' => {
                    let value = self.number(4)? as u32 as i32;
                    self.push(Value::Int(Some(value.into())));
                }
                b'K' | b'M' => {
                    let value = self.number(if code == b'K' { 1 } else { 2 })?;
                    self.push(Value::Int(Some(value.into())));
                }
                b'I' | b'L' => {
                    let line = self.line()?;
                    self.push(match line.as_str() {
                        "00" => Value::Bool(false),
                        "01" => Value::Bool(true),
                        text => Value::Int(text.trim_end_matches('L').parse().ok()),
                    });
                }
                0x8a | 0x8b => {
                    let len = self.length(if code == 0x8a { 1 } else { 4 })?;
                    let bytes = self.take(len)?;
                    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
                    let mut wide = [if negative { 0xff } else { 0 }; 16];
                    let fits = len <= 16;
                    if fits {
                        wide[..len].copy_from_slice(bytes);
                    }
                    self.push(Value::Int(fits.then(|| i128::from_le_bytes(wide))));
                }
                b'G' => {
                    let bits = self.number(8)?.swap_bytes();
                    self.push(Value::Float(f64::from_bits(bits)));
                }
                b'X' | 0x8c | 0x8d | b'U' | b'T' => {
                    let len = self.length(match code {
                        b'X' | b'T' => 4,
                        0x8d => 8,
                        _ => 1,
                    })?;
                    self.text(len)?;
                }
                b'B' | b'C' | 0x8e | 0x96 => {
                    let len = self.length(match code {
                        b'B' => 4,
                        b'C' => 1,
                        _ => 8,
                    })?;
                    self.take(len)?;
                    self.push(Value::Bytes);
                }
                b')' => self.push(Value::Tuple(vec![])),
                b']' | 0x8f => self.push(Value::List(vec![])),
                b'}' => self.push(Value::Dict(vec![])),
                0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Value::Tuple(items));
                }
                b'l' | 0x91 => {
                    let items = self.since_mark()?;
                    self.push(Value::List(items));
                }
                b'd' => {
                    let items = self.since_mark()?;
                    self.push(Value::Dict(vec![]));
                    self.set(&items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(&items)?;
                }
                b'q' | b'r' => {
                    let place = self.number(if code == b'q' { 1 } else { 4 })?;
                    let top = self.top()?;
                    self.memo.insert(place, top);
                }
                0x94 => {
                    let top = self.top()?;
                    self.memo.insert(self.memo.len() as u64, top);
                }
                b'h' | b'j' => {
                    let place = self.number(if code == b'h' { 1 } else { 4 })?;
                    let id = *self.memo.get(&place).ok_or_else(|| format!("nothing was noted as {place}"))?;
                    self.stack.push(id);
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name);
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (&self.values[module], &self.values[name]) {
                        (Value::Text(module), Value::Text(name)) => {
                            let (module, name) = (module.clone(), name.clone());
                            self.global(&module, &name);
                        }
                        _ => return Err("a global without a name".into()),
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Value::Persistent(id));
                }
                b'R' | 0x81 => self.call()?,
                0x92 => {
                    self.pop()?;
                    self.call()?;
                }
                // The state of an object, of which nothing is wanted.
                b'b' => {
                    self.pop()?;
                }
                other => return Err(format!("the opcode 0x{other:02x} is none that checkpoints have")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_calls_are_not_made() {
        // {'a': (1, -2, 2.5, True, None), 'b': [os.system('true')]}
        let bytes = b"\x80\x02}q\x00(U\x01a(K\x01J\xfe\xff\xff\xffG\x40\x04\0\0\0\0\0\0\x88Ntq\x01U\x01b]cos\nsystem\nU\x04true\x85Rau.rest";
        let pickle = Pickle::read(bytes).unwrap();
        assert_eq!(pickle.len, bytes.len() - 4);
        let Value::Dict(entries) = pickle.root() else { panic!("{:?}", pickle.root()) };
        assert_eq!(pickle.text(entries[0].0), Some("a"));
        let items = pickle.items(entries[0].1).unwrap();
        assert_eq!((pickle.int(items[0]), pickle.int(items[1])), (Some(1), Some(-2)));
        assert_eq!(pickle.values[items[2]], Value::Float(2.5));
        let call = pickle.items(entries[1].1).unwrap()[0];
        assert_eq!(pickle.call(call).map(|(name, arguments)| (name, arguments.len())), Some(("os.system", 1)));
    }

    #[test]
    fn every_damage_is_an_error() {
        let good =
            b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(X\x01\0\0\0a\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19K\x02\x86u.";
        Pickle::read(good).unwrap();
        for len in 0..good.len() {
            Pickle::read(&good[..len]).unwrap_err();
        }
        for i in 0..good.len() {
            for byte in [0, b'(', b'.', b'u', b'R', b'h', 0x93, 0xff] {
                let mut bad = good.to_vec();
                bad[i] = byte;
                let _ = Pickle::read(&bad);
            }
        }
        let error = Pickle::read(b"\x80\x02B\xff\xff\xff\xff.").err().unwrap();
        assert!(error.contains("ends in the middle"), "{error}");
        // A list that holds itself.
        let circle = Pickle::read(b"\x80\x02]q\x00h\x00a.").unwrap();
        assert_eq!(circle.items(circle.root).unwrap(), [circle.root]);
    }
}
