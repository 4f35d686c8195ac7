//! Reads FlatBuffers: tables, vectors and texts at offsets, each checked against the end of the bytes.
//!
//! The schemas of a model file are small and stable, and code that `flatc` generates reads without
//! checks, in `unsafe` functions, once a verifier has passed. Here every access is checked instead, and
//! nothing is copied before its length is known to be in the file. Offsets may point to the same place
//! again and again, so what is copied is counted, too.

use std::cell::Cell;

use crate::document::{Fault, named};

/// How many times its own length a buffer may grow when it is read.
const GROWTH_MAX: usize = 8;

/// What is said of an offset that leaves the file.
const OUTSIDE: &str = "an offset leads out of the file; copy or save it again";

/// The bytes of one root table and all it holds.
#[derive(Debug)]
pub(super) struct Buffer<'a> {
    bytes: &'a [u8],
    /// Bytes that may still be copied.
    allowance: Cell<usize>,
}

impl<'a> Buffer<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            allowance: Cell::new(GROWTH_MAX * bytes.len()),
        }
    }

    pub(super) fn root(&self) -> Result<Table<'_, 'a>, Fault> {
        self.table_behind(0)
    }

    fn slice(&self, at: usize, length: usize) -> Result<&'a [u8], Fault> {
        let end = at.checked_add(length);
        end.and_then(|end| self.bytes.get(at..end))
            .ok_or_else(|| Fault::new(OUTSIDE))
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Fault> {
        let bytes = self.slice(at, N)?;
        bytes.try_into().map_err(|_| Fault::new(OUTSIDE))
    }

    /// Where the offset at a place leads; offsets are unsigned, so always forward.
    fn follow(&self, at: usize) -> Result<usize, Fault> {
        let offset = u32::from_le_bytes(self.array(at)?);
        at.checked_add(offset as usize)
            .ok_or_else(|| Fault::new(OUTSIDE))
    }

    fn table_behind(&self, at: usize) -> Result<Table<'_, 'a>, Fault> {
        let at = self.follow(at)?;
        let back = i64::from(i32::from_le_bytes(self.array(at)?));
        let vtable = i64::try_from(at).ok().and_then(|at| at.checked_sub(back));
        let vtable = vtable.and_then(|vtable| usize::try_from(vtable).ok());
        let vtable = vtable.ok_or_else(|| Fault::new(OUTSIDE))?;
        let length = usize::from(u16::from_le_bytes(self.array(vtable)?));
        // Its own length and that of the table come first.
        let fields = self.slice(vtable, length.max(4))?;
        Ok(Table {
            buffer: self,
            at,
            fields: &fields[4..],
        })
    }

    /// The elements of the vector behind an offset, each of a size.
    fn vector_behind(&self, at: usize, element: usize) -> Result<(usize, &'a [u8]), Fault> {
        let at = self.follow(at)?;
        let count = u32::from_le_bytes(self.array(at)?) as usize;
        let length = count.checked_mul(element);
        let length = length.ok_or_else(|| Fault::new(OUTSIDE))?;
        Ok((at + 4, self.slice(at + 4, length)?))
    }

    /// Counts bytes that are about to be copied.
    fn spend(&self, length: usize) -> Result<(), Fault> {
        let rest = self.allowance.get().checked_sub(length);
        let rest = rest.ok_or_else(|| Fault::new("the same bytes are used again and again"))?;
        self.allowance.set(rest);
        Ok(())
    }
}

/// A table, whose fields are known by their numbers in the schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'b, 'a> {
    buffer: &'b Buffer<'a>,
    at: usize,
    /// Where each field is, counted from the table, as 16-bit numbers; 0 where it has its default.
    fields: &'a [u8],
}

/// Defines readers of single numbers.
macro_rules! scalars {
    ($($name:ident)+) => {$(
        pub(super) fn $name(&self, field: Field, default: $name) -> Result<$name, Fault> {
            match self.place(field) {
                Some(at) => Ok($name::from_le_bytes(self.buffer.array(at).map_err(named(field.1))?)),
                None => Ok(default),
            }
        }
    )+};
}

