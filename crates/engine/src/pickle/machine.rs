//! The stack machine that a pickle is a program for, without the instructions that run something.
//!
//! The stack, the memo and the values grow by at most a few bytes for each byte of the file, whatever counts it
//! states: an instruction adds one value, and a count is only believed as far as the file goes. Of a small file that is
//! compressed they are bounded by its own size.

use std::borrow::Cow;
use std::collections::HashMap;

use super::opcodes as op;
use super::values::{decimal, long, quoted, unescape, utf8};
use super::{Id, Inline, Node, Object, Pickle, array, names};
use crate::document::{CUT_OFF, Fault};

/// The newest protocol that is known.
const PROTOCOL_MAX: u8 = 5;
/// What joblib leaves in place of an array whose elements follow.
const WRAPPER: &str = "joblib.numpy_pickle.NumpyArrayWrapper";

/// How often values may be referred to, for each value that there may be.
const REFERENCES_PER_VALUE: usize = 8;

/// Reads a pickle, as `pickle` or joblib write it, to its end; the file it is from has so many bytes.
pub(crate) fn read(bytes: &[u8], file_bytes: usize) -> Result<Pickle<'_>, Fault> {
    let mut machine = Machine {
        bytes,
        place: 0,
        pickle: Pickle::new(file_bytes),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        references: 0,
        is_nested: false,
    };
    machine.pickle.allow_copies(bytes.len());
    let root = machine.run()?;
    if machine.place < bytes.len() {
        return Err(Fault(format!(
            "byte {}: something follows the end of the pickle",
            machine.place
        )));
    }
    machine.pickle.root = root;
    Ok(machine.pickle)
}

struct Machine<'a> {
    bytes: &'a [u8],
    place: usize,
    pickle: Pickle<'a>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// How often values were referred to.
    references: usize,
    /// Whether this is a pickle within one, which joblib writes for arrays of objects.
    is_nested: bool,
}

impl<'a> Machine<'a> {
    /// Runs instructions to the end of one pickle; gives what it leaves.
    fn run(&mut self) -> Result<Id, Fault> {
        loop {
            let at = self.place;
            let step = self.byte().and_then(|opcode| match opcode {
                op::STOP => self.pop().map(Some),
                opcode => self.step(opcode).map(|()| None),
            });
            if let Some(root) = step.map_err(|fault| self.placed(fault, at))? {
                return Ok(root);
            }
        }
    }

    /// A fault of the instruction there; one within a nested pickle has its place already.
    fn placed(&self, fault: Fault, at: usize) -> Fault {
        match fault.0.starts_with("byte ") {
            true => fault,
            false => fault.inside(format_args!("byte {at}")),
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            op::PROTO => self.protocol(),
            op::FRAME => self.take(8).map(|_| ()),
            op::MARK => {
                self.refer(1)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            op::POP => self.pop().map(|_| ()),
            op::POP_MARK => self.since_mark().map(|_| ()),
            op::DUP => {
                self.refer(1)?;
                self.top().map(|id| self.stack.push(id))
            }
            op::GET | op::BINGET | op::LONG_BINGET => self.remembered(opcode),
            op::PUT | op::BINPUT | op::LONG_BINPUT => {
                let key = self.memo_key(opcode)?;
                self.remember(key)
            }
            op::MEMOIZE => self.remember(self.memo.len() as u64),
            op::APPEND | op::APPENDS | op::ADDITEMS => self.append(opcode),
            op::SETITEM | op::SETITEMS => self.set_items(opcode),
            op::GLOBAL | op::STACK_GLOBAL => self.global(opcode),
            op::REDUCE | op::NEWOBJ | op::NEWOBJ_EX | op::INST | op::OBJ => self.make(opcode),
            op::BUILD => self.build(),
            op::LIST | op::TUPLE | op::DICT | op::FROZENSET => self.collect(opcode),
            op::TUPLE1..=op::TUPLE3 => self.tuple(usize::from(opcode - op::TUPLE1) + 1),
            op::PERSID | op::BINPERSID => Err(Fault::new(
                "it refers to something outside the file by a persistent id",
            )),
            op::EXT1 | op::EXT2 | op::EXT4 => Err(Fault::new(
                "it names a class by its number in a registry of the program that wrote it",
            )),
            op::NEXT_BUFFER | op::READONLY_BUFFER => Err(Fault::new(
                "its arrays are outside the file (out-of-band buffers); save it without `buffer_callback`",
            )),
            opcode => {
                let node = self.value(opcode)?;
                self.push(node)
            }
        }
    }

    /// Instructions that only bring a value.
    fn value(&mut self, opcode: u8) -> Result<Node<'a>, Fault> {
        Ok(match opcode {
            op::NONE => Node::None,
            op::NEWTRUE => Node::Bool(true),
            op::NEWFALSE => Node::Bool(false),
            op::EMPTY_LIST => Node::List(Vec::new()),
            op::EMPTY_TUPLE => Node::Tuple(Vec::new()),
            op::EMPTY_DICT => Node::Dict(Vec::new()),
            op::EMPTY_SET => Node::Set(Vec::new()),
            op::BININT => Node::Integer(i64::from(i32::from_le_bytes(self.array()?))),
            op::BININT1 => Node::Integer(i64::from(self.byte()?)),
            op::BININT2 => Node::Integer(i64::from(u16::from_le_bytes(self.array()?))),
            op::INT => match self.line()? {
                "00" => Node::Bool(false),
                "01" => Node::Bool(true),
                text => decimal(text)?,
            },
            op::LONG => {
                let line = self.line()?;
                decimal(line.strip_suffix('L').unwrap_or(line))?
            }
            op::LONG1 => {
                let length = usize::from(self.byte()?);
                long(self.take(length)?)
            }
            op::LONG4 => {
                let bytes = self.counted(4)?;
                long(bytes)
            }
            op::FLOAT => {
                let text = self.line()?;
                let number = text.parse();
                Node::Float(number.map_err(|_| Fault::new("this is no number"))?)
            }
            op::BINFLOAT => Node::Float(f64::from_be_bytes(self.array()?)),
            op::SHORT_BINUNICODE => utf8(self.counted(1)?)?,
            op::BINUNICODE => utf8(self.counted(4)?)?,
            op::BINUNICODE8 => utf8(self.counted(8)?)?,
            op::UNICODE => Node::Text(Cow::Owned(unescape(self.line_bytes()?)?)),
            op::SHORT_BINBYTES | op::SHORT_BINSTRING => Node::Bytes(self.counted(1)?.into()),
            op::BINBYTES | op::BINSTRING => Node::Bytes(self.counted(4)?.into()),
            op::BINBYTES8 | op::BYTEARRAY8 => Node::Bytes(self.counted(8)?.into()),
            op::STRING => quoted(self.line()?)?,
            other => {
                return Err(Fault(format!(
                    "0x{other:02x} is no instruction of a pickle"
                )));
            }
        })
    }

    fn protocol(&mut self) -> Result<(), Fault> {
        match self.byte()? {
            protocol @ PROTOCOL_MAX.. if protocol > PROTOCOL_MAX => Err(Fault(format!(
                "protocol {protocol} of pickles is not known; save it with protocol {PROTOCOL_MAX}"
            ))),
            _ => Ok(()),
        }
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("as many as were taken"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.place..];
        let taken = rest.get(..count).ok_or_else(|| Fault::new(CUT_OFF))?;
        self.place += count;
        Ok(taken)
    }