/// A field: its number in the schema and its name.
pub(super) type Field = (usize, &'static str);

impl<'b, 'a> Table<'b, 'a> {
    scalars! { u8 i32 f32 f64 }

    fn place(&self, field: Field) -> Option<usize> {
        let entry = self.fields.as_chunks::<2>().0.get(field.0)?;
        let offset = usize::from(u16::from_le_bytes(*entry));
        (offset != 0).then(|| self.at + offset)
    }

    pub(super) fn text(&self, field: Field) -> Result<Option<&'a str>, Fault> {
        let Some(bytes) = self.bytes(field)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes);
        text.map(Some)
            .map_err(|_| Fault::new("a text is not UTF-8").inside(format_args!("`{}`", field.1)))
    }

    pub(super) fn bytes(&self, field: Field) -> Result<Option<&'a [u8]>, Fault> {
        let vector = self.place(field).map(|at| self.buffer.vector_behind(at, 1));
        let bytes = vector.transpose().map_err(named(field.1))?;
        Ok(bytes.map(|(_, bytes)| bytes))
    }

    pub(super) fn table(&self, field: Field) -> Result<Option<Self>, Fault> {
        let table = self.place(field).map(|at| self.buffer.table_behind(at));
        table.transpose().map_err(named(field.1))
    }

    pub(super) fn required(&self, field: Field) -> Result<Self, Fault> {
        self.table(field)?
            .ok_or_else(|| Fault(format!("`{}` is missing", field.1)))
    }

    /// The tables of a vector, of which there may be a limited number.
    pub(super) fn tables(
        &self,
        field: Field,
        most: usize,
    ) -> Result<impl Iterator<Item = Result<Self, Fault>> + use<'b, 'a>, Fault> {
        let vector = self.place(field).map(|at| self.buffer.vector_behind(at, 4));
        let (start, bytes) = vector
            .transpose()
            .map_err(named(field.1))?
            .unwrap_or((0, &[]));
        let count = bytes.len() / 4;
        if count > most {
            return Err(Fault(format!(
                "`{}`: {count} of them, more than {most}",
                field.1
            )));
        }
        let buffer = self.buffer;
        Ok((0..count).map(move |index| {
            let table = buffer.table_behind(start + 4 * index);
            table.map_err(|fault| fault.inside(format_args!("`{}`: {index}", field.1)))
        }))
    }

    /// The texts of a vector.
    pub(super) fn texts(&self, field: Field) -> Result<Vec<&'a str>, Fault> {
        let vector = self.place(field).map(|at| self.buffer.vector_behind(at, 4));
        let (start, bytes) = vector
            .transpose()
            .map_err(named(field.1))?
            .unwrap_or((0, &[]));
        self.buffer.spend(4 * bytes.len())?;
        let text = |index: usize| {
            let (_, bytes) = self.buffer.vector_behind(start + 4 * index, 1)?;
            std::str::from_utf8(bytes).map_err(|_| Fault::new("a text is not UTF-8"))
        };
        let texts = (0..bytes.len() / 4).map(text).collect::<Result<_, _>>();
        texts.map_err(named(field.1))
    }

    /// Numbers of `N` bytes in a vector of bytes; what is left over at its end is no number.
    pub(super) fn packed<const N: usize, T>(
        &self,
        field: Field,
        decode: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Fault> {
        let bytes = self.bytes(field)?.unwrap_or_default();
        self.buffer.spend(bytes.len()).map_err(named(field.1))?;
        let elements = bytes.as_chunks::<N>().0.iter();
        Ok(elements.map(|element| decode(*element)).collect())
    }

    /// The numbers of a vector, or structures of numbers, each of `N` bytes.
    pub(super) fn numbers<const N: usize, T>(
        &self,
        field: Field,
        decode: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Fault> {
        let vector = self.place(field).map(|at| self.buffer.vector_behind(at, N));
        let (_, bytes) = vector
            .transpose()
            .map_err(named(field.1))?
            .unwrap_or((0, &[]));
        self.buffer.spend(bytes.len()).map_err(named(field.1))?;
        let elements = bytes.as_chunks::<N>().0.iter();
        Ok(elements.map(|element| decode(*element)).collect())
    }
}