    /// Bytes behind their number, which has so many bytes itself.
    fn counted(&mut self, width: usize) -> Result<&'a [u8], Fault> {
        let mut count = [0; 8];
        count[..width].copy_from_slice(self.take(width)?);
        let count = usize::try_from(u64::from_le_bytes(count));
        self.take(count.map_err(|_| Fault::new(CUT_OFF))?)
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.line_bytes()?).map_err(|_| Fault::new("this is not UTF-8"))
    }

    /// What stands up to the end of the line.
    fn line_bytes(&mut self) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.place..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| Fault::new(CUT_OFF))?;
        self.place += end + 1;
        Ok(&rest[..end])
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), Fault> {
        self.stack.push(self.pickle.add(node)?);
        Ok(())
    }

    /// Counts references, which take memory too.
    fn refer(&mut self, count: usize) -> Result<(), Fault> {
        self.references = self.references.saturating_add(count);
        match self.references > self.pickle.values_max * REFERENCES_PER_VALUE {
            true => Err(self.pickle.too_many()),
            false => Ok(()),
        }
    }

    /// What the stack has above the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, Fault> {
        let top = self.stack[self.floor()..].last().copied();
        top.ok_or_else(|| Fault::new("a value is taken that is not there"))
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| Fault::new("a mark is taken that is not there"))?;
        Ok(self.stack.split_off(mark))
    }

    fn memo_key(&mut self, opcode: u8) -> Result<u64, Fault> {
        match opcode {
            op::BINGET | op::BINPUT => Ok(u64::from(self.byte()?)),
            op::LONG_BINGET | op::LONG_BINPUT => Ok(u64::from(u32::from_le_bytes(self.array()?))),
            _ => {
                let key = self.line()?.parse();
                key.map_err(|_| Fault::new("this is no number of a value"))
            }
        }
    }

    fn remember(&mut self, key: u64) -> Result<(), Fault> {
        let top = self.top()?;
        self.memo.insert(key, top);
        match self.memo.len() > self.pickle.values_max {
            true => Err(self.pickle.too_many()),
            false => Ok(()),
        }
    }

    fn remembered(&mut self, opcode: u8) -> Result<(), Fault> {
        self.refer(1)?;
        let key = self.memo_key(opcode)?;
        let id = self.memo.get(&key);
        let missing = || {
            Fault(format!(
                "value {key} is taken, and none was remembered as that"
            ))
        };
        self.stack.push(*id.ok_or_else(missing)?);
        Ok(())
    }

    fn append(&mut self, opcode: u8) -> Result<(), Fault> {
        let items = match opcode {
            op::APPEND => vec![self.pop()?],
            _ => self.since_mark()?,
        };
        let top = self.top()?;
        match &mut self.pickle.nodes[top as usize] {
            Node::List(list) | Node::Set(list) => list.extend(items),
            Node::Object(object) => object.items.extend(items),
            _ => return Err(Fault::new("items are put into what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Result<(), Fault> {
        let items = match opcode {
            op::SETITEM => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.since_mark()?,
        };
        let pairs = pairs(&items)?;
        let top = self.top()?;
        match &mut self.pickle.nodes[top as usize] {
            Node::Dict(entries) => entries.extend(pairs),
            Node::Object(object) => object.entries.extend(pairs),
            _ => return Err(Fault::new("keys are put into what is no dict")),
        }
        Ok(())
    }

    fn collect(&mut self, opcode: u8) -> Result<(), Fault> {
        let items = self.since_mark()?;
        let node = match opcode {
            op::LIST => Node::List(items),
            op::TUPLE => Node::Tuple(items),
            op::DICT => Node::Dict(pairs(&items)?.collect()),
            _ => Node::Set(items),
        };
        self.push(node)
    }

    fn tuple(&mut self, size: usize) -> Result<(), Fault> {
        let mut items = vec![0; size];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        self.push(Node::Tuple(items))
    }

    fn global(&mut self, opcode: u8) -> Result<(), Fault> {
        let full = match opcode {
            op::GLOBAL => {
                let module = self.line()?;
                names::admit(module, self.line()?)?
            }
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                let [module, name] = [module, name].map(|id| &self.pickle.nodes[id as usize]);
                match (module, name) {
                    (Node::Text(module), Node::Text(name)) => names::admit(module, name)?,
                    _ => return Err(Fault::new("a class is named by what is no text")),
                }
            }
        };
        self.push(Node::Name(full))
    }

    /// Notes what would be made, by whichever instruction.
    fn make(&mut self, opcode: u8) -> Result<(), Fault> {
        let (class, arguments) = match opcode {
            op::INST => {
                let module = self.line()?;
                let class = names::admit(module, self.line()?)?;
                (class, self.since_mark()?)
            }
            op::OBJ => {
                let mut items = self.since_mark()?;
                if items.is_empty() {
                    return Err(Fault::new("an object without a class"));
                }
                (self.name_of(items.remove(0))?, items)
            }
            _ => {
                if opcode == op::NEWOBJ_EX {
                    let keywords = self.pop()?;
                    if !matches!(&self.pickle.nodes[keywords as usize], Node::Dict(pairs) if pairs.is_empty())
                    {
                        return Err(Fault::new("an object is made from named arguments"));
                    }
                }
                let (arguments, class) = (self.pop()?, self.pop()?);
                let Node::Tuple(arguments) = &self.pickle.nodes[arguments as usize] else {
                    return Err(Fault::new("an object is made from what is no tuple"));
                };
                (self.name_of(class)?, arguments.clone())
            }
        };
        self.refer(class.len() / size_of::<Id>() + arguments.len())?;
        // What stands for "make an object of the class that is the first argument".
        let object = match (&*class, arguments.as_slice()) {
            ("copyreg._reconstructor" | "copyreg.__newobj__", [class, rest @ ..]) => Object {
                class: self.name_of(*class)?,
                arguments: rest.to_vec(),
                ..Object::default()
            },
            _ => Object {
                class,
                arguments,
                ..Object::default()
            },
        };
        self.push(Node::Object(Box::new(object)))
    }

    fn name_of(&self, id: Id) -> Result<Box<str>, Fault> {
        match &self.pickle.nodes[id as usize] {
            Node::Name(name) => Ok(name.clone()),
            _ => Err(Fault::new(
                "it calls something that is no class or function of a library, and nothing in the file is run",
            )),
        }
    }

    fn build(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let top = self.top()?;
        match &mut self.pickle.nodes[top as usize] {
            Node::Object(object) if object.state.is_none() => object.state = Some(state),
            Node::Object(_) => return Err(Fault::new("an object gets a second state")),
            _ => return Err(Fault::new("a state is given to what is no object")),
        }
        match &self.pickle.nodes[top as usize] {
            Node::Object(object) if &*object.class == WRAPPER => self.inline(top),
            _ => Ok(()),
        }
    }

    /// Reads the elements that follow joblib's wrapper, and puts the array in its place.
    fn inline(&mut self, wrapper: Id) -> Result<(), Fault> {
        let size = array::inline_size(self.pickle.view(wrapper))?;
        self.pop()?;
        let Some(size) = size else {
            let id = self.nested()?;
            self.stack.push(id);
            return Ok(());
        };
        if array::is_aligned(self.pickle.view(wrapper)) {
            let padding = usize::from(self.byte()?);
            self.take(padding)?;
        }
        let bytes = self.take(size)?.into();
        self.push(Node::Inline(Box::new(Inline { wrapper, bytes })))
    }

    /// Reads a pickle of its own in the midst of this one.
    fn nested(&mut self) -> Result<Id, Fault> {
        if self.is_nested {
            return Err(Fault::new("a pickle within a pickle within a pickle"));
        }
        let (stack, marks) = (
            std::mem::take(&mut self.stack),
            std::mem::take(&mut self.marks),
        );
        let memo = std::mem::take(&mut self.memo);
        self.is_nested = true;
        let root = self.run()?;
        self.is_nested = false;
        (self.stack, self.marks, self.memo) = (stack, marks, memo);
        Ok(root)
    }
}

fn pairs(items: &[Id]) -> Result<impl Iterator<Item = [Id; 2]>, Fault> {
    let (pairs, rest) = items.as_chunks::<2>();
    match rest {
        [] => Ok(pairs.iter().copied()),
        _ => Err(Fault::new("a key without a value")),
    }
}
